"""How far to trust an effect that nobody drew lots for: E-values, how much hidden confounding it would withstand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.experiment import Effect


@dataclass(frozen=True)
class EValue:
    """How strongly something unseen would have to act on both the choice of customers and on buying, as risk ratios,
    to explain away the estimate, and the near end of its interval (1: the interval holds no effect already)."""

    estimate: float
    interval: float


def e_value(risk_ratio: float) -> float:
    """E-value of a risk ratio: r + sqrt(r (r - 1)), with r turned over where it is below 1.

    VanderWeele & Ding 2017, "Sensitivity analysis in observational research". Raises ValueError unless it is above 0.
    """
    if not risk_ratio > 0 or not math.isfinite(risk_ratio):
        raise ValueError(f"risk ratio: expected a number above 0, got {risk_ratio}")
    ratio = max(risk_ratio, 1 / risk_ratio)
    return ratio + math.sqrt(ratio * (ratio - 1))


def e_value_of(effect: Effect, rate_without: float) -> EValue | None:
    """The E-values of a difference of probabilities, given P(converts) without the campaign.

    None where that probability is not above 0, or a risk ratio would not be: nothing can be said then.
    """
    if rate_without <= 0:
        return None
    ratios = [(rate_without + value) / rate_without for value in (effect.value, effect.low, effect.high)]
    if ratios[0] <= 0:
        return None
    if not effect.excludes_zero:
        return EValue(e_value(ratios[0]), 1.0)
    near = ratios[1] if effect.low > 0 else ratios[2]
    return EValue(e_value(ratios[0]), e_value(near))
