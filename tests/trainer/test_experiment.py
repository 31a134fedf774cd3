"""Intention to treat, its adjustment, and the checks of the drawing, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, chisquare, norm

from trainer.experiment import (
    SUSPICIOUS,
    Effect,
    adjusted,
    assignments_needed,
    difference,
    narrowing,
    predictable_p,
    sample_ratio_p,
    uneven_shares_p,
)


def _flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


def test_difference_by_hand() -> None:
    """3 of 4 and 1 of 4: the residuals' squares sum to 0.75 an arm; statsmodels' correction is 8/7 * 7/6."""
    found = difference(_flags(1, 1, 1, 0, 1, 0, 0, 0), _flags(1, 1, 1, 1, 0, 0, 0, 0), np.arange(8))
    assert found.value == pytest.approx(0.5)
    assert found.se == pytest.approx(np.sqrt((0.75 / 16 + 0.75 / 16) * 8 / 7 * 7 / 6))
    assert (found.low, found.high) == pytest.approx((0.5 - 1.959964 * found.se, 0.5 + 1.959964 * found.se))


def test_a_customers_repetitions_are_no_news() -> None:
    """The same journeys ten times over say nothing more, where they are the same customers'."""
    generator = np.random.default_rng(0)
    converted, treated = generator.random(300) < 0.3, generator.random(300) < 0.5
    once = difference(converted, treated, np.arange(300))
    repeated = difference(np.tile(converted, 10), np.tile(treated, 10), np.tile(np.arange(300), 10))
    assert repeated.se == pytest.approx(once.se, rel=0.01)
    independent = difference(np.tile(converted, 10), np.tile(treated, 10), np.arange(3000))
    assert independent.se < 0.4 * once.se


def test_adjusting_by_a_kind_is_the_mean_over_kinds() -> None:
    """Kind A, 6 assigned: 2 of 2 against 1 of 4, so 0.75; kind B, 4 assigned: 0 of 2 against 1 of 2, so -0.5."""
    kind = np.array([[1.0]] * 6 + [[0.0]] * 4)
    treated = _flags(1, 1, 0, 0, 0, 0, 1, 1, 0, 0)
    converted = _flags(1, 1, 1, 0, 0, 0, 0, 0, 1, 0)
    assert adjusted(converted, treated, kind, np.arange(10)).value == pytest.approx(0.6 * 0.75 - 0.4 * 0.5)


def test_a_covariate_that_explains_the_outcome_narrows_the_interval() -> None:
    generator = np.random.default_rng(1)
    probability = generator.beta(0.3, 1, 20_000)
    treated = generator.random(20_000) < 0.5
    converted = generator.random(20_000) < np.clip(probability + 0.02 * treated, 0, 1)
    plain = difference(converted, treated, np.arange(20_000))
    found = adjusted(converted, treated, probability[:, None], np.arange(20_000))
    explained = np.corrcoef(probability, converted)[0, 1] ** 2
    assert narrowing(plain, found) == pytest.approx(1 - np.sqrt(1 - explained), abs=0.02)
    assert found.low < 0.02 < found.high


def test_intervals_hold_as_often_as_they_say() -> None:
    """400 experiments without an effect: 95 % intervals hold 0 in 95 %, within four standard errors of that count."""
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        customer = generator.integers(0, 150, 400)
        habit = generator.beta(1, 3, 150)[customer]
        treated = generator.random(400) < 0.5
        effect = adjusted(generator.random(400) < habit, treated, generator.normal(size=(400, 1)), customer)
        held += not effect.excludes_zero
    assert abs(held / 400 - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 400)


def test_an_arm_without_assignments_is_no_experiment() -> None:
    with pytest.raises(ValueError, match="both treated and held out"):
        difference(_flags(1, 0), _flags(1, 1), np.arange(2))


def _share(treated: int, assigned: int) -> tuple[np.ndarray, np.ndarray]:
    """So many treated of so many assignments, one a customer."""
    return np.arange(assigned) < treated, np.arange(assigned)


def test_sample_ratio_by_hand() -> None:
    """60 of 100 planned half and half: chi-square 2 * 10^2 / 50 = 4, p 0.0455."""
    assert sample_ratio_p(*_share(60, 100), 0.5) == pytest.approx(0.0455, abs=1e-4)
    assert sample_ratio_p(*_share(60, 100), 0.6) == pytest.approx(1)
    assert sample_ratio_p(*_share(5_300, 10_000), 0.5) < SUSPICIOUS
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_ratio_p(*_share(1, 2), 1.0)


def test_sample_ratio_with_another_plan_by_hand() -> None:
    """30 of 100 planned a fifth: 30 * 0.8^2 + 70 * 0.2^2 = 22, z = 10 / sqrt(22); chi-square has sqrt(16)."""
    assert sample_ratio_p(*_share(30, 100), 0.2) == pytest.approx(2 * norm.sf(10 / np.sqrt(22)))


def test_sample_ratio_of_customers_who_recur_by_hand() -> None:
    """Sums by customer 1, 1, -0.5 and 0: z = 1.5 / sqrt(1 + 1 + 0.25)."""
    customer = np.array([0, 0, 1, 1, 2, 3, 3])
    found = sample_ratio_p(_flags(1, 1, 1, 1, 0, 1, 0), customer, 0.5)
    assert found == pytest.approx(2 * norm.sf(1.0))
    assert sample_ratio_p(_flags(1, 0), np.zeros(2, np.int64), 0.5) == 1


