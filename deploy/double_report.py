"""report.html of a double run: the verdict and why, then every figure behind it, in one page that loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy import double_plots as plots
from deploy.agreement import DEFINITIONS as AGREEMENT
from deploy.agreement import percentiles
from deploy.comparison import paired
from deploy.double_tables import (
    AGREED,
    SHOWN,
    agreement_table,
    cost_tables,
    figure,
    latency_row,
    money,
    quality_table,
    rule_row,
    side_table,
    slice_table,
)
from deploy.population import Population
from deploy.quality import SIDES
from deploy.scores import Scored
from preprocessing import page
from trainer.metrics import DEFINITIONS
from trainer.tables import NAMES, cell, days

_VERDICTS = {
    "go": "Go: the candidate may replace the incumbent.",
    "no-go": "No-go: the candidate should not replace the incumbent.",
    "wait": "Wait: this double run does not decide yet.",
}


def render(comparison: dict[str, Any], decision: dict[str, Any], journeys: Population, sides: dict[str, Scored]) -> str:
    """The page, from comparison.json, verdict.json and the paired scores. The same input gives the same bytes."""
    primary = comparison["primary_horizon"]
    document = comparison["quality"]["horizons"][str(primary)]
    versions = {side: one["model_version"] for side, one in comparison["sides"].items()}
    return page.render(
        "double_run.html.j2",
        Path(__file__).parent / "templates",
        title="Double run",
        version=versions["candidate"] or "",
        verdict=decision["verdict"],
        sentence=_VERDICTS[decision["verdict"]],
        why=_sentence(decision),
        tiles=_tiles(comparison, document),
        sides=[side_table(side, comparison["sides"][side]) for side in SIDES],
        journeys=comparison["journeys"],
        rules=[rule_row(rule) for rule in decision["rules"]],
        horizon=days(primary),
        document=document,
        draws=comparison["quality"]["draws"],
        quality=[quality_table(h, one) for h, one in comparison["quality"]["horizons"].items()],
        slices=[
            slice_table("As_of", "as_of", comparison["quality"]["as_of"]),
            slice_table("Events in the journey", "events", comparison["quality"]["lengths"]),
        ],
        agreement=agreement_table(comparison["agreement"]),
        figures=_figures(comparison, sides),
        disagreements=comparison["disagreements"],
        latency=[latency_row(side, comparison["sides"][side]) for side in SIDES],
        cost=cost_tables(comparison["cost"]),
        definitions=_definitions(comparison),
    )


def _sentence(decision: dict[str, Any]) -> str:
    """The rule that decided, and which others say the same."""
    if decision["verdict"] == "go":
        return f"{decision['why'][0].upper()}{decision['why'][1:]}."
    others = (decision["failed"] if decision["verdict"] == "no-go" else decision["undecided"])[1:]
    more = f" And so {'says' if len(others) == 1 else 'say'} {', '.join(others)}." if others else ""
    return f"{decision['rule']}: {decision['why']}.{more}"


def _tiles(comparison: dict[str, Any], document: dict[str, Any]) -> list[dict[str, str]]:
    journeys, agreed = comparison["journeys"], comparison["agreement"][str(comparison["primary_horizon"])]
    tiles = [
        {
            "name": "Journeys paired",
            "value": f"{journeys['paired']:,}",
            "small": f"of {journeys['count']:,}",
        },
        {
            "name": "Conversions known",
            "value": f"{document['conversions']:,}",
            "small": f"among {document['journeys']:,} journeys",
        },
    ]
    for name in ("pr_auc", "log_loss"):
        gap = cell(name, document["difference"][name], sign=True)
        tiles.append({"name": f"{NAMES[name]}, difference", "value": gap["value"], "small": gap["interval"]})
    tiles.append({"name": "Rank correlation", "value": figure(agreed["spearman"], 3), "small": "Spearman"})
    cost = comparison["cost"]
    if cost:
        each = [money(cost[side]["per_1000"], cost["currency"]) for side in reversed(SIDES)]
        tiles.append({"name": "Cost of 1,000", "value": each[0], "small": f"incumbent {each[1]}"})
    return tiles


def _figures(comparison: dict[str, Any], sides: dict[str, Scored]) -> list[dict[str, str]]:
    primary = comparison["primary_horizon"]
    rows = paired(sides)
    one, other = (sides[side].values[primary][rows] for side in SIDES)
    comparable = "rank" not in [sides[side].kind for side in SIDES]
    agreed = comparison["agreement"][str(primary)]
    bins = comparison["quality"]["reliability"]
    reason = comparison["quality"]["horizons"][str(primary)]["reason"]
    calibrated = "" if reason else plots.reliability(bins)
    ranked = f" The {next(s for s in SIDES if bins[s] is None)} only ranks." if None in bins.values() else ""
    return [
        {
            "title": "Scores of the same journeys" if comparable else "Ranks of the same journeys",
            "svg": plots.scatter(one, other)
            if comparable
            else plots.scatter(percentiles(one), percentiles(other), of="percentile"),
            "caption": "A point a journey. Where equal quantiles leave the diagonal, thresholds have to move."
            if comparable
            else "A point a journey, by the share of journeys that are scored lower.",
        },
        {
            "title": "Shift of the scores",
            "svg": plots.shift(agreed["psi_bins"]) if agreed["psi"] is not None else "",
            "caption": f"PSI {figure(agreed['psi'], 4)}. With no shift all bars are as high as the incumbent's."
            if agreed["psi"] is not None
            else f"Not drawn: {agreed.get('psi_reason') or agreed['reason']}.",
        },
        {
            "title": "Reliability",
            "svg": calibrated,
            "caption": f"On the diagonal a probability means what it says. Bars: 95 % intervals by customer.{ranked}"
            if calibrated
            else f"Not drawn: {reason or 'no side gives probabilities'}.",
        },
    ]


def _definitions(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    lift = [("Lift at k %", DEFINITIONS["lift_k"])]
    named = [(NAMES[name], DEFINITIONS[name]) for name in SHOWN if name in DEFINITIONS]
    return [*named, *lift, *((AGREED[name], text) for name, text in AGREEMENT.items())]
