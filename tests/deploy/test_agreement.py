"""Agreement figures worked out by hand."""

import math

import numpy as np
import pytest

from deploy.agreement import agreement, disagreements, percentiles, psi, top_overlap


def test_rank_correlations_by_hand():
    """Of 6 pairs of 4 journeys one is swapped: tau = (5 - 1) / 6; rho = 1 - 6 · (1 + 1) / (4 · 15)."""
    found = agreement(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.3, 0.2, 0.4]), comparable=True)
    assert found["kendall"] == pytest.approx(4 / 6)
    assert found["spearman"] == pytest.approx(0.8)
    assert found["shift"]["mean_difference"] == pytest.approx(0)
    assert found["shift"]["largest_difference"] == pytest.approx(0.1)


def test_top_tenth_by_hand():
    one = np.arange(20.0)
    assert top_overlap(one, one) == 1
    assert top_overlap(one, -one) == 0
    swapped = one.copy()
    swapped[[17, 18]] = swapped[[18, 17]]  # 19 stays at the top, 17 takes the place of 18
    assert top_overlap(one, swapped) == 0.5
    # four tied for the two places of the tenth: each half a member, and so together in both
    tied = np.r_[np.zeros(16), np.ones(4)]
    assert top_overlap(tied, tied) == 1
    assert top_overlap(tied, one) == pytest.approx(0.5)


def test_psi_by_hand():
    """Two bins of the incumbent's halves: shares .5/.5 against .25/.75, each count with half a journey more."""
    incumbent = np.array([0.1] * 4 + [0.9] * 4)
    candidate = np.array([0.1] * 2 + [0.9] * 6)
    value, bins = psi(incumbent, candidate, bins=2)
    p, q = np.array([4.5, 4.5]) / 9, np.array([2.5, 6.5]) / 9
    assert value == pytest.approx(float(np.sum((q - p) * np.log(q / p))))
    assert [one["incumbent"] for one in bins] == [0.5, 0.5]
    assert [one["candidate"] for one in bins] == [0.25, 0.75]
    assert psi(incumbent, incumbent)[0] == 0


def test_psi_of_disjoint_scores_is_finite():
    value, _ = psi(np.full(100, 0.1), np.full(100, 0.9))
    assert math.isfinite(value)
    assert value > 1


def test_a_rank_has_no_shift_and_constant_scores_no_correlation():
    ranks = agreement(np.array([5.0, 1.0, 9.0]), np.array([0.2, 0.1, 0.3]), comparable=False)
    assert (ranks["spearman"], ranks["psi"], ranks["shift"]) == (1, None, None)
    assert "rank" in ranks["psi_reason"]
    constant = agreement(np.full(5, 0.1), np.arange(5) / 10, comparable=True)
    assert (constant["spearman"], constant["kendall"]) == (None, None)
    assert constant["reason"] == "the incumbent gives every journey the same score"


def test_percentiles_keep_order_and_ties():
    np.testing.assert_allclose(percentiles(np.array([300.0, -2.0, 7.0, 7.0])), [4 / 5, 1 / 5, 2.5 / 5, 2.5 / 5])


def test_largest_disagreements_come_first():
    rows = disagreements(np.array([0.1, 0.5, 0.2, 0.9]), np.array([0.2, 0.1, 0.2, 0.5]), listed=3)
    assert rows.tolist() == [1, 3, 0]
