"""Bootstrap intervals by customer: customers are drawn with replacement, each with all its journeys.

A customer's journeys resemble one another, and overlap in time; resampling journeys one by one would take them for
independent news and give intervals that are too narrow (Field & Welsh 2007, the cluster bootstrap). Every model is
evaluated on the same draws, so that differences between models are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.metrics import METRICS, Floats, Scores

LEVEL = 0.95
Key = tuple[str, int]  # names a slice: a group of journeys, a horizon
# The draw adds noise of its own to a mean of absolute values, so its percentiles lie too high: mirrored instead.
_BIASED_UPWARD = frozenset({"calibration_error"})


@dataclass(frozen=True)
class Slice:
    """Some of the table's journeys (rows: int64 [m]), and each model's scores on just these."""

    rows: NDArray[np.int64]
    models: dict[str, Scores]


@dataclass(frozen=True)
class Estimate:
    """Values of METRICS on the sample (float64 [metrics]) and on each draw (float64 [draws, metrics])."""

    value: Floats
    draws: Floats


def customer_draws(customers: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yields for each draw float64 [customers]: how often each was drawn. The same arguments yield the same draws."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(generator.integers(customers, size=customers), minlength=customers).astype(np.float64)


def customer_weights(customer: NDArray[np.int64], draws: int, seed: int) -> Iterator[Floats]:
    """Yields for each draw float64 [n]: how often the customer of each row was drawn.

    customer: int64 [n], codes 0 … c - 1. The same arguments yield the same draws.
    """
    for drawn in customer_draws(_count(customer), draws, seed):
        yield drawn[customer]


def drawn_sums(
    columns: Floats, rows: NDArray[np.int64], customer: NDArray[np.int64], draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Sums of columns (float64 [m, k], of these rows) in the sample, float64 [k], and in each draw, [draws, k].

    customer: int64 [n], codes of the whole table that rows (int64 [m]) index, so that the draws are those of every
    other estimate. What is a ratio of sums (a mean, a share, a profit) gets its interval so, at next to no cost.
    """
    count = _count(customer)
    sums = np.stack([np.bincount(customer[rows], weights=column, minlength=count) for column in columns.T], axis=1)
    drawn = [weight @ sums for weight in customer_draws(count, draws, seed)] if count else []
    return columns.sum(axis=0), np.array(drawn).reshape(-1, columns.shape[1])


def estimate(
    slices: dict[Key, Slice], customer: NDArray[np.int64], draws: int, seed: int, progress: str | None = None
) -> dict[Key, dict[str, Estimate]]:
    """Every metric of every model on every slice, and its draws: {slice: {model: Estimate}}.

    All slices see the same draws of customers (int64 [n], the codes of the table that the slices' rows index).
    progress: what to call it on a terminal's progress bar; None shows none.
    """
    found = {
        (name, model): Estimate(scores.evaluate(), np.full((draws, len(METRICS)), np.nan))
        for name, part in slices.items()
        for model, scores in part.models.items()
    }
    weights = customer_weights(customer, draws, seed) if len(customer) else iter(())
    # disable=None: no bar where stderr is no terminal
    for draw, weight in enumerate(
        tqdm(weights, total=draws, desc=progress, disable=None if progress else True, leave=False)
    ):
        for name, part in slices.items():
            part_weight = weight[part.rows]
            for model, scores in part.models.items():
                found[name, model].draws[draw] = scores.evaluate(part_weight)
    return {name: {model: found[name, model] for model in part.models} for name, part in slices.items()}


def interval(name: str, value: float, draws: Floats) -> dict[str, float | None]:
    """{"value", "low", "high"}: the 95 % percentile interval; the basic (mirrored) one for the calibration error.

    Draws in which the metric is not defined (NaN) are left out; where they are more than half, there is no interval.
    """
    defined = draws[np.isfinite(draws)]
    low: float | None = None
    high: float | None = None
    if np.isfinite(value) and len(defined) > len(draws) / 2:
        low, high = (float(q) for q in np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        if name in _BIASED_UPWARD:
            low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    return {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}


def intervals(estimate: Estimate) -> dict[str, dict[str, float | None]]:
    """{metric: {"value", "low", "high"}} of one model on one slice."""
    return {name: interval(name, estimate.value[i], estimate.draws[:, i]) for i, name in enumerate(METRICS)}


def difference(name: str, one: Estimate, other: Estimate) -> dict[str, float | None]:
    """{"value", "low", "high"} of `one` minus `other` in one metric, over the same draws: a paired interval."""
    i = METRICS.index(name)
    return interval("difference", one.value[i] - other.value[i], one.draws[:, i] - other.draws[:, i])


def _rounded(value: float | None) -> float | None:
    """Six digits say all that a sample does, and read by eye; None where there is no number (JSON knows no NaN)."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def _count(customer: NDArray[np.int64]) -> int:
    return int(customer.max()) + 1 if len(customer) else 0
