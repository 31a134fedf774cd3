"""Intention to treat, its adjustment, and the checks of the drawing, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_sample_ratio_by_hand() -> None:
    """60 of 100 planned half and half: chi-square 2 * 10^2 / 50 = 4, p 0.0455."""
    assert sample_ratio_p(60, 100, 0.5) == pytest.approx(0.0455, abs=1e-4)
    assert sample_ratio_p(60, 100, 0.6) == 1
    assert sample_ratio_p(5_300, 10_000, 0.5) < SUSPICIOUS
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_ratio_p(1, 2, 1.0)


def test_shares_that_differ_between_sendings_by_hand() -> None:
    """10 of 20 and 15 of 20: chi-square 2 * 20 * 0.125^2 / (0.625 * 0.375) = 2.667, p 0.1025."""
    treated = np.repeat([True, False, True, False], [10, 10, 15, 5])
    assert uneven_shares_p(treated, np.repeat([0, 1], 20)) == pytest.approx(0.1025, abs=1e-4)
    assert uneven_shares_p(treated, np.zeros(40, np.int64)) == 1


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
