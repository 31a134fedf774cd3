"""Whom to contact: a threshold chosen by cost and benefit on eval, and what it brings on test, with intervals.

A contact costs something, a conversion among those contacted is worth something, all else is worth nothing. That is
prediction and not influence: it credits the contact with conversions that would have come by themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.bootstrap import Slice, drawn_sums, interval
from trainer.metrics import Floats, Scores
from trainer.settings import require_prices

RATIOS = (5.0, 10.0, 20.0, 50.0, 100.0)  # value of a conversion over cost of a contact, where nobody gave them
RULES = {
    "break_even": "probability above cost / value",
    "best_on_eval": "threshold that earned most on eval",
    "all": "contact all",
    "none": "contact none",
}


def decide(
    evaluation: Scores,
    test: Slice,
    customer: NDArray[np.int64],
    *,
    draws: int,
    seed: int,
    contact_cost: float | None,
    conversion_value: float | None,
) -> dict[str, Any]:
    """For each ratio of value to cost the rules, chosen without a look at test, and what each brings on test.

    evaluation: the LSTM's scores on eval; test: the slice whose journeys are contacted or not; customer: int64 [n],
    codes of the table that its rows index. Profits are per 1,000 journeys: in the money that was given, or in contact
    costs where none was. A threshold of null contacts nobody. Raises UserError as require_prices does.
    """
    require_prices(contact_cost, conversion_value)
    given = contact_cost is not None and conversion_value is not None
    ratios = (conversion_value / contact_cost,) if contact_cost is not None and conversion_value is not None else RATIOS
    cost = contact_cost if given and contact_cost is not None else 1.0
    scores = test.models["lstm"]
    choices = []
    for ratio in ratios:
        value = cost * ratio
        thresholds = {
            "break_even": float(f"{1 / ratio:.6g}"),
            "best_on_eval": best_threshold(evaluation, cost, value),
            "all": 0.0,
            "none": None,
        }
        taken = {name: _contacted(scores, at) for name, at in thresholds.items()}
        outcomes = _outcomes(test, taken, customer, draws=draws, seed=seed, cost=cost, value=value)
        choices.append(
            {
                "value_over_cost": float(f"{ratio:.6g}"),
                "rules": {name: {"threshold": thresholds[name], **outcomes[name]} for name in thresholds},
            }
        )
    return {
        "contact_cost": contact_cost,
        "conversion_value": conversion_value,
        "profit_in": "the currency of --contact_cost" if given else "contact costs",
        "choices": choices,
    }


def best_threshold(scores: Scores, cost: float, value: float) -> float | None:
    """The threshold above which contacting earned most on these journeys; None where no contact earned anything.

    It lies between the last score that is contacted and the next lower one. Of thresholds that earn alike, the one
    with the fewest contacts.
    """
    order = np.argsort(-scores.probability, kind="stable")
    ranked = scores.probability[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, dtype=np.int64)
    profit = value * np.cumsum(scores.converted[order])[ends] - cost * (ends + 1)
    if not len(profit) or profit.max() <= 0:
        return None
    last = ends[int(np.argmax(profit))]
    below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
    return float(f"{(ranked[last] + below) / 2:.6g}")


def profit_curve(scores: Scores, cost: float, value: float) -> tuple[Floats, Floats]:
    """Share of journeys contacted, best scores first, and profit per 1,000 journeys; from nobody to all."""
    seen, found = scores.thresholds()
    seen, found = np.append(0, seen), np.append(0, found)
    return seen / seen[-1], 1000 * (value * found - cost * seen) / seen[-1]


def _contacted(scores: Scores, threshold: float | None) -> NDArray[np.bool_]:
    return np.zeros(len(scores), dtype=bool) if threshold is None else scores.probability >= threshold


def _outcomes(
    test: Slice,
    taken: dict[str, NDArray[np.bool_]],
    customer: NDArray[np.int64],
    *,
    draws: int,
    seed: int,
    cost: float,
    value: float,
) -> dict[str, dict[str, Any]]:
    """By rule: contacted (share), precision, recall, profit per 1,000 journeys; each a ratio of sums over journeys."""
    converted = test.models["lstm"].converted
    columns = [np.ones(len(converted)), converted]
    for mask in taken.values():
        columns += [mask.astype(np.float64), mask * converted]
    total, drawn = drawn_sums(np.stack(columns, axis=1), test.rows, customer, draws, seed)

    def tell(sums: Floats, i: int) -> dict[str, Floats]:
        journeys, conversions, contacted, hits = sums[..., 0], sums[..., 1], sums[..., i], sums[..., i + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "contacted": contacted / journeys,
                "precision": hits / contacted,
                "recall": hits / conversions,
                "profit_per_1000": 1000 * (value * hits - cost * contacted) / journeys,
            }

    outcomes = {}
    for place, name in enumerate(taken):
        point, spread = tell(total, 2 + 2 * place), tell(drawn, 2 + 2 * place)
        outcomes[name] = {key: interval(key, float(point[key]), spread[key]) for key in point}
    return outcomes
