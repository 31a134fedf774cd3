"""Qini and AUUC against a table worked out by hand, and against scikit-uplift where the definitions agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklift.metrics import qini_curve, uplift_curve

from tests.trainer.true_effects import of_true_effects
from trainer import learners
from trainer.qini import Ranking, area_above_chance, deciles, measured

UPLIFT = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 0, 1, 0], bool)
CONVERTED = np.array([1, 0, 0, 1, 1, 0], bool)


def _drawn(seed: int, rows: int = 4_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(ranking, converted, treated, effect): an effect that the ranking follows, ties among it."""
    generator = np.random.default_rng(seed)
    effect = generator.choice([0.0, 0.1, 0.3], rows)
    treated = generator.random(rows) < 0.6
    converted = generator.random(rows) < 0.2 + effect * treated
    return effect.round(2), converted, treated, effect


def test_by_hand() -> None:
    """After each assignment, (N_t, N_c, Y_t, Y_c): 1010, 1110, 2110, 2211, 3221, 3321; three are treated in all."""
    curves = Ranking(UPLIFT, CONVERTED, TREATED).curves()
    assert curves.share == pytest.approx(np.arange(7) / 6)
    assert curves.qini == pytest.approx(np.array([0, 2, 2, 2, 0, 1, 2]) / 6)
    assert curves.uplift == pytest.approx([0, 1 / 6, 1 / 3, 1 / 4, 0, 5 / 36, 1 / 3])
    assert curves.coefficient == pytest.approx(4 / 18 - 1 / 6)
    assert curves.auuc == pytest.approx(76 / 72 / 6)


def test_a_ranking_that_ties_all_is_chance() -> None:
    curves = Ranking(np.zeros(6), CONVERTED, TREATED).curves()
    assert len(curves.share) == 2
    assert curves.coefficient == 0
    assert curves.auuc == pytest.approx(curves.uplift[-1] / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_curves_are_those_of_scikit_uplift(seed: int) -> None:
    uplift, converted, treated, _ = _drawn(seed)
    uplift = uplift + np.random.default_rng(seed).choice([0, 0.001], len(uplift))
    curves = Ranking(uplift, converted, treated).curves()
    for mine, theirs, scale in (
        (curves.qini, qini_curve, treated.sum()),
        (curves.uplift, uplift_curve, len(uplift)),
    ):
        taken, height = theirs(converted.astype(int), uplift, treated.astype(int))
        assert curves.share == pytest.approx(taken / len(uplift))
        assert mine == pytest.approx(height / scale)


def test_weights_are_repetitions() -> None:
    uplift, converted, treated, _ = _drawn(7, 300)
    weight = np.random.default_rng(1).integers(0, 4, 300)
    weighted = Ranking(uplift, converted, treated).curves(weight.astype(float))
    repeated = Ranking(*(np.repeat(one, weight) for one in (uplift, converted, treated))).curves()
    assert weighted.coefficient == pytest.approx(repeated.coefficient)
    assert weighted.auuc == pytest.approx(repeated.auuc)


def test_the_measured_qini_is_that_of_the_true_effects() -> None:
    """Curves from outcomes are unbiased: over many draws their mean is the truth's."""
    found, truth = [], []
    for seed in range(40):
        uplift, converted, treated, effect = _drawn(seed)
        found.append(Ranking(uplift, converted, treated).curves().coefficient)
        truth.append(of_true_effects(uplift, effect))
    error = np.array(found) - np.array(truth)
    assert abs(error.mean()) < 4 * error.std(ddof=1) / np.sqrt(len(error))
    assert np.mean(truth) > 0.03


def test_true_effects_by_hand() -> None:
    """Effects 0.3, 0.1, 0.2, 0 in this order: heights 0.075, 0.1, 0.15, 0.15 at quarters; the line ends at 0.15."""
    effect = np.array([0.3, 0.1, 0.2, 0.0])
    area = (0.075 / 2 + (0.075 + 0.1) / 2 + (0.1 + 0.15) / 2 + 0.15) / 4
    assert of_true_effects(np.array([4.0, 3, 2, 1]), effect) == pytest.approx(area - 0.075)
    assert of_true_effects(np.zeros(4), effect) == pytest.approx(0)
    assert area_above_chance(np.array([0.0, 1.0]), np.array([0.0, 5.0])) == 0


def test_intervals_tell_a_ranking_from_chance() -> None:
    uplift, converted, treated, _ = _drawn(3)
    customer = np.arange(len(uplift))
    good = measured(uplift, converted, treated, customer)
    assert good["better_than_chance"]
    assert good["qini"]["low"] < good["qini"]["value"] < good["qini"]["high"]
    chance = measured(np.random.default_rng(0).random(len(uplift)), converted, treated, customer)
    assert not chance["better_than_chance"]
    assert chance["qini"]["low"] < 0 < chance["qini"]["high"]


def test_a_ranking_learnt_from_the_outcomes_that_judge_it_has_wider_intervals() -> None:
    """Nobody is moved more than another: 95 % of the intervals must hold 0; those under a fixed ranking don't."""
    held = {True: 0, False: 0}
    for seed in range(100):
        generator = np.random.default_rng(seed)
        features, treated = generator.normal(size=(400, 8)), generator.random(400) < 0.5
        converted = generator.random(400) < 0.2 + 0.1 * treated
        folds = learners.Folds(np.zeros(400, np.int64), np.arange(400) % 5)
        outcome = (converted - converted.mean()) * np.where(treated, 2.0, -2.0)  # its mean is the effect
        ranking = learners.cross_fitted(features, outcome, folds, _least_squares)
        ranking = learners.levelled(ranking, folds.predicted())
        for learnt in held:
            found = measured(ranking, converted, treated, np.arange(400), learnt_here=learnt, draws=60)["qini"]
            held[learnt] += found["low"] <= 0 <= found["high"]
    assert held[True] >= 89, held  # 95 expected; fewer in 1 of 100 such tests
    assert held[False] < 86, held


def _least_squares(features: np.ndarray, outcome: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    slope = np.linalg.lstsq(np.column_stack([np.ones(len(features)), features]), outcome, rcond=None)[0]
    return lambda asked: slope[0] + asked @ slope[1:]


def test_deciles() -> None:
    uplift, converted, treated, _ = _drawn(3)
    rows = deciles(uplift, converted, treated, np.arange(len(uplift)))
    assert [row["assignments"] for row in rows] == [400] * 10
    assert rows[0]["low"] < 0.3 < rows[0]["high"]
    assert rows[0]["predicted"] == pytest.approx(0.3)
    few = deciles(UPLIFT, CONVERTED, TREATED, np.arange(6))
    assert all(row["value"] is None for row in few)  # one assignment a tenth has no other arm
