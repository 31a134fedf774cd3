"""Learners on drawn customers whose effects are known; what is out of fold must be so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.trainer.true_effects import of_true_effects
from trainer import learners
from trainer.learners import Folds


def _folds(rows: int, seed: int = 0) -> Folds:
    generator = np.random.default_rng(seed)
    return Folds(generator.integers(0, 2, rows), generator.integers(0, learners.PARTS, rows))


def _drawn(rows: int = 12_000) -> dict[str, np.ndarray]:
    """Two hidden traits: one moves buying, the other what the campaign does; the state holds both, turned."""
    generator = np.random.default_rng(0)
    folds = _folds(rows)
    trait = generator.normal(size=(rows, 2))
    without = 0.3 / (1 + np.exp(-trait[:, 0]))
    effect = 0.3 / (1 + np.exp(-2 * trait[:, 1]))
    treated = generator.random(rows) < 0.5
    converted = generator.random(rows) < without + effect * treated
    turned = np.where(folds.network[:, None] == 0, trait, trait[:, ::-1] * [-1, 1])
    state = np.column_stack([turned, generator.normal(0, 0.1, size=(rows, 4))]).astype(np.float32)
    return {"state": state, "without": without, "effect": effect, "treated": treated, "converted": converted}


def test_every_row_is_predicted_by_models_that_never_saw_its_part() -> None:
    folds = _folds(600)
    rows = np.arange(600.0)[:, None]
    seen: list[set[int]] = []

    def fit(features: np.ndarray, target: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        seen.append({int(row) for row in features[:, 0]})
        number = len(seen) - 1
        return lambda asked: np.full(len(asked), number)

    by = learners.cross_fitted(rows, np.zeros(600), folds, fit).astype(int)
    for row in range(600):
        learnt = np.array(sorted(seen[by[row]]))
        assert (folds.network[learnt] == folds.network[row]).all()
        assert (folds.part[learnt] != folds.part[row]).all()


def test_each_heads_effects_are_brought_to_one_mean() -> None:
    """Heads that know the mean of the others alone rank against the truth; brought to one mean they do not rank."""
    found = learners.levelled(
        np.array([1.0, 2.0, 5.0, 6.0]), [np.array([True, True, False, False]), np.array([False, False, True, True])]
    )
    np.testing.assert_allclose(found, [3.0, 4.0, 3.0, 4.0])  # 3.5 in all, 1.5 and 5.5 in the groups
    folds, generator = _folds(600), np.random.default_rng(1)
    outcome = generator.normal(size=600)

    def mean(_: np.ndarray, target: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda asked: np.full(len(asked), target.mean())

    by = learners.cross_fitted(np.zeros((600, 1)), outcome, folds, mean)
    inside = folds.network == 0
    assert np.corrcoef(by[inside], outcome[inside])[0, 1] < 0  # what is wrong with it
    levelled = learners.levelled(by, folds.predicted())
    np.testing.assert_allclose(levelled, by.mean())


def test_learners_find_whom_the_campaign_moves() -> None:
    drawn, folds = _drawn(), _folds(12_000)
    score = np.full((12_000, 1), 0.3)
    rich = learners.inputs(score, np.zeros((12_000, 0)), drawn["state"], folds)
    arms = learners.arms(rich, drawn["converted"], drawn["treated"], folds)
    half = np.full(12_000, 0.5)
    found = learners.doubly_robust_learner(rich, drawn["converted"], drawn["treated"], half, arms, folds=folds)
    best = of_true_effects(drawn["effect"], drawn["effect"])
    assert of_true_effects(arms[1] - arms[0], drawn["effect"]) > 0.8 * best
    assert of_true_effects(found, drawn["effect"]) > 0.8 * best
    assert np.corrcoef(arms[0], drawn["without"])[0, 1] > 0.8


def test_the_propensity_is_found_and_lots_are_not_foretold() -> None:
    generator = np.random.default_rng(5)
    folds, x = _folds(6_000), generator.normal(size=(6_000, 3))
    chance = 1 / (1 + np.exp(-x[:, 0]))
    found = learners.propensity(x, generator.random(6_000) < chance, folds)
    assert np.abs(found - chance).mean() < 0.03
    drawn = learners.propensity(x, generator.random(6_000) < 0.5, folds)
    assert np.abs(drawn - 0.5).mean() < 0.03


def test_an_effect_head_with_too_little_to_learn_from_is_a_constant() -> None:
    asked = np.ones((3, 2))
    assert learners.effect_head(np.zeros((0, 2)), np.zeros(0))(asked).tolist() == [0, 0, 0]
    assert learners.effect_head(asked, np.array([0.1, 0.2, 0.6]))(asked) == pytest.approx([0.3] * 3)


def test_a_network_that_scored_one_part_alone_does_not_stop_the_learners() -> None:
    """Network 1 has assignments of part 3 only: nothing is left to learn their head from."""
    generator = np.random.default_rng(0)
    folds = Folds(np.repeat([0, 1], [400, 5]), np.concatenate([np.arange(400) % learners.PARTS, np.full(5, 3)]))
    features, treated = generator.normal(size=(405, 2)), generator.random(405) < 0.5
    converted, half = generator.random(405) < 0.3, np.full(405, 0.5)
    arms = learners.arms(features, converted, treated, folds)
    found = learners.doubly_robust_learner(features, converted, treated, half, arms, folds=folds)
    assert np.isfinite(found).all()
    assert found[400:].tolist() == [0] * 5


def test_a_head_without_conversions_is_a_constant_above_zero() -> None:
    head = learners.probability_head(np.zeros((30, 2)), np.zeros(30))
    assert head(np.zeros((2, 2))) == pytest.approx([0.5 / 31] * 2)
