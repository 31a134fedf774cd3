"""How far logged journeys have moved from those that the model learnt from, and when that is an alert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from preprocessing import yamlfile
from preprocessing.blocks import Block
from trainer.bootstrap import Slice, estimate, interval, intervals
from trainer.metrics import METRICS, Floats, Scores

FLOOR = 1e-4
MOST_VALUES = 20  # values of a field that are cells of their own; the others are one
DEFINITION = (
    "Population stability index: the sum over cells of (a - e) ln(a / e), with e the share of a cell in the reference "
    f"and a its share now. A share below {FLOOR:g}, an empty cell's too, is taken as {FLOOR:g}, so that the index is "
    "finite. 0 says that both are alike; below 0.1 counts as little, above 0.2 as much. Cells are the deciles of a "
    f"number in the reference, or the {MOST_VALUES} most frequent values of a field and one cell for all others; "
    "missing values are a cell of their own. Two samples of the same journeys differ by chance: about "
    "(cells - 1)(1 / n + 1 / m) with n and m customers. That much is taken off before the index is held against its "
    "threshold."
)
Above = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Indices(Block):
    field: Above
    length: Above
    recency: Above
    score: Above


class Calibration(Block):
    sum: Above
    error: Above


class Thresholds(Block):
    """The thresholds file, job_configs/monitor.yaml."""

    psi: Indices
    out_of_vocabulary: Annotated[float, Field(gt=0, le=1)]
    calibration: Calibration
    min_customers: Count
    least_customers: Count


def load_thresholds(path: str) -> Thresholds:
    """Reads a thresholds file. Raises UserError with a line for each mistake."""
    found: Thresholds = yamlfile.parse(yamlfile.read_text(path, "thresholds file"), path, lambda _: Thresholds)
    return found


def psi(expected: ArrayLike, actual: ArrayLike) -> float:
    """The population stability index of two lists of shares over the same cells: DEFINITION says how."""
    e, a = (np.maximum(np.asarray(shares, np.float64), FLOOR) for shares in (expected, actual))
    return float(np.sum((a - e) * np.log(a / e)))


def by_chance(expected: ArrayLike, actual: ArrayLike, customers: tuple[int, int]) -> float:
    """What the index is on average where nothing has moved: (cells - 1)(1 / n + 1 / m), empty cells left out.

    To first order PSI is the symmetric chi-square distance of two multinomials (Yurdakul & Naranjo 2020). n and m are
    customers: the events of one are no independent news.
    """
    used = int(((np.asarray(expected) > 0) | (np.asarray(actual) > 0)).sum())
    return max(used - 1, 0) * (1 / customers[0] + 1 / customers[1])


def shifts(reference: dict[str, Any], logged: dict[str, Any], thresholds: Thresholds) -> list[dict[str, Any]]:
    """One row a field, then length, recency and the scores of each horizon: index, chance, threshold, status, cells.

    reference, logged: of trainer.statistics, the latter made with the former's cells. status: "alert", "stable", or
    "too few" customers to tell. A cell's `actual` is None where fewer than min_customers customers stand for it.
    """
    customers = (reference["customers"], logged["customers"])
    rows = []
    for kind, title, expected, actual in _pairs(reference, logged):
        cells = _cells(expected, actual, _days if kind == "recency" else _number)
        before, now = ([cell[side] for cell in cells] for side in ("expected", "actual"))
        index, chance = psi(before, now), by_chance(before, now, customers)
        threshold = getattr(thresholds.psi, kind)
        row: dict[str, Any] = {
            "kind": kind,
            "name": title,
            "of": expected["of"],
            "psi": index,
            "by_chance": chance,
            "threshold": threshold,
            "status": _status(index - chance > threshold, logged, thresholds),
        }
        row["cells"] = [
            {"cell": c["cell"], "expected": c["expected"], "actual": None if c["few"] else c["actual"]} for c in cells
        ]
        if expected["kind"] == "categorical":
            rise = actual["other"] - expected["other"]
            row["out_of_vocabulary"] = {
                "expected": expected["other"],
                "actual": None if actual["other_few"] else actual["other"],
                "new": dict(list(actual["new"].items())[:MOST_VALUES]),
                "threshold": thresholds.out_of_vocabulary,
                "status": _status(rise > thresholds.out_of_vocabulary, logged, thresholds),
            }
        rows.append(row)
    return rows


def calibration(
    converted: NDArray[np.bool_],
    probability: Floats,
    customer: NDArray[np.int64],
    thresholds: Thresholds,
    *,
    draws: int,
    seed: int = 0,
) -> dict[str, Any]:
    """What the probabilities of journeys whose outcome is known have come to.

    converted: bool [n]; probability: float64 [n]; customer: int64 [n], codes. Returns counts, the sum of probabilities,
    "ratio" (conversions over that sum) and "error" (expected calibration error over 15 bins) with 95 % intervals by
    customer, the bins, and a status each. A bin that fewer than min_customers customers stand for is not told.
    """
    scores = Scores(converted, probability)
    found: dict[str, Any] = {
        "journeys": len(scores),
        "customers": len(np.unique(customer)),
        "conversions": int(scores.converted.sum()),
        "sum": float(scores.probability.sum()),
    }
    if len(np.unique(customer[scores.converted > 0])) < thresholds.min_customers:
        reason = f"fewer than {thresholds.min_customers} customers have converted"
        return {**found, "conversions": None, "reason": reason, "ratio": None, "error": None, "bins": []}
    one = estimate({("all", 0): Slice(np.arange(len(scores)), {"model": scores})}, customer, draws, seed)["all", 0]
    drawn = {name: one["model"].draws[:, METRICS.index(name)] for name in ("base_rate", "mean_prediction")}
    ratio = interval("ratio", found["conversions"] / found["sum"], drawn["base_rate"] / drawn["mean_prediction"])
    error = intervals(one["model"])["calibration_error"]
    limit = thresholds.calibration.error * float(scores.converted.mean())
    apart = thresholds.calibration.sum
    off = _beyond(ratio["low"], 1 + apart) or _beyond(1 - apart, ratio["high"])
    counts, predicted, observed = scores.reliability()
    holders = [len(np.unique(customer[scores.bin == i])) for i in range(len(counts))]
    return {
        **found,
        "reason": None,
        "ratio": {**ratio, "threshold": apart, "status": _status(off, found, thresholds)},
        "error": {
            **error,
            "threshold": limit,
            "status": _status(_beyond(error["low"], limit), found, thresholds),
        },
        "bins": [
            {"journeys": int(n), "predicted": float(p), "observed": float(o)}
            for n, p, o, held in zip(counts, predicted, observed, holders, strict=True)
            if held >= thresholds.min_customers
        ],
    }


def alerts(rows: list[dict[str, Any]], calibrated: dict[str, Any]) -> list[dict[str, Any]]:
    """{"kind", "name", "value", "threshold", "message"} of everything that is beyond its threshold.

    rows: of `shifts`; calibrated: {horizon: of `calibration`}. kind: field, out_of_vocabulary, length, recency, score,
    calibration_sum, calibration_error.
    """
    found = []
    for row in rows:
        if row["status"] == "alert":
            text = f"{row['name']} has moved: PSI {row['psi']:.3f}, {row['by_chance']:.3f} of it by chance"
            text += f", threshold {row['threshold']:g}; most at {_largest(row['cells'])}"
            found.append(_alert(row["kind"], row["name"], row["psi"], row["threshold"], text))
        unknown = row.get("out_of_vocabulary")
        if unknown and unknown["status"] == "alert":
            now = unknown["actual"]
            share = "a share, which few customers make," if now is None else f"{now:.1%}"
            named = ", ".join(f"{value!r} {share:.1%}" for value, share in list(unknown["new"].items())[:5])
            text = f"{row['name']}: {share} of its values were never learnt, {unknown['expected']:.1%} in train"
            text += f"; new: {named}" if named else ""
            found.append(_alert("out_of_vocabulary", row["name"], now, unknown["threshold"], text))
    for horizon, one in calibrated.items():
        ratio, error = one["ratio"], one["error"]
        if ratio and ratio["status"] == "alert":
            text = f"{horizon} days: {one['conversions']:,} conversions where {one['sum']:,.0f} were predicted: "
            text += f"{ratio['value']:.2f} times, 95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}"
            found.append(_alert("calibration_sum", f"{horizon} days", ratio["value"], ratio["threshold"], text))
        if error and error["status"] == "alert":
            text = f"{horizon} days: the probabilities of a bin are off by {error['value']:.3%} on average, "
            text += f"{error['low']:.3%} at least; at most {error['threshold']:.3%} is allowed"
            found.append(_alert("calibration_error", f"{horizon} days", error["value"], error["threshold"], text))
    return found


def _alert(kind: str, name: str, value: float | None, threshold: float, message: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "value": value, "threshold": threshold, "message": message}


def _status(beyond: bool, counted: dict[str, Any], thresholds: Thresholds) -> str:
    if counted["customers"] < max(thresholds.least_customers, thresholds.min_customers):
        return "too few"
    return "alert" if beyond else "stable"


def _beyond(one: float | None, other: float | None) -> bool:
    """Whether one is the larger; False where there is no interval."""
    return one is not None and other is not None and one > other


def _pairs(
    reference: dict[str, Any], logged: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(kind, title, reference's cells, logged cells) of all that both hold."""
    for name, cells in reference["fields"].items():
        yield "field", name, cells, logged["fields"][name]
    yield "length", "events a journey", reference["length"], logged["length"]
    yield "recency", "days since the last event", reference["recency"], logged["recency"]
    for horizon, cells in reference["scores"].items():
        if horizon in logged["scores"]:
            yield "score", f"score, {horizon} days", cells, logged["scores"][horizon]


