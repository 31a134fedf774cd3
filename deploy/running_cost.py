"""What a scorer costs: by the month in its parts, and per 1,000 predictions, from measured time and the price file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deploy.prices import Amount, Place, Price, Prices, load_prices
from preprocessing import yamlfile
from preprocessing.blocks import Block

Count = Annotated[int, Field(gt=0)]


class Sql(Block):
    """The query that makes the journeys, billed by what it scans."""

    tib_per_run: Amount
    runs_per_month: Amount


class DataflowRuns(Block):
    """The preprocessing pipeline, by what a run of it uses in all its workers."""

    vcpu_hours_per_run: Amount
    gb_hours_per_run: Amount
    runs_per_month: Amount


class Training(Block):
    machine: str
    accelerators: dict[str, Count] = Field(default_factory=dict)
    replicas: Count = 1
    hours_per_run: Amount
    runs_per_month: Amount
    place: Literal["compute", "vertex_training"] = "vertex_training"


class Scoring(Block):
    """Machines that score: `nodes` that are always on, or as long as the predictions take at `utilisation`.

    machine_seconds_per_1000: how long the machine, fully used, takes for 1,000 predictions; measured where not given.
    """

    place: Place
    machine: str
    accelerators: dict[str, Count] = Field(default_factory=dict)
    nodes: Count | None = None
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = None
    machine_seconds_per_1000: Amount | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Scoring:
        if (self.nodes is None) == (self.utilisation is None):
            raise ValueError("expected either nodes (always on) or utilisation (on while it scores)")
        return self


class DiskSpace(Block):
    gb: Amount


class Stated(Block):
    """A line of an invoice."""

    what: str
    monthly: Price


class Side(Block):
    """One scorer's parts; each that is not there costs nothing, and at least one is."""

    sql: Sql | None = None
    dataflow: DataflowRuns | None = None
    training: Training | None = None
    scoring: Scoring | None = None
    disk: DiskSpace | None = None
    stated: tuple[Stated, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Side:
        if not self.stated and not any((self.sql, self.dataflow, self.training, self.scoring, self.disk)):
            raise ValueError("expected at least one of sql, dataflow, training, scoring, disk, stated")
        return self


class Costs(Block):
    """The costs file; `prices` is the price file, relative to it."""

    prices: str
    predictions_per_month: Amount
    incumbent: Side
    candidate: Side


def load_costs(path: str | Path) -> tuple[Costs, Prices]:
    """Reads a costs file and the price file that it names. Raises UserError with a line for each mistake."""
    costs: Costs = yamlfile.parse(yamlfile.read_text(path, "costs file"), str(path), lambda _: Costs)
    return costs, load_prices(Path(path).parent / costs.prices)


def running_cost(costs: Costs, prices: Prices, timings: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The document of comparison.json's `cost`.

    timings: by side, what deploy.timing.score_all measured, None for a table. {"currency", "noted", "region",
    "predictions_per_month", "sources", incumbent, candidate} with for each side {"parts": [{part, worked, monthly,
    reason}], "monthly", "per_1000", "reason", "compute_per_1000", "compute_worked", "compute_reason"}: `per_1000` is
    the monthly total over the monthly predictions, `compute_per_1000` what the machine alone takes for 1,000 of them.
    """
    sides = {}
    for name, side in (("incumbent", costs.incumbent), ("candidate", costs.candidate)):
        parts = _parts(side, prices, timings[name], costs.predictions_per_month)
        lacking = [part for part in parts if part["monthly"] is None]
        total = None if lacking else sum(part["monthly"] for part in parts)
        sides[name] = {
            "parts": parts,
            "monthly": total,
            "per_1000": None if total is None else 1000 * total / costs.predictions_per_month,
            "reason": f"{lacking[0]['part'].lower()}: {lacking[0]['reason']}" if lacking else None,
            **_compute(side.scoring, prices, timings[name]),
        }
    return {
        "currency": prices.currency,
        "noted": prices.noted,
        "region": prices.region,
        "predictions_per_month": costs.predictions_per_month,
        "sources": _sources(costs, prices),
        **sides,
    }


def machine_seconds(scoring: Scoring, prices: Prices, timing: dict[str, Any] | None) -> tuple[float | None, str]:
    """Seconds that the machine, fully used, takes for 1,000 predictions, and in words where that comes from.

    A model in this process: CPU seconds over the machine's vCPUs (taking its vCPU to be as fast as one here). A remote
    one: the time that passed, as if the machine had served nobody else. None, with the reason, for a table.
    """
    if scoring.machine_seconds_per_1000 is not None:
        return scoring.machine_seconds_per_1000, "stated"
    if timing is None:
        return None, "a table was scored elsewhere: no time was measured; expected machine_seconds_per_1000"
    if not timing["journeys"]:
        return None, "nothing was scored"
    prices.machine_hour(scoring.place, scoring.machine, scoring.accelerators)  # names a machine that has no price
    if timing["cpu_seconds"] is not None:
        vcpus = prices.machines[scoring.machine].vcpus
        each = 1000 * timing["cpu_seconds"] / timing["journeys"]
        return each / vcpus, f"{each:.3g} CPU seconds measured / {vcpus:g} vCPUs"
    each = 1000 * timing["seconds"] / timing["journeys"]
    return each, f"{each:.3g} s measured for 1,000 predictions, {timing['concurrency']} requests at once"


def _compute(scoring: Scoring | None, prices: Prices, timing: dict[str, Any] | None) -> dict[str, Any]:
    if scoring is None:
        return {"compute_per_1000": None, "compute_worked": None, "compute_reason": "no scoring machine is given"}
    hour = prices.machine_hour(scoring.place, scoring.machine, scoring.accelerators)
    seconds, origin = machine_seconds(scoring, prices, timing)
    if seconds is None:
        return {"compute_per_1000": None, "compute_worked": None, "compute_reason": origin}
    worked = f"{seconds:.3g} s ({origin}) · {hour:.4g} {prices.currency} an hour of {scoring.machine}"
    return {"compute_per_1000": seconds * hour / 3600, "compute_worked": worked, "compute_reason": None}


def _parts(side: Side, prices: Prices, timing: dict[str, Any] | None, predictions: float) -> list[dict[str, Any]]:
    """Every part with how it was worked out, in the order of the work."""
    lines: list[dict[str, Any]] = []

    def add(part: str, worked: str, monthly: float | None, reason: str | None = None) -> None:
        lines.append({"part": part, "worked": worked, "monthly": monthly, "reason": reason})

    if side.sql:
        tib = side.sql.tib_per_run * side.sql.runs_per_month
        add("SQL", f"{tib:g} TiB · {prices.bigquery.tib_scanned:g}", tib * prices.bigquery.tib_scanned)
    if side.dataflow:
        runs, rate = side.dataflow.runs_per_month, prices.dataflow
        cpu, ram = side.dataflow.vcpu_hours_per_run * runs, side.dataflow.gb_hours_per_run * runs
        worked = f"{cpu:g} vCPU hours · {rate.vcpu_hour:g} + {ram:g} GB hours · {rate.gb_hour:g}"
        add("Dataflow", worked, cpu * rate.vcpu_hour + ram * rate.gb_hour)
    if side.training:
        job = side.training
        hour = prices.machine_hour(job.place, job.machine, job.accelerators)
        hours = job.replicas * job.hours_per_run * job.runs_per_month
        add("Training", f"{hours:g} hours of {_named(job)} · {hour:.4g}", hours * hour)
    if side.scoring:
        hour = prices.machine_hour(side.scoring.place, side.scoring.machine, side.scoring.accelerators)
        if side.scoring.nodes is not None:
            hours = side.scoring.nodes * prices.hours_per_month
            add("Scoring", f"{side.scoring.nodes} · {prices.hours_per_month:g} hours of {_named(side.scoring)} · "
                f"{hour:.4g}", hours * hour)  # fmt: skip
        else:
            seconds, origin = machine_seconds(side.scoring, prices, timing)
            if seconds is None:
                add("Scoring", "", None, origin)
            else:
                hours = predictions / 1000 * seconds / 3600 / (side.scoring.utilisation or 1)
                used = f"{origin}, {side.scoring.utilisation:.0%} used"
                add("Scoring", f"{hours:.3g} hours of {_named(side.scoring)} ({used}) · {hour:.4g}", hours * hour)
    if side.disk:
        add("Disk", f"{side.disk.gb:g} GB · {prices.disk.gb_month:g}", side.disk.gb * prices.disk.gb_month)
    for line in side.stated:
        add("Stated", line.what, line.monthly)
    return lines


def _named(job: Training | Scoring) -> str:
    return " + ".join([job.machine, *(f"{count} {name}" for name, count in job.accelerators.items())])


def _sources(costs: Costs, prices: Prices) -> list[str]:
    """The pages behind the prices that were used, each once."""
    used = []
    for side in (costs.incumbent, costs.candidate):
        used += [prices.bigquery.source] if side.sql else []
        used += [prices.dataflow.source] if side.dataflow else []
        used += [getattr(prices, job.place).source for job in (side.training, side.scoring) if job]
        used += [prices.disk.source] if side.disk else []
    return list(dict.fromkeys(used))
