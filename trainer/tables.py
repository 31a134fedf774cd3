"""The report's tables: numbers of metrics.json and of the transform's summary as text."""

from __future__ import annotations

from typing import Any

from preprocessing.spec import AnySpec, EventsSpec
from trainer.comparison import COMPARED, LABELS
from trainer.decision import RULES as DECISIONS
from trainer.metrics import LIFT_PERCENTS

NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "log_loss": "Log loss",
    "log_loss_skill": "Log loss skill",
    **{f"lift_{k}": f"Lift at {k} %" for k in LIFT_PERCENTS},
    "lift_k": "Lift at k %",
    "brier": "Brier score",
    "calibration_error": "Calibration (ECE)",
    "mean_prediction": "Mean prediction",
    "base_rate": "Base rate",
    "gap_to_truth": "Gap to the truth",
}
_DIGITS = {"log_loss": 4, "brier": 4, "calibration_error": 4, "gap_to_truth": 4, "mean_prediction": 4, "base_rate": 4}
SHORT = {"lstm": "LSTM", "recency_frequency": "R/F LR", "gradient_boosting": "Trees", "oracle": "Oracle"}
SLICE_HEAD = [
    "", "Journeys, customers", "Conversions", "Base rate", "Mean prediction", "ROC-AUC", "PR-AUC", "Log loss", "ECE",
    "Log loss minus best baseline",
]  # fmt: skip
_GROUPS = {"test": "All test customers", "seen": "Seen in training", "held_out": "Held out of training"}


def days(count: object) -> str:
    return f"{count} day" if str(count) == "1" else f"{count} days"


def percent(value: float | None) -> str:
    """Three significant digits, as rates of purchase may be 30 % or 0.05 %."""
    return "n/a" if value is None else f"{100 * value:#.3g}".removesuffix(".") + "\N{NO-BREAK SPACE}%"


def cell(name: str, one: dict[str, Any], *, sign: bool = False, digits: int | None = None) -> dict[str, str]:
    """A table cell: the value, and its interval, which is left out where it has no width (of what is constant)."""
    if digits is None:
        digits = 4 if sign else _DIGITS.get(name, 2 if name.startswith("lift") else 3)

    def text(value: float) -> str:
        return number(value, digits, sign)

    if one["value"] is None:
        return {"value": "n/a", "interval": ""}
    low, high = one.get("low"), one.get("high")
    bounds = "" if low is None or high is None or low == high else f"{text(low)} … {text(high)}"
    return {"value": text(one["value"]), "interval": bounds}


def number(value: float, digits: int, sign: bool) -> str:
    """With a minus as wide as the plus; z: no negative zero."""
    return f"{value:{'+' if sign else ''}z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def between(one: dict[str, Any], digits: int, *, sign: bool = False) -> str:
    if one["low"] is None:
        return ""
    return f", 95 % interval {number(one['low'], digits, sign)} to {number(one['high'], digits, sign)}"


def tiles(test: dict[str, Any]) -> list[dict[str, str]]:
    tiles = [{"name": NAMES["base_rate"], "value": percent(test["base_rate"]["value"]), "interval": ""}]
    names = ("roc_auc", "pr_auc", "lift_10", "log_loss_skill")
    return tiles + [{"name": NAMES[name], **cell(name, test["lstm"][name])} for name in names]


def verdicts(differences: dict[str, Any]) -> list[dict[str, Any]]:
    """LSTM minus each other model; nothing where intervals were not drawn."""
    return [
        {
            "model": LABELS[model],
            "cells": [
                {**cell(name, gaps[name], sign=True), "verdict": gaps[name]["verdict"] or ""} for name in COMPARED
            ],
        }
        for model, gaps in differences.items()
    ]


