"""The double run's tables: numbers of comparison.json and verdict.json as text."""

from __future__ import annotations

import math
from typing import Any

from deploy.quality import RANKING, SIDES
from trainer.tables import NAMES, cell, days, number, percent

AGREED = {"spearman": "Spearman", "kendall": "Kendall", "top_decile_overlap": "Overlap of highest tenths", "psi": "PSI"}
SHOWN = ("roc_auc", "pr_auc", "lift_5", "lift_10", "log_loss", "brier", "calibration_error", "mean_prediction")
_SLICED = ("pr_auc", "log_loss")


def side_table(side: str, one: dict[str, Any]) -> dict[str, Any]:
    counts = one["counts"]
    return {
        "side": side,
        "title": one["title"],
        "source": one["source"],
        "version": one["model_version"] or "not told",
        "kind": one["kind"],
        "horizons": ", ".join(map(str, one["horizons_days"])),
        "counts": [
            (name, f"{counts[key]:,}")
            for name, key in (
                ("Rows in the table", "rows"),
                ("Journeys scored", "scored"),
                ("Without a score", "missing"),
                ("Errors", "errors"),
                ("Scores of no journey here", "strays"),
                ("Repeated rows", "repeated_rows"),
            )
            if key in counts
        ],
        "reasons": [(text, f"{count:,}") for text, count in counts["reasons"].items()],
    }


def rule_row(rule: dict[str, Any]) -> dict[str, str]:
    worded = {"passed": "better", "failed": "worse"}.get(rule["result"], "")
    return {
        "rule": rule["rule"],
        "result": rule["result"],
        "class": worded,
        "value": short(rule["value"]),
        "threshold": short(rule["threshold"]),
        "consequence": rule["consequence"],
        "why": rule["why"],
    }


def quality_table(horizon: str, document: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name in SHOWN:
        gap = document["difference"][name]
        rows.append(
            {
                "name": NAMES[name],
                "cells": [cell(name, document[side][name]) for side in SIDES],
                "difference": cell(name, gap, sign=True) | {"verdict": gap["verdict"] or ""},
                "better": "" if name == "mean_prediction" else "more" if name in RANKING else "less",
            }
        )
    rate = document["base_rate"]
    return {
        "title": days(horizon),
        "id": f"quality-{horizon}",
        "rows": rows,
        "counts": f"{document['journeys']:,} journeys of {document['customers']:,} customers with a known outcome, "
        f"{document['conversions']:,} conversions ({percent(rate)}); {document['not_observed']:,} journeys are not "
        "observed for long enough.",
        "reason": document["reason"],
    }


def slice_table(title: str, key: str, slices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": title,
        "id": f"slices-{key}",
        "heads": [NAMES[name] for name in _SLICED],
        "rows": [
            {
                "name": one[key],
                "counts": [f"{one['journeys']:,}", f"{one['conversions']:,}"],
                "cells": [
                    {
                        "sides": [cell(name, {"value": one[side][name]["value"]})["value"] for side in SIDES],
                        "difference": cell(name, one["difference"][name], sign=True),
                        "verdict": one["difference"][name]["verdict"] or "",
                    }
                    for name in _SLICED
                ],
            }
            for one in slices
        ],
    }


def agreement_table(found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for horizon, one in found.items():
        moved = one["shift"]
        rows.append(
            {
                "name": days(horizon),
                "cells": [
                    figure(one["spearman"], 3),
                    figure(one["kendall"], 3),
                    percent(one["top_decile_overlap"]),
                    figure(one["psi"], 4),
                    number(100 * moved["mean_difference"], 3, True) if moved else "n/a",
                    number(100 * moved["largest_difference"], 1, False) if moved else "n/a",
                ],
            }
        )
    heads = [*AGREED.values(), "Mean difference, points", "Largest, points"]
    notes = {str(one.get("psi_reason") or one["reason"]) for one in found.values()} - {"None"}
    return {"heads": heads, "rows": rows, "notes": sorted(notes)}


def latency_row(side: str, one: dict[str, Any]) -> dict[str, Any]:
    found, timing = one["latency"], one["timing"]
    cells = [number(found[f"p{p}_ms"], 1, False) for p in (50, 95, 99)] if found else ["n/a"] * 3
    cells += [percent(found["error_rate"]) if found else "n/a"]
    speed = timing and timing["journeys_per_second"]
    cells += [f"{speed:,.0f}" if speed else "n/a", f"{timing['retries']:,}" if timing else "n/a"]
    origin = f"{found['origin']} ({found['requests']:,})" if found else one["latency_reason"]
    return {"side": side, "cells": cells, "origin": origin}


def cost_tables(cost: dict[str, Any] | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    currency = cost["currency"]
    return {
        "noted": cost["noted"],
        "region": cost["region"],
        "predictions": f"{cost['predictions_per_month']:,.0f}",
        "sources": cost["sources"],
        "sides": [
            {
                "side": side,
                "parts": [
                    (one["part"], one["worked"] or one["reason"], money(one["monthly"], currency))
                    for one in cost[side]["parts"]
                ],
                "monthly": money(cost[side]["monthly"], currency),
                "per_1000": money(cost[side]["per_1000"], currency),
                "reason": cost[side]["reason"],
                "compute": money(cost[side]["compute_per_1000"], currency),
                "worked": cost[side]["compute_worked"] or cost[side]["compute_reason"],
            }
            for side in SIDES
        ],
    }


def figure(value: float | None, digits: int) -> str:
    if value is None:
        return "n/a"
    return f"{value:,}" if isinstance(value, int) else number(value, digits, False)


def short(value: float | None) -> str:
    """Four significant digits, with a minus as wide as the plus."""
    return "n/a" if value is None else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def money(amount: float | None, currency: str) -> str:
    """Two digits after the point, and enough of them for what is less than a cent."""
    if amount is None:
        return "n/a"
    if amount >= 0.1 or amount == 0:
        return f"{amount:,.2f} {currency}"
    return f"{amount:.{1 - math.floor(math.log10(amount))}f} {currency}"
