"""What a campaign changed where lots were drawn: intention to treat, and the checks that the drawing was fair.

Everyone assigned counts in the arm that the lot gave, reached or not. One customer may be assigned several times, by
one lot or by several, so every standard error and every check is clustered by customer (Liang & Zeger 1986).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVEL = 0.95
SUSPICIOUS = 0.001  # a check's p-value below this is no chance: with many campaigns a check is made many times


@dataclass(frozen=True)
class Effect:
    """A difference of probabilities, treated minus held out, with its standard error and 95 % interval.

    p_value: two-sided, of no difference, by the normal distribution.
    """

    value: float
    se: float

    @property
    def low(self) -> float:
        return self.value - _z() * self.se

    @property
    def high(self) -> float:
        return self.value + _z() * self.se

    @property
    def p_value(self) -> float:
        from scipy.stats import norm

        return float(2 * norm.sf(abs(self.value) / self.se)) if self.se > 0 else float(self.value == 0)

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def difference(converted: Flags, treated: Flags, customer: Ints) -> Effect:
    """Share converted among the treated minus share converted among the held out.

    All arrays [n]; customer: codes. Raises ValueError where an arm is empty.
    """
    return _regression(converted, treated, np.empty((len(converted), 0)), customer)


def adjusted(converted: Flags, treated: Flags, covariates: Floats, customer: Ints) -> Effect:
    """The same effect, with what was known before the assignment taken out (CUPED, by regression).

    covariates: float64 [n, k], of before the assignment, such as a score that never saw the customer's outcome.
    Conversion is regressed on the arm, the centred covariates and their products; the arm's coefficient is the effect
    (Lin 2013, "Agnostic notes on regression adjustments"): whatever the covariates are, it estimates the same
    quantity as `difference`, and in large samples never less precisely. Raises ValueError where an arm is empty.
    """
    return _regression(converted, treated, covariates, customer)


def _regression(converted: Flags, treated: Flags, covariates: Floats, customer: Ints) -> Effect:
    import statsmodels.api as sm

    if treated.all() or not treated.any():
        raise ValueError("expected assignments both treated and held out")
    arm = treated.astype(np.float64)
    spread = covariates.std(axis=0)
    centred = (covariates - covariates.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    design = np.column_stack([np.ones_like(arm), arm, centred, centred * arm[:, None]])
    fitted = sm.OLS(converted.astype(np.float64), design).fit(cov_type="cluster", cov_kwds={"groups": customer})
    return Effect(float(fitted.params[1]), float(fitted.bse[1]))


def narrowing(unadjusted: Effect, with_covariate: Effect) -> float:
    """By which share the covariate makes the interval narrower: 1 - se / se."""
    return 1 - with_covariate.se / unadjusted.se


def sample_ratio_p(treated: Flags, customer: Ints, planned_share: float) -> float:
    """Sample ratio mismatch: two-sided p-value, by the normal distribution, of the treated against the planned share p.

        z = sum over assignments of (t - p) / sqrt(sum over customers of (sum of the customer's (t - p))^2)

    The score test with a cluster-robust variance (Liang & Zeger 1986; Boos 1992, "On generalized score tests"): a lot
    that was drawn once a customer counts once, however often they were assigned. With one assignment a customer and
    p = 1/2, z^2 is the chi-square statistic; with another p they differ in the variance, which is here of the data.

    treated: bool [n]; customer: int64 [n], codes. Raises ValueError unless planned_share lies between 0 and 1.
    """
    if not 0 < planned_share < 1:
        raise ValueError(f"planned share: expected between 0 and 1, got {planned_share}")
    from scipy.stats import norm

    sums = np.bincount(customer, weights=treated - planned_share)
    spread = float(np.sqrt(np.square(sums).sum()))
    return float(2 * norm.sf(abs(float(sums.sum())) / spread)) if spread > 0 else 1.0


def uneven_shares_p(treated: Flags, group: Ints, customer: Ints) -> float:
    """p-value of chi-square that the share treated is the same in all groups (sendings, say); 1 for a single one.

    A share that changed between sendings mixes the seasons into the difference between the arms. With p the share in
    all n, n_g the size of group g, and by customer c the vectors

        u_c = x_c - w sum(x_c),     x_cg = sum of the customer's (t - p) in group g,     w_g = n_g / n,

    which are what c adds to the groups' deviations, p being estimated, the statistic is the generalised score test's
    (Boos 1992, with the variance of Liang & Zeger 1986): s' V^- s, s = sum of u_c, V = sum of u_c u_c', of as many
    degrees of freedom as V has. Customers may recur within a group and in several. With one assignment a customer, and
    p = 1/2 or two groups of one size, it is Pearson's chi-square.

    treated: bool [n]; group, customer: int64 [n], codes.
    """
    from scipy.sparse import coo_array
    from scipy.stats import chi2

    _, place = np.unique(group, return_inverse=True)
    residual = treated - treated.mean()
    by_group = coo_array((residual, (customer, place))).tocsr()  # of one customer and group, summed
    of_customer = np.asarray(by_group.sum(axis=1)).ravel()
    weight = np.bincount(place) / len(place)
    shared = np.outer(by_group.T @ of_customer, weight)
    variance = (by_group.T @ by_group).toarray() - shared - shared.T
    variance += (of_customer @ of_customer) * np.outer(weight, weight)
    size, direction = np.linalg.eigh(variance)
    there = size > 1e-9 * np.trace(variance) if np.trace(variance) > 1e-9 else np.zeros(len(size), bool)
    if not there.any():
        return 1.0
    score = direction[:, there].T @ np.bincount(place, weights=residual)
    return float(chi2.sf(float((score**2 / size[there]).sum()), int(there.sum())))


def predictable_p(treated: Flags, propensity: Floats, customer: Ints) -> float:
    """p-value, one-sided, that the assignment follows a propensity which was predicted without it.

    propensity: float64 [n], out of fold. The slope of the arm on the propensity is 0 where lots were drawn; above 0 the
    arm could be foretold from the journey.
    """
    import statsmodels.api as sm
    from scipy.stats import norm

    if propensity.std() < 1e-9:
        return 1.0
    design = np.column_stack([np.ones_like(propensity), propensity])
    fitted = sm.OLS(treated.astype(np.float64), design).fit(cov_type="cluster", cov_kwds={"groups": customer})
    return float(norm.sf(fitted.params[1] / fitted.bse[1]))


def assignments_needed(
    rate: float, effect: float, *, treated_share: float = 0.5, power: float = 0.8, narrowing: float = 0.0
) -> int:
    """How many assignments, both arms together, find an effect with that power at the 5 % level, two-sided.

        n = (z_0.975 + z_power)^2 (p_1 (1 - p_1) / s + p_0 (1 - p_0) / (1 - s)) (1 - narrowing)^2 / effect^2

    p_0 = rate: share of the held out that converts; p_1 = rate + effect; s: share treated; narrowing: as the covariate
    reached it. Raises ValueError where a share does not lie between 0 and 1, or the effect is 0.
    """
    from scipy.stats import norm

    after = rate + effect
    if not (0 < rate < 1 and 0 < after < 1 and 0 < treated_share < 1 and 0 < power < 1) or effect == 0:
        raise ValueError(f"expected shares between 0 and 1 and an effect, got {rate=}, {effect=}, {treated_share=}")
    variance = after * (1 - after) / treated_share + rate * (1 - rate) / (1 - treated_share)
    quantiles = norm.ppf(0.5 + LEVEL / 2) + norm.ppf(power)
    return math.ceil(quantiles**2 * variance * (1 - narrowing) ** 2 / effect**2)


def _z() -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + LEVEL / 2))