def metric_tables(metrics: dict[str, Any], horizon: str) -> list[dict[str, Any]]:
    """Tables of cells: the models at the primary horizon, the LSTM by horizon, by group of customers, by as_of."""
    test = metrics["test"][horizon]
    models = [name for name in LABELS if name in test]
    tables: list[dict[str, Any]] = [
        {
            "id": "models",
            "title": f"The model beside its baselines, {days(horizon)}",
            "head": ["", *(LABELS[name] for name in models)],
            "rows": [[NAMES[name], *(cell(name, test[model][name]) for model in models)] for name in _shown(test)],
        },
    ]
    if len(metrics["test"]) > 1:
        horizons = {days(h): one for h, one in metrics["test"].items()}
        tables.append(_columns("horizons", "The LSTM at each horizon", horizons))
    if metrics["held_out"]:
        parts = {title: metrics[key][horizon] for key, title in _GROUPS.items()}
        tables.append(_columns("held-out", f"The LSTM on seen and on held-out customers, {days(horizon)}", parts))
    if len(metrics["by_as_of"]) > 1 and not all(one["suppressed"] for one in metrics["by_as_of"]):
        compared = [model for model in models if model != "constant"]
        groups = [("", 4), *((NAMES[name], len(compared)) for name in COMPARED)]
        tables.append(
            {
                "id": "cut-offs",
                "title": f"By test as_of, {days(horizon)}",
                "groups": groups,
                "head": ["as_of", "Journeys", "Conversions", "Base rate", *(SHORT[model] for model in compared * 3)],
                "rows": [_as_of_row(one, compared) for one in metrics["by_as_of"]],
            }
        )
    return tables


def _as_of_row(one: dict[str, Any], compared: list[str]) -> list[Any]:
    if one["suppressed"]:
        cells = [_plain(f"not shown: {one['suppressed']}"), *[_plain("")] * (2 + len(COMPARED) * len(compared))]
        return [one["as_of"], *cells]
    return [
        one["as_of"],
        *(_plain(f"{one[key]:,}") for key in ("journeys", "conversions")),
        _plain(percent(one["base_rate"])),
        *(cell(name, {"value": one[model][name]}) for name in COMPARED for model in compared),
    ]


