"""How journeys.sql reads the table of assignments: who was assigned to which campaign when, treated or held out."""

from __future__ import annotations

from typing import Any

from preprocessing import columns
from preprocessing.blocks import Assignments
from preprocessing.columns import Problem
from preprocessing.dialect import below, literal
from preprocessing.reading import Reading
from preprocessing.spec import AnySpec

CONTRADICTION = "contradictory treated"  # one customer, campaign and time, told both as treated and as held out


def read(names: Assignments, source: Reading) -> None:
    """Reads id, campaign, time_us and treated (0 or 1), and looks for what is missing or unreadable in them."""
    key = "campaigns.assignments"
    source.read_id(names.customer, f"{key}.customer", "customer")
    campaign = source.column(names.campaign, f"{key}.campaign", columns.TEXTS)
    source.keep("campaign", f"NULLIF({columns.text(campaign)}, '')")
    source.found(1, Problem("null campaign", campaign.name, "campaign IS NULL"))
    time = source.column(names.time, f"{key}.time", columns.INSTANTS)
    source.keep("time_us", columns.micros(time))
    raw = source.raw(time)
    source.found(2, *columns.instant_problems(time, raw, "time_us", "time"), columns.absurd(time, raw, "time_us"))
    treated = source.column(names.treated, f"{key}.treated", columns.TRUTHS)
    source.keep("treated", f"CAST({columns.truth(treated)} AS INT64)")
    shown = source.raw(treated)
    source.found(
        3,
        Problem("null treated", treated.name, columns.missing(treated, shown)),
        Problem("unreadable treated", treated.name, "treated IS NULL", f"CAST({shown} AS STRING)"),
    )


def template_values(spec: AnySpec, source: Reading | None) -> dict[str, Any]:
    """What journeys.sql asks of assignments. `source`: None where a prediction is made, which reads none."""
    return {
        "assigns": spec.assignments is not None,
        "assignments": source,
        "only_assignments": spec.assignments is not None and "assigned_train" not in spec.splits,
        "contradiction": literal(CONTRADICTION),
        "assigned_below": below(spec.assignments.share) if spec.assignments and spec.assignments.share < 1 else "",
        "treated_column": literal(spec.assignments.treated) if spec.assignments else "",
        # where snapshots known not to convert are thinned to this share, those at assignments weigh as much instead
        "negative_weight": repr(float(spec.sampling.negative_rate)),
    }
