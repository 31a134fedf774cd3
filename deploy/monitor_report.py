"""The monitor's page: alerts first, then every field, the shifts as bars, and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.drift import DEFINITION
from preprocessing.page import render as page
from preprocessing.svg import Plot, above

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = {"expected": "#6b6b6b", "actual": "#0072B2"}
MOST_FIGURES = 12
LABELS = {
    "field": "Field",
    "out_of_vocabulary": "Values never learnt",
    "length": "Journey length",
    "recency": "Recency",
    "score": "Scores",
    "calibration_sum": "Calibration in sum",
    "calibration_error": "Calibration by bin",
}


def render(document: dict[str, Any]) -> str:
    """The page of what monitor.json holds; the same document gives the same bytes."""
    rows = document["shifts"]
    drawn = [row for row in rows if row["status"] == "alert"]
    drawn += [row for row in rows if row["kind"] in ("length", "recency", "score") and row not in drawn]
    unknown = [row for row in rows if "out_of_vocabulary" in row]
    reference = document["reference"]
    return page(
        "monitor.html.j2",
        TEMPLATES,
        title="Monitor",
        version=document["model_version"],
        sentence=_sentence(document),
        alerts=[{**alert, "label": LABELS[alert["kind"]]} for alert in document["alerts"]],
        tiles=[
            {"name": name, "value": value, "small": small}
            for name, value, small in (
                ("Journeys", f"{document['journeys']['count']:,}", document["journeys"]["split"] or ""),
                ("Customers", f"{document['customers']:,}", ""),
                ("Alerts", str(len(document["alerts"])), ""),
                ("Learnt from", f"{reference['journeys']:,}", "train journeys"),
            )
        ],
        notes=document["notes"],
        shifts=[
            {
                "name": row["name"],
                "of": row["of"],
                "cells": [f"{row['psi']:.3f}", f"{row['by_chance']:.3f}", f"{row['threshold']:g}"],
                "status": row["status"],
            }
            for row in rows
        ],
        unknown=[
            {
                "name": row["name"],
                "expected": _percent(row["out_of_vocabulary"]["expected"]),
                "actual": _percent(row["out_of_vocabulary"]["actual"]),
                "new": ", ".join(f"{value} ({share:.1%})" for value, share in row["out_of_vocabulary"]["new"].items()),
                "status": row["out_of_vocabulary"]["status"],
            }
            for row in unknown
        ],
        figures=[
            {"title": row["name"], "svg": bars(row, i), "few": _few(row)} for i, row in enumerate(drawn[:MOST_FIGURES])
        ],
        calibrated=[_calibrated(horizon, one) for horizon, one in document["calibration"].items()],
        min_customers=document["thresholds"]["min_customers"],
        definition=DEFINITION,
    )


def bars(row: dict[str, Any], number: int) -> str:
    """Shares by cell, the reference's beside those of now; a cell of few customers has no bar for now."""
    cells = [cell for cell in row["cells"] if cell["expected"] or cell["actual"] is None or cell["actual"] > 0]
    alternative = f"{row['name']}: share of each cell in the reference and now. " + "; ".join(
        f"{cell['cell']} {_percent(cell['expected'])} and {_percent(cell['actual'])}" for cell in cells
    )
    plot = Plot(f"shift{number}", alternative, height=1.3 + 0.32 * len(cells))
    with plot.drawn() as (axes,):
        names = [_short(cell["cell"]) for cell in cells]
        for i, side in enumerate(COLOURS):
            places = [place + 0.2 - 0.4 * (1 - i) for place in range(len(cells))]
            shares = [100 * (cell[side] or 0.0) for cell in cells]
            label = "when learnt" if side == "expected" else "now"
            axes.barh(
                places, shares, 0.38, color=COLOURS[side], label=label, hatch=None if i else "///", ec="white", lw=0
            )
        axes.set_yticks(range(len(cells)), names)
        axes.invert_yaxis()
        axes.set(xlabel=f"Share of {row['of']}, %")
        axes.grid(visible=False, axis="y")
        above(axes, 2)
    return plot.svg


def _sentence(document: dict[str, Any]) -> str:
    count = len(document["alerts"])
    journeys = f"{document['journeys']['count']:,} journeys"
    if not count:
        few = any(row["status"] == "too few" for row in document["shifts"])
        return f"No alert, for there are too few of these {journeys} to tell." if few else f"No alert on {journeys}."
    return f"{'1 alert' if count == 1 else f'{count} alerts'} on {journeys}."


def _calibrated(horizon: str, one: dict[str, Any]) -> dict[str, Any]:
    figures = []
    for name, key in (("Conversions over the sum of probabilities", "ratio"), ("Expected calibration error", "error")):
        if one[key]:
            digits = 3 if key == "ratio" else 5
            low, high = one[key]["low"], one[key]["high"]
            figures.append(
                {
                    "name": name,
                    "value": f"{one[key]['value']:.{digits}f}",
                    "interval": "" if low is None else f"{low:.{digits}f} to {high:.{digits}f}",
                    "status": one[key]["status"],
                }
            )
    return {
        "horizon": horizon,
        "counts": f"{one['journeys']:,} journeys of {one['customers']:,} customers, "
        + (f"{one['conversions']:,} conversions" if one["conversions"] is not None else one["reason"])
        + f", {one['sum']:,.1f} predicted",
        "figures": figures,
        "bins": [
            {"journeys": f"{b['journeys']:,}", "predicted": f"{b['predicted']:.3%}", "observed": f"{b['observed']:.3%}"}
            for b in one["bins"]
        ],
    }


def _percent(share: float | None) -> str:
    return "few" if share is None else f"{share:.1%}"


def _few(row: dict[str, Any]) -> str:
    return ", ".join(cell["cell"] for cell in row["cells"] if cell["actual"] is None)


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"
