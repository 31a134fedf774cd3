"""Calibration of the hazards on eval: a continuous increasing map of each interval's log odds.

    logit'_k = centre_k + shift_k + slope_k * (logit_k - centre_k),  slope_k > 0

Platt's map (1999, "Probabilistic outputs for support vector machines") on the hazard of each interval. Hazards stay
hazards, so horizons still can't cross, and no two journeys change places within an interval. A prior holds slope near 1
and shift near 0 where eval has few conversions: with none, the map says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Standard deviations of the prior: what a few dozen conversions may claim against it, and a thousand override.
_LOG_SLOPE, _SHIFT = 0.25, 0.5
_FARTHEST = 30.0  # log odds are held inside: float32 probabilities reach 0 and 1 before


@dataclasses.dataclass(frozen=True)
class Calibration:
    """One slope, shift and centre an interval; `identity` changes nothing."""

    slope: tuple[float, ...]
    shift: tuple[float, ...]
    centre: tuple[float, ...]

    @classmethod
    def identity(cls, intervals: int) -> Calibration:
        return cls((1.0,) * intervals, (0.0,) * intervals, (0.0,) * intervals)

    def described(self, horizons: Sequence[int]) -> dict[str, dict[str, float]]:
        """Slope, shift and centre by the horizon at which each interval ends, for reports."""
        rows = zip(horizons, self.slope, self.shift, self.centre, strict=True)
        return {str(h): {"slope": slope, "shift": shift, "centre": centre} for h, slope, shift, centre in rows}

    def __call__(self, logits: tf.Tensor) -> tf.Tensor:
        """float32 [batch, intervals] to the same shape."""
        slope, shift, centre = (tf.constant(values, tf.float32) for values in (self.slope, self.shift, self.centre))
        return centre + shift + slope * (logits - centre)


def fit_calibration(
    logits: NDArray[np.float32],
    counts: NDArray[np.float32],
    converts: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> Calibration:
    """The map that makes eval's outcomes most likely, under the prior.

    logits: float32 [journeys, intervals], at the rate of the whole population; counts, converts: as hazard.targets
    gives them; weight: float32 [journeys], how many of the population each stands for. Raises ValueError where a logit
    is no number.
    """
    if not np.isfinite(logits).all():
        raise ValueError("expected finite log odds")
    columns = (array.astype(np.float64).T for array in (logits, counts, converts))
    weights = weight.astype(np.float64)
    maps = [_fit_interval(logit, at_risk, hits, weights) for logit, at_risk, hits in zip(*columns, strict=True)]
    return Calibration(*(tuple(round(map_[i], 6) for map_ in maps) for i in range(3)))


def _fit_interval(logit: Floats, counts: Floats, converts: Floats, weight: Floats) -> tuple[float, float, float]:
    """(slope, shift, centre) of one interval, by L-BFGS on the exact gradient."""
    from scipy.optimize import minimize

    at_risk = counts > 0
    logit, converts, weight = np.clip(logit[at_risk], -_FARTHEST, _FARTHEST), converts[at_risk], weight[at_risk]
    hits = weight * converts
    if not hits.any():
        return 1.0, 0.0, 0.0
    # where the conversions are: slope and shift then hardly trade off
    centre = float(np.average(logit[hits > 0], weights=hits[hits > 0]))
    away = logit - centre

    def cost(parameters: Floats) -> tuple[float, Floats]:
        log_slope, shift = parameters
        slope = np.exp(log_slope)
        mapped = centre + shift + slope * away
        loss = weight * (np.logaddexp(0, mapped) - converts * mapped)
        residual = weight * (1 / (1 + np.exp(-mapped)) - converts)
        prior = 0.5 * ((log_slope / _LOG_SLOPE) ** 2 + (shift / _SHIFT) ** 2)
        gradient = [slope * (residual @ away) + log_slope / _LOG_SLOPE**2, residual.sum() + shift / _SHIFT**2]
        return float(loss.sum() + prior), np.array(gradient)

    found = minimize(cost, np.zeros(2), jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), float(found.x[1]), centre