def _largest(cells: list[dict[str, Any]]) -> str:
    """The cell that moved most, in words."""
    told = [cell for cell in cells if cell["actual"] is not None]
    if not told:
        return "cells of few customers"
    cell = max(told, key=lambda c: psi([c["expected"]], [c["actual"]]))
    return f"{cell['cell']}: {cell['expected']:.1%} before, {cell['actual']:.1%} now"


def _cells(expected: dict[str, Any], actual: dict[str, Any], named: Any) -> list[dict[str, Any]]:
    """The cells side by side: name, expected and actual share, few."""
    if expected["kind"] == "categorical":
        top = [
            {"cell": value or "''", "expected": e, "actual": a, "few": few}
            for value, e, a, few in zip(
                expected["values"], expected["shares"], actual["shares"], actual["few"], strict=True
            )
        ]
        rest = {
            "cell": "all others",
            "expected": expected["other"] + sum(cell["expected"] for cell in top[MOST_VALUES:]),
            "actual": actual["other"] + sum(cell["actual"] for cell in top[MOST_VALUES:]),
            # of several cells together no count of customers is kept: told where one of them may be told
            "few": actual["other_few"] and all(cell["few"] for cell in top[MOST_VALUES:]),
        }
        cells = [*top[:MOST_VALUES], rest]
    else:
        edges = expected["edges"]
        names = [named(low, high) for low, high in zip([None, *edges], [*edges, None], strict=True)]
        cells = [
            {"cell": name, "expected": e, "actual": a, "few": few}
            for name, e, a, few in zip(names, expected["shares"], actual["shares"], actual["few"], strict=True)
        ]
    missing = {"expected": expected["missing"], "actual": actual["missing"], "few": actual["missing_few"]}
    return [*cells, {"cell": "no event" if named is _days else "missing", **missing}]


def _number(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "any"
    if low is None:
        return f"below {high:.4g}"
    if high is None:
        return f"from {low:.4g}"
    return f"{low:.4g}" if np.nextafter(low, np.inf) == high else f"{low:.4g} to {high:.4g}"


def _days(low: float | None, high: float | None) -> str:
    return f"{_number(low, high)} days"
