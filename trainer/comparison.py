"""The model beside its baselines on one set of journeys, in the form in which metrics.json tells it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.bootstrap import Estimate, Slice, customer_weights, difference, estimate, interval, intervals
from trainer.metrics import LOWER_IS_BETTER, METRICS, Floats, Scores

LABELS = {
    "lstm": "LSTM",
    "recency_frequency": "Recency/frequency LR",
    "gradient_boosting": "Gradient-boosted tree",
    "constant": "Constant (train base rate)",
    "oracle": "Oracle (true probability)",
}
COMPARED = ("roc_auc", "pr_auc", "log_loss")
MOST_PERIODS = 60
_NO_DRAWS = np.zeros(0)


def scored_slice(
    rows: NDArray[np.int64],
    converted: NDArray[np.bool_],
    probabilities: dict[str, Floats],
    train_rate: float | None,
) -> Slice:
    """The slice of these rows with every model's scores, the constant predictor among them where train has a rate.

    rows: int64 [m]; converted: bool [n] and probabilities, by model, float64 [n], of the whole table. An "oracle" among
    them is the truth that the others are held against.
    """
    offered = dict(probabilities)
    if train_rate is not None:
        offered["constant"] = np.full(len(converted), train_rate)
    truth = offered["oracle"][rows] if "oracle" in offered else None
    constant = np.nan if train_rate is None else train_rate
    return Slice(
        rows,
        {
            model: Scores(converted[rows], offered[model][rows], constant=constant, truth=truth)
            for model in LABELS
            if model in offered
        },
    )


def document(part: Slice, found: dict[str, Estimate], customer: NDArray[np.int64], not_observed: int) -> dict[str, Any]:
    """The slice's counts, base rate and every model's metrics with intervals; `reason`: why some are null, or null.

    customer: int64 [n], codes of the whole table; not_observed: journeys left out, their outcome not being known yet.
    """
    journeys, conversions = len(part.rows), int(part.models["lstm"].converted.sum())
    reason = None
    if journeys == 0:
        reason = "no journey whose outcome is known"
    elif conversions == 0:
        reason = f"no conversion among {journeys:,} journeys"
    elif conversions == journeys:
        reason = f"all {journeys:,} journeys converted"
    models = {model: intervals(one) for model, one in found.items()}
    left_out = {"base_rate"} if "oracle" in models else {"base_rate", "gap_to_truth"}
    return {
        "journeys": journeys,
        "not_observed": not_observed,
        "customers": len(np.unique(customer[part.rows])),
        "conversions": conversions,
        "base_rate": models["lstm"]["base_rate"],
        "reason": reason,
        **{
            model: {name: value for name, value in values.items() if name not in left_out}
            for model, values in models.items()
        },
    }


def differences(found: dict[str, Estimate]) -> dict[str, Any]:
    """LSTM minus each other model, by metric, with the verdict that the paired 95 % interval allows."""
    table: dict[str, Any] = {}
    for model, other in found.items():
        if model == "lstm":
            continue
        table[model] = {}
        for name in COMPARED:
            gap = difference(name, found["lstm"], other)
            table[model][name] = {**gap, "verdict": verdict(name, gap["low"], gap["high"])}
    return table


def verdict(name: str, low: float | None, high: float | None) -> str | None:
    """What an interval of a difference says of the first: better, worse, or not distinguishable; None without one."""
    if low is None or high is None:
        return None
    if low <= 0 <= high:
        return "not distinguishable"
    return "better" if (high < 0) == (name in LOWER_IS_BETTER) else "worse"


def by_as_of(
    part: Slice, as_of: NDArray[np.int64], customer: NDArray[np.int64], *, smallest: int, draws: int, seed: int
) -> list[dict[str, Any]]:
    """For each cut-off (where they are many, each day, month, year) the models' values and paired differences.

    as_of: int64 [m], of the slice; customer: int64 [n], codes of the whole table, drawn as for every other estimate.
    Where fewer than `smallest` customers are behind one there are no figures: {"as_of", "suppressed"}, and of an
    instant, which may be that of a single event, the day alone.
    """
    labels, code = periods(as_of)
    places = {label: np.flatnonzero(code == i) for i, label in enumerate(labels)}
    few = {label for label, here in places.items() if len(np.unique(customer[part.rows[here]])) < smallest}
    slices = {
        (label, 0): Slice(
            part.rows[here],
            {model: Scores(one.converted[here], one.probability[here]) for model, one in part.models.items()},
        )
        for label, here in places.items()
        if label not in few
    }
    found = estimate(slices, customer, draws, seed, "test by as_of: draws of customers")
    table: list[dict[str, Any]] = []
    for label in labels:
        if label in few:
            hidden = {"as_of": label[: len("2026-01-05")], "suppressed": f"fewer than {smallest} customers"}
            if hidden not in table[-1:]:
                table.append(hidden)
            continue
        models = found[label, 0]
        converted = slices[label, 0].models["lstm"].converted
        entry: dict[str, Any] = {"as_of": label, "suppressed": None}
        entry |= {"journeys": len(converted), "conversions": int(converted.sum())}
        entry["base_rate"] = interval("base_rate", float(converted.mean()), _NO_DRAWS)["value"]
        for model, one in models.items():
            entry[model] = {
                name: interval(name, one.value[METRICS.index(name)], _NO_DRAWS)["value"] for name in COMPARED
            }
        entry["differences"] = differences(models)
        table.append(entry)
    return table


def reliability(part: Slice, customer: NDArray[np.int64], draws: int, seed: int) -> list[dict[str, Any]]:
    """The LSTM's bins of the calibration error, lowest first: journeys, mean probability, share converted."""
    if not len(part.rows):
        return []
    scores = part.models["lstm"]
    counts, predicted, observed = scores.reliability()
    drawn = [scores.reliability(weight[part.rows])[2] for weight in customer_weights(customer, draws, seed)]
    shares = np.array(drawn).reshape(-1, len(counts))
    return [
        {
            "journeys": int(counts[i]),
            "predicted": interval("predicted", predicted[i], _NO_DRAWS)["value"],
            "observed": interval("observed", observed[i], shares[:, i]),
        }
        for i in range(len(counts))
    ]


def periods(as_of: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the periods, oldest first, and each row's: int64 [n].

    A period is an instant; where there are more than MOST_PERIODS of them a day, else a month, else a year (UTC).
    """
    times = as_of.astype("datetime64[us]")
    for unit in ("us", "D", "M", "Y"):
        found, code = np.unique(times.astype(f"datetime64[{unit}]"), return_inverse=True)
        if len(found) <= MOST_PERIODS or unit == "Y":
            break
    labels = [np.datetime_as_string(value, unit="auto" if unit == "us" else unit) for value in found]
    return [str(label) for label in labels], code.astype(np.int64)
