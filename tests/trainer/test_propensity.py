"""Weights, overlap and the doubly robust estimate, by hand and on drawn customers whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.experiment import difference
from trainer.propensity import (
    clustered_se,
    doubly_robust,
    effective_size,
    histogram,
    kept,
    overlap,
    pseudo_outcomes,
    weighted_difference,
    weights,
)


def _confounded(seed: int, rows: int = 20_000) -> dict[str, np.ndarray]:
    """Likely buyers are treated more often; treatment adds 0.05 to everyone's probability."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=rows)
    propensity, without = 1 / (1 + np.exp(-x)), 0.3 / (1 + np.exp(-2 * x))
    treated = generator.random(rows) < propensity
    converted = generator.random(rows) < without + 0.05 * treated
    return {"propensity": propensity, "without": without, "treated": treated, "converted": converted}


def test_stabilised_weights_by_hand() -> None:
    """Half treated: 0.5 / 0.25 for a treated one, 0.5 / (1 - 0.2) for a held-out one."""
    found = weights(np.array([0.25, 0.2]), np.array([True, False]))
    assert found == pytest.approx([2.0, 0.625])
    assert effective_size(np.array([2.0, 1.0, 1.0])) == pytest.approx(16 / 6)
    assert kept(np.array([0.01, 0.02, 0.5, 0.98, 0.99])).tolist() == [False, True, True, True, False]


def test_pseudo_outcomes_by_hand() -> None:
    """A treated converter: 0.3 - 0.2 + (1 - 0.3) / 0.5 = 1.5; held out, not converted: 0.1 + 0.2 / 0.75."""
    found = pseudo_outcomes(
        np.array([True, False]), np.array([True, False]), np.array([0.5, 0.25]), (np.full(2, 0.2), np.full(2, 0.3))
    )
    assert found == pytest.approx([1.5, 0.1 + 0.2 / 0.75])


def test_clustered_se_by_hand() -> None:
    """Sums by customer 2, -1, -1: sqrt(3/2 * 6) / 4."""
    assert clustered_se(np.array([1.0, 1.0, -1.0, -1.0]), np.array([0, 0, 1, 2])) == pytest.approx(3 / 4)


@pytest.mark.parametrize("wrong", ["none", "propensity", "outcome"])
def test_doubly_robust_where_one_of_two_models_is_right(wrong: str) -> None:
    drawn = _confounded(1)
    propensity = np.full(20_000, drawn["treated"].mean()) if wrong == "propensity" else drawn["propensity"]
    without = np.full(20_000, 0.1) if wrong == "outcome" else drawn["without"]
    customer = np.arange(20_000)
    found = doubly_robust(
        drawn["converted"], drawn["treated"], propensity, (without, without + 0.05), customer=customer
    )
    assert abs(found.value - 0.05) < 4 * found.se
    naive = difference(drawn["converted"], drawn["treated"], customer)
    assert naive.value - 0.05 > 10 * naive.se  # what it is spared


def test_weighted_difference_and_its_error() -> None:
    """Over 200 draws the estimates scatter as the standard error says, around the truth."""
    found = []
    for seed in range(200):
        drawn = _confounded(seed, 2_000)
        found.append(weighted_difference(drawn["converted"], drawn["treated"], drawn["propensity"], np.arange(2_000)))
    values = np.array([one.value for one in found])
    assert abs(values.mean() - 0.05) < 4 * values.std() / np.sqrt(200)
    assert np.mean([one.se for one in found]) == pytest.approx(values.std(ddof=1), rel=0.2)


def test_overlap_holds_where_likes_meet() -> None:
    drawn = _confounded(2)
    found = overlap(drawn["propensity"], drawn["treated"])
    assert found.holds
    assert 0.6 < found.roc_auc < 0.8
    assert found.effective_treated < drawn["treated"].sum()


def test_overlap_fails_where_the_journey_decides() -> None:
    generator = np.random.default_rng(0)
    sure = np.where(generator.random(4_000) < 0.5, 0.99, 0.01)
    found = overlap(sure, generator.random(4_000) < sure)
    assert not found.holds
    assert "almost surely" in found.reason


def test_overlap_fails_where_many_are_never_treated() -> None:
    generator = np.random.default_rng(0)
    propensity = np.where(generator.random(4_000) < 0.3, 0.001, 0.5)
    found = overlap(propensity, generator.random(4_000) < propensity)
    assert "% of the assignments are of a kind that is always, or never, treated" in found.reason


def test_overlap_fails_where_few_tell_for_all() -> None:
    found = overlap(np.full(400, 0.1), np.arange(400) < 40)
    assert found.reason == "the comparison would rest on few assignments: 40 treated ones tell for all 40"


def test_overlap_fails_where_an_arm_is_empty() -> None:
    assert "nobody was held out" in overlap(np.full(10, 0.5), np.ones(10, bool)).reason
    assert "nobody was treated" in overlap(np.full(10, 0.5), np.zeros(10, bool)).reason


def test_histogram_counts_everyone() -> None:
    found = histogram(np.array([0.02, 0.5, 1.0]), np.array([False, True, True]), bins=2)
    assert found == {"edges": [0, 0.5, 1], "treated": [0, 2], "held_out": [1, 0]}
