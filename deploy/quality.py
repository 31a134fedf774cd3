"""What both scorers are worth on the same journeys, outcomes known: metrics, paired intervals, slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.agreement import percentiles
from deploy.scores import Floats
from trainer.bootstrap import Estimate, Slice, customer_weights, difference, estimate, interval, intervals
from trainer.comparison import periods, verdict
from trainer.joins import customer_codes
from trainer.metrics import METRICS, Scores
from trainer.outcomes import Outcomes

SIDES = ("incumbent", "candidate")
RANKING = ("roc_auc", "pr_auc", "lift_1", "lift_5", "lift_10", "lift_20")
OF_PROBABILITY = ("log_loss", "brier", "calibration_error", "mean_prediction")
COMPARED = (*RANKING, *OF_PROBABILITY)
LENGTHS = (0, 1, 2, 5, 10, 20, 50)  # the last number of events of each bucket but one
RANK_REASON = "its score is a rank, no probability"
_NO_DRAWS = np.zeros(0)


def quality(
    outcomes: Outcomes,
    scores: dict[str, dict[int, Floats]],
    kinds: dict[str, str],
    *,
    gap: int,
    primary: int,
    dated: bool,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The document of comparison.json's `quality`, over n paired journeys.

    scores: {side: {horizon: float64 [n]}}, the same horizons for both sides; kinds: {side: "probability" | "rank"}.
    {"horizons": {h: {journeys, not_observed, customers, conversions, base_rate, reason, incumbent, candidate,
    difference}}, "lengths": […], "as_of": […]} where each side is {metric: {value, low, high}}, `difference` is
    candidate minus incumbent over the same draws of customers, and a rank has null (with `null_reason`) where a metric
    needs probabilities.
    """
    customer = customer_codes(outcomes.customer_key)
    horizons = sorted(scores["incumbent"])
    slices: dict[tuple[str, int], Slice] = {}
    for h in horizons:
        slices["all", h] = _slice(np.flatnonzero(outcomes.known(h, gap)), outcomes, scores, kinds, h)
    rows = slices["all", primary].rows
    labels = _length_labels()
    bucket = np.searchsorted(LENGTHS, outcomes.length[rows], side="left")
    for i, label in enumerate(labels):
        if (bucket == i).any():
            slices[f"length {label}", primary] = _slice(rows[bucket == i], outcomes, scores, kinds, primary)
    named: list[str] = []
    if dated and len(rows):
        named, code = periods(outcomes.as_of[rows])
        for i, label in enumerate(named):
            slices[f"as_of {label}", primary] = _slice(rows[code == i], outcomes, scores, kinds, primary)
    # a slice without a journey has nothing to draw
    filled = {name: part for name, part in slices.items() if len(part.rows)}
    found = estimate(filled, customer, draws, seed, "bootstrap")
    documents = {name: _document(part, found.get(name), kinds, customer) for name, part in slices.items()}
    for h in horizons:
        documents["all", h]["not_observed"] = int((~outcomes.known(h, gap)).sum())
    return {
        "primary_horizon": primary,
        "gap_days": gap,
        "draws": draws,
        "seed": seed,
        "horizons": {str(h): documents["all", h] for h in horizons},
        "lengths": [
            {"events": label, **documents[f"length {label}", primary]}
            for label in labels
            if (f"length {label}", primary) in documents
        ],
        "as_of": [{"as_of": label, **documents[f"as_of {label}", primary]} for label in named],
        "reliability": {
            side: _reliability(slices["all", primary], side, customer, draws, seed)
            if kinds[side] == "probability"
            else None
            for side in SIDES
        },
    }


def _slice(
    rows: NDArray[np.int64],
    outcomes: Outcomes,
    scores: dict[str, dict[int, Floats]],
    kinds: dict[str, str],
    horizon: int,
) -> Slice:
    converted = outcomes.converted(horizon)[rows]
    models = {}
    for side in SIDES:
        values = scores[side][horizon][rows]
        # Scores takes what lies within [0, 1]; a rank's percentiles have its order and its ties
        models[side] = Scores(converted, percentiles(values) if kinds[side] == "rank" else values)
    return Slice(rows, models)


def _document(
    part: Slice,
    found: dict[str, Estimate] | None,
    kinds: dict[str, str],
    customer: NDArray[np.int64],
) -> dict[str, Any]:
    journeys, conversions = len(part.rows), int(part.models["candidate"].converted.sum())
    reason = None
    if journeys == 0:
        reason = "no journey whose outcome is known"
    elif conversions in (0, journeys):
        reason = f"{'none' if conversions == 0 else 'all'} of {journeys:,} journeys converted"
    sides: dict[str, Any] = {}
    nothing = {"value": None, "low": None, "high": None}
    for side in SIDES:
        values = intervals(found[side]) if found else dict.fromkeys(METRICS, nothing)
        sides[side] = {
            name: nothing | {"null_reason": RANK_REASON}
            if name in OF_PROBABILITY and kinds[side] == "rank"
            else values[name]
            for name in COMPARED
        }
    gaps: dict[str, Any] = {}
    for name in COMPARED:
        rank = name in OF_PROBABILITY and "rank" in kinds.values()
        if found is None or rank:
            gaps[name] = nothing | {"verdict": None} | ({"null_reason": RANK_REASON} if rank else {})
            continue
        gap_in = difference(name, found["candidate"], found["incumbent"])
        said = None if name == "mean_prediction" else verdict(name, gap_in["low"], gap_in["high"])
        gaps[name] = {**gap_in, "verdict": said}
    return {
        "journeys": journeys,
        "customers": len(np.unique(customer[part.rows])),
        "conversions": conversions,
        "base_rate": conversions / journeys if journeys else None,
        "reason": reason,
        **sides,
        "difference": gaps,
    }


def _reliability(part: Slice, side: str, customer: NDArray[np.int64], draws: int, seed: int) -> list[dict[str, Any]]:
    """Bins of equal mass of one side, lowest first: journeys, mean probability, share converted with its interval."""
    if not len(part.rows):
        return []
    scores = part.models[side]
    counts, predicted, observed = scores.reliability()
    drawn = np.array([scores.reliability(weight[part.rows])[2] for weight in customer_weights(customer, draws, seed)])
    shares = drawn.reshape(-1, len(counts))
    return [
        {
            "journeys": int(counts[i]),
            "predicted": interval("predicted", predicted[i], _NO_DRAWS)["value"],
            "observed": interval("observed", observed[i], shares[:, i]),
        }
        for i in range(len(counts))
    ]


def _length_labels() -> list[str]:
    """Names of the buckets of journey lengths: "0", "1", "2", "3 to 5" … "51 and more"."""
    lows = [0, *(high + 1 for high in LENGTHS[:-1])]
    named = [str(high) if low == high else f"{low} to {high}" for low, high in zip(lows, LENGTHS, strict=True)]
    return [*named, f"{LENGTHS[-1] + 1} and more"]