def test_shares_that_differ_between_sendings_by_hand() -> None:
    """10 of 20 and 15 of 20: chi-square 2 * 20 * 0.125^2 / (0.625 * 0.375) = 2.667, p 0.1025."""
    treated, customer = np.repeat([True, False, True, False], [10, 10, 15, 5]), np.arange(40)
    assert uneven_shares_p(treated, np.repeat([0, 1], 20), customer) == pytest.approx(0.1025, abs=1e-4)
    assert uneven_shares_p(treated, np.repeat([3, 7], 20), customer) == pytest.approx(0.1025, abs=1e-4)
    assert uneven_shares_p(treated, np.zeros(40, np.int64), customer) == 1
    assert uneven_shares_p(np.ones(40, bool), np.repeat([0, 1], 20), customer) == 1
    # three sendings, half treated in all: 2 of 10, 6 of 10, 7 of 10 is 10 * (0.3^2 + 0.1^2 + 0.2^2) / 0.25 = 5.6
    three = np.repeat([True, False, True, False, True, False], [2, 8, 6, 4, 7, 3])
    assert uneven_shares_p(three, np.repeat([0, 1, 2], 10), np.arange(30)) == pytest.approx(chi2.sf(5.6, 2))


def test_shares_of_customers_who_recur_in_a_sending_by_hand() -> None:
    """Each row twice is each customer twice: the statistic of one row each. Taken for 80 customers it doubles."""
    treated = np.repeat([True, False, True, False], [20, 20, 30, 10])
    group, customer = np.repeat([0, 1], 40), np.repeat(np.arange(40), 2)
    assert uneven_shares_p(treated, group, customer) == pytest.approx(chi2.sf(8 / 3, 1))
    assert uneven_shares_p(treated, group, np.arange(80)) == pytest.approx(chi2.sf(16 / 3, 1))


def test_customers_of_one_lot_in_every_sending_say_nothing_of_the_sendings() -> None:
    """And customers whose arm changed places in the second sending are half as many news as there are rows."""
    lot = np.random.default_rng(0).random(50) < 0.5
    assert uneven_shares_p(np.tile(lot, 3), np.repeat([0, 1, 2], 50), np.tile(np.arange(50), 3)) == 1
    # 30 of 50, then the other 20: each adds 1 or -1 to the difference, of which there are 10 more
    crossed, group = np.arange(50) < 30, np.repeat([0, 1], 50)
    found = uneven_shares_p(np.concatenate([crossed, ~crossed]), group, np.tile(np.arange(50), 2))
    assert found == pytest.approx(chi2.sf(10**2 / 50, 1))


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_a_lot_that_is_drawn_once_a_customer_is_no_false_alarm(share: float) -> None:
    """1,000 fair draws over 400 customers of one to eight assignments: alarms as often as the level says, within four
    standard errors of that count. Taken as independent, the assignments alarm in more than a third."""
    generator = np.random.default_rng(4)
    alarms = np.zeros(3)
    for _ in range(1_000):
        customer = np.repeat(np.arange(400), generator.integers(1, 9, 400))
        treated = (generator.random(400) < share)[customer]
        expected = np.array([share, 1 - share]) * len(treated)
        alarms += [
            sample_ratio_p(treated, customer, share) < 0.05,
            uneven_shares_p(treated, customer % 4, customer) < 0.05,
            chisquare([treated.sum(), (~treated).sum()], expected).pvalue < 0.05,
        ]
    assert (np.abs(alarms[:2] / 1_000 - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 1_000)).all(), alarms
    assert alarms[2] > 350


def test_a_lot_once_a_customer_that_was_not_as_planned_is_seen() -> None:
    generator = np.random.default_rng(5)
    customer = np.repeat(np.arange(2_000), generator.integers(1, 9, 2_000))
    sending = customer % 4
    lost = (generator.random(2_000) < 0.58)[customer]
    assert sample_ratio_p(lost, customer, 0.5) < SUSPICIOUS
    moved = (generator.random(2_000) < np.where(np.arange(2_000) % 4 == 3, 0.62, 0.5))[customer]
    assert uneven_shares_p(moved, sending, customer) < SUSPICIOUS


def test_an_assignment_that_can_be_foretold_is_seen() -> None:
    generator = np.random.default_rng(3)
    propensity = generator.uniform(0.3, 0.7, 5_000)
    customer = np.arange(5_000)
    assert predictable_p(generator.random(5_000) < propensity, propensity, customer) < SUSPICIOUS
    assert predictable_p(generator.random(5_000) < 0.5, propensity, customer) > SUSPICIOUS
    assert predictable_p(generator.random(5_000) < 0.5, np.full(5_000, 0.5), customer) == 1


def test_assignments_needed_by_hand() -> None:
    """(1.95996 + 0.84162)^2 * (0.12 * 0.88 / 0.5 + 0.1 * 0.9 / 0.5) / 0.02^2 = 7676.2."""
    assert assignments_needed(0.1, 0.02) == 7_677
    assert assignments_needed(0.1, 0.02, narrowing=0.1) == pytest.approx(7_676.2 * 0.81, abs=1)
    with pytest.raises(ValueError, match="an effect"):
        assignments_needed(0.1, 0.0)


def test_p_value() -> None:
    assert Effect(1.959964, 1.0).p_value == pytest.approx(0.05, abs=1e-6)
    assert Effect(0.0, 0.0).p_value == 1