def slice_rows(slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a slice: by (what parts them, "" where the row above says it), title, cells as SLICE_HEAD's columns."""
    rows = []
    above = None
    for one in slices:
        row: dict[str, Any] = {"by": one["by"] if one["by"] != above else "", "slice": one["slice"]}
        row["title"] = f"{one['by']}: {one['slice']}"
        above = one["by"]
        if one["suppressed"]:
            cells = [_plain(f"not shown: {one['suppressed']}"), *(_plain("") for _ in SLICE_HEAD[2:])]
            rows.append({**row, "cells": cells, "suppressed": one["suppressed"]})
            continue
        cells = [
            {"value": f"{one['journeys']:,}", "interval": f"{one['customers']:,}"},
            _plain(f"{one['conversions']:,}"),
            _rates(one["base_rate"]),
            _plain(percent(one["lstm"]["mean_prediction"]["value"])),
        ]
        cells += [
            cell(name, one["lstm"][name], digits=3) for name in ("roc_auc", "pr_auc", "log_loss", "calibration_error")
        ]
        gap = one.get("difference")
        if gap is None:
            cells.append(_plain("n/a"))
        else:
            verdict = gap["log_loss"]["verdict"] or ""
            cells.append({**cell("log_loss", gap["log_loss"], sign=True), "verdict": verdict})
        rows.append({**row, "cells": cells, "suppressed": None})
    return rows


def decision_tables(decision: dict[str, Any] | None) -> list[dict[str, Any]]:
    """With prices given, the rules' outcomes on test; without, for each ratio of value to cost the rules' profits."""
    if decision is None:
        return []
    head = ["", "Threshold", "Contacted", "Precision", "Recall", "Profit per 1,000 journeys"]
    tables = []
    rows = []
    for choice in decision["choices"]:
        for rule, one in choice["rules"].items():
            if decision["contact_cost"] is None and rule == "none":
                continue  # earns 0 whatever the ratio
            title = DECISIONS[rule].capitalize()
            if decision["contact_cost"] is None:
                title = f"{choice['value_over_cost']:g} contacts: {DECISIONS[rule]}"
            threshold = "nobody" if one["threshold"] is None else percent(one["threshold"])
            shares = [_rates(one[key]) for key in ("contacted", "precision", "recall")]
            rows.append([title, _plain(threshold), *shares, _money(one["profit_per_1000"])])
    tables.append({"id": "decision", "title": "A threshold by cost and benefit", "head": head, "rows": rows})
    return tables


def check_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """A row a check: name, status, what was found."""
    return [{key: one[key] for key in ("name", "status", "what")} for one in metrics["checks"]]


def _rates(one: dict[str, Any]) -> dict[str, str]:
    low, high = one["low"], one["high"]
    bounds = "" if low is None or high is None or low == high else f"{_bare(low)} … {percent(high)}"
    return {"value": percent(one["value"]), "interval": bounds}


def _bare(share: float) -> str:
    """Without its sign, which the upper bound bears for both."""
    return percent(share).rstrip("\N{NO-BREAK SPACE}%")


def _money(one: dict[str, Any]) -> dict[str, str]:
    """Without decimals where it is large."""
    if one["value"] is None:
        return {"value": "n/a", "interval": ""}
    digits = 0 if max(abs(one[key] or 0) for key in ("value", "low", "high")) >= 100 else 2

    def text(value: float) -> str:
        return f"{value:z,.{digits}f}".replace("-", "\N{MINUS SIGN}")

    low, high = one["low"], one["high"]
    bounds = "" if low is None or high is None or low == high else f"{text(low)} … {text(high)}"
    return {"value": text(one["value"]), "interval": bounds}


def _shown(test: dict[str, Any]) -> list[str]:
    """The metrics that are there, in the order in which they are read."""
    return [name for name in NAMES if name in test["lstm"]]


def _columns(identity: str, title: str, columns: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A table of the LSTM's metrics, a column for each of metrics.json's documents."""
    documents = list(columns.values())
    rates = [_rates(one["base_rate"]) for one in documents]
    rows: list[list[Any]] = [
        [name.capitalize(), *(_plain(f"{one[name]:,}") for one in documents)]
        for name in ("journeys", "customers", "conversions")
    ]
    rows.append([NAMES["base_rate"], *rates])
    rows += [[NAMES[name], *(cell(name, one["lstm"][name]) for one in documents)] for name in _shown(documents[0])]
    return {"id": identity, "title": title, "head": ["", *columns], "rows": rows}


def _plain(text: str) -> dict[str, str]:
    return {"value": text, "interval": ""}


def split_counts(summary: dict[str, Any], horizon: str) -> list[dict[str, Any]]:
    """A row a split from the transform's summary; n/a where it lacks one."""
    rows = []
    for split, found in summary.get("splits", {}).items():
        length = found.get("length", {})
        unseen = found.get("out_of_vocabulary", {})
        rows.append(
            {
                "split": split,
                "journeys": _count(found.get("journeys")),
                "conversions": _count(found.get("conversions", {}).get(horizon)),
                "label_rate": percent(found.get("label_rate", {}).get(horizon)),
                "length": " / ".join(
                    f"{length[k]:.3g}" if k in length else "n/a" for k in ("mean", "p50", "p90", "max")
                ),
                "empty": _count(length.get("empty")),
                "unseen": ", ".join(f"{field} {percent(share)}" for field, share in unseen.items()) or "n/a",
            }
        )
    return rows


def _count(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def leaves(balance: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested balance as lines of name and count."""
    lines: list[tuple[str, str]] = []
    for name, value in balance.items():
        title = f"{prefix}{name}".replace("_", " ")
        lines += leaves(value, f"{title}: ") if isinstance(value, dict) else [(title, _count(value))]
    return lines


def task_lines(spec: AnySpec) -> list[tuple[str, str]]:
    """What was asked, from the journey spec."""
    fields = (*spec.sequence.categorical, *spec.sequence_numeric)
    customer = (*spec.customer_categorical, *spec.customer_numeric)
    lines = [("Sequence fields", ", ".join(fields)), ("Customer fields", ", ".join(customer) or "none")]
    if isinstance(spec, EventsSpec):
        split = spec.split
        evaluation = (
            f"from {split.eval_from:%Y-%m-%d}" if split.eval_from else f"{split.eval_customers:.0%} of customers"
        )
        held_out = f"{split.holdout_customers:.0%} of customers held out of training"
        lines = [
            ("Conversion", spec.conversion.where),
            ("Horizons", ", ".join(days(h) for h in spec.horizons_days)),
            ("Gap", days(spec.gap_days)),
            ("Lookback", days(spec.snapshots.lookback_days)),
            ("Eval", evaluation),
            ("Test", f"from {split.test_from:%Y-%m-%d}; {held_out}" if split.test_from else held_out),
            ("Embargo", days(spec.embargo_days)),
            *lines,
        ]
    return [*lines, ("Negatives kept in train", percent(spec.sampling.negative_rate))]
