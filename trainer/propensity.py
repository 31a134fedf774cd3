"""The effect of a campaign that was targeted: who would be treated, is there anyone to compare with, and the estimate.

The propensity is P(treated | journey before the assignment, customer's fields), cross-fitted by customer. Where treated
and held-out customers do not overlap in it, no number is given: it would be made of the model alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.experiment import Effect, Flags, Floats, Ints

TRIM = 0.02  # assignments with a propensity outside [TRIM, 1 - TRIM] have nobody to be compared with
MOST_TRIMMED = 0.2  # of the assignments
LEAST_EFFECTIVE = 100.0  # assignments an arm, by Kish's effective size
LEAST_SHARE = 0.1  # of an arm's assignments, as its effective size
MOST_SEPARATED = 0.95  # ROC-AUC of the propensity for the treatment


@dataclass(frozen=True)
class Overlap:
    """What the propensities say of who can be compared with whom. reason: why nothing can be told; "" where it can."""

    roc_auc: float
    trimmed: float
    effective_treated: float
    effective_held_out: float
    reason: str

    @property
    def holds(self) -> bool:
        return not self.reason


def kept(propensity: Floats) -> Flags:
    """bool [n]: the assignments that have somebody to be compared with; the estimate is about these."""
    return (propensity >= TRIM) & (propensity <= 1 - TRIM)


def weights(propensity: Floats, treated: Flags) -> Floats:
    """Stabilised inverse propensity weights, float64 [n]: P(arm) / P(arm | journey), of mean near 1 in each arm.

    (Robins, Hernan & Brumback 2000.) For assignments that are `kept`.
    """
    share = treated.mean()
    return np.where(treated, share / propensity, (1 - share) / (1 - propensity))


def effective_size(weight: Floats) -> float:
    """Kish's effective size: (sum w)^2 / sum w^2, how many equally weighted assignments tell as much."""
    return float(weight.sum() ** 2 / np.square(weight).sum()) if len(weight) else 0.0


def overlap(propensity: Floats, treated: Flags) -> Overlap:
    """Overlap of the arms in the propensity, and whether it suffices for an answer. propensity: float64 [n]."""
    from sklearn.metrics import roc_auc_score

    if treated.all() or not treated.any():
        missing = "held out" if treated.all() else "treated"
        return Overlap(float("nan"), 1.0, 0.0, 0.0, f"nobody was {missing}: there is nobody to compare with")
    inside = kept(propensity)
    weight = weights(np.clip(propensity, TRIM, 1 - TRIM), treated)
    sizes = [effective_size(weight[inside & arm]) for arm in (treated, ~treated)]
    counts = [int((inside & arm).sum()) for arm in (treated, ~treated)]
    separated, trimmed = float(roc_auc_score(treated, propensity)), float(1 - inside.mean())
    reason = ""
    if separated > MOST_SEPARATED:
        reason = (
            f"the journey tells treated from held-out customers almost surely (ROC-AUC {separated:.3f}): "
            "like is compared with unlike"
        )
    elif trimmed > MOST_TRIMMED:
        reason = f"{trimmed:.0%} of the assignments are of a kind that is always, or never, treated"
    else:
        for name, size, count in zip(("treated", "held-out"), sizes, counts, strict=True):
            if size < LEAST_EFFECTIVE or size < LEAST_SHARE * count:
                reason = f"the comparison would rest on few assignments: {size:.0f} {name} ones tell for all {count:,}"
                break
    return Overlap(separated, trimmed, sizes[0], sizes[1], reason)


def weighted_difference(converted: Flags, treated: Flags, propensity: Floats, customer: Ints) -> Effect:
    """The difference of weighted shares (Hajek), by stabilised weights; the propensity is taken as known."""
    weight = weights(propensity, treated)
    means = {arm: np.average(converted[treated == arm], weights=weight[treated == arm]) for arm in (True, False)}
    total = np.where(treated, weight[treated].sum(), weight[~treated].sum())
    sign = np.where(treated, 1.0, -1.0)
    centred = converted - np.where(treated, means[True], means[False])
    influence = len(converted) * sign * weight * centred / total
    return Effect(float(means[True] - means[False]), clustered_se(influence, customer))


def pseudo_outcomes(converted: Flags, treated: Flags, propensity: Floats, arms: tuple[Floats, Floats]) -> Floats:
    """float64 [n], whose mean is the effect: AIPW, right where either the propensity or the outcome model is.

        mu_1 - mu_0 + T (Y - mu_1) / e - (1 - T) (Y - mu_0) / (1 - e)

    arms: mu_0 and mu_1, P(converts | journey, arm), without and with it, float64 [n] each (Robins, Rotnitzky & Zhao
    1994). Cross-fitted, e and mu may be flexible models and the interval still holds (Chernozhukov et al. 2018,
    "Double/debiased machine learning").
    """
    without, with_it = arms
    arm = treated.astype(np.float64)
    return (
        with_it
        - without
        + arm * (converted - with_it) / propensity
        - (1 - arm) * (converted - without) / (1 - propensity)
    )


def doubly_robust(
    converted: Flags, treated: Flags, propensity: Floats, arms: tuple[Floats, Floats], *, customer: Ints
) -> Effect:
    """The average effect by AIPW, with a error clustered by customer. Arrays [n]; arms as for pseudo_outcomes."""
    outcomes = pseudo_outcomes(converted, treated, propensity, arms)
    return Effect(float(outcomes.mean()), clustered_se(outcomes - outcomes.mean(), customer))


def clustered_se(influence: Floats, customer: Ints) -> float:
    """Standard error of a mean from what each assignment adds to it (of mean 0), summed by customer."""
    sums = np.bincount(customer, weights=influence)
    clusters = int(np.count_nonzero(np.bincount(customer)))
    correction = clusters / max(clusters - 1, 1)
    return float(np.sqrt(correction * np.square(sums).sum()) / len(influence))


def histogram(propensity: Floats, treated: Flags, bins: int = 20) -> dict[str, Any]:
    """{"edges", "treated", "held_out"}: counts of assignments by propensity, for the overlap plot."""
    edges = np.linspace(0, 1, bins + 1)
    counted = {
        name: np.histogram(propensity[arm], edges)[0].tolist()
        for name, arm in (("treated", treated), ("held_out", ~treated))
    }
    return {"edges": edges.tolist(), **counted}
