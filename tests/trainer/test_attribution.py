"""Shapley values against games worked out by hand; the rules; what they sum to."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from trainer import attribution
from trainer.attribution import RULES, by_rule, shapley


def _game(table: dict[tuple[int, ...], float]):
    def value(journey: np.ndarray, coalition: np.ndarray) -> np.ndarray:
        return np.array([table[tuple(np.flatnonzero(row))] for row in coalition])

    return value


def _exact(table: dict[tuple[int, ...], float], players: int) -> np.ndarray:
    """By the definition: the mean marginal contribution over all orders."""
    found = np.zeros(players)
    for order in itertools.permutations(range(players)):
        for place, player in enumerate(order):
            before = tuple(sorted(order[:place]))
            found[player] += table[tuple(sorted((*before, player)))] - table[before]
    return found / math.factorial(players)


def test_two_players_by_hand() -> None:
    """v: nobody 0.1, A 0.2, B 0.3, both 0.5. A: (0.1 + 0.2) / 2, B: (0.2 + 0.3) / 2, of 0.5."""
    game = _game({(): 0.1, (0,): 0.2, (1,): 0.3, (0, 1): 0.5})
    found = shapley(np.ones((1, 2), bool), game, orders=2)
    assert found.credit[0] == pytest.approx([0.15 / 0.5, 0.25 / 0.5])
    assert found.without == pytest.approx([0.1 / 0.5])


def test_sampling_meets_the_exact_values_and_knows_its_error() -> None:
    generator = np.random.default_rng(0)
    subsets = [s for size in range(6) for s in itertools.combinations(range(5), size)]
    table = {subset: float(generator.uniform(0.1, 1)) for subset in subsets}
    exact = _exact(table, 5) / table[0, 1, 2, 3, 4]
    errors, claimed = [], []
    for seed in range(60):
        found = shapley(np.ones((1, 5), bool), _game(table), orders=32, seed=seed)
        errors.append(found.credit[0] - exact)
        claimed.append(found.se)
        assert found.credit.sum() + found.without.sum() == pytest.approx(1, abs=1e-12)
    errors = np.array(errors)
    assert (np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0) / np.sqrt(60)).all()
    assert np.sqrt(np.square(claimed).mean(axis=0)) == pytest.approx(errors.std(axis=0), rel=0.35)


def test_who_has_no_part_gets_no_credit_and_each_coalition_is_asked_once() -> None:
    asked: list[tuple[int, ...]] = []

    def value(journey: np.ndarray, coalition: np.ndarray) -> np.ndarray:
        asked.extend((int(j), *map(int, row)) for j, row in zip(journey, coalition, strict=True))
        return 0.1 + 0.2 * coalition.sum(axis=1) + 0.1 * journey

    found = shapley(np.array([[True, False, True], [False, False, False]]), value, orders=8)
    assert len(asked) == len(set(asked)) == 4 + 1
    assert found.credit[0] == pytest.approx([0.4, 0, 0.4])
    assert found.credit[1] == pytest.approx([0, 0, 0])
    assert found.without == pytest.approx([0.2, 1])


def test_journeys_are_taken_some_at_a_time_and_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    present, weight = generator.random((50, 4)) < 0.7, generator.random((50, 4))
    asked: list[set[int]] = []

    def value(journey: np.ndarray, coalition: np.ndarray) -> np.ndarray:
        asked.append(set(journey.tolist()))
        return 0.1 + (weight[journey] * coalition).sum(axis=1) ** 1.5

    whole = shapley(present, value, seed=3)
    monkeypatch.setattr(attribution, "_AT_ONCE", 20)
    parts = shapley(present, value, seed=3)
    assert asked == [set(range(50)), set(range(20)), set(range(20, 40)), set(range(40, 50))]
    np.testing.assert_array_equal(parts.credit, whole.credit)
    np.testing.assert_array_equal(parts.without, whole.without)
    np.testing.assert_allclose(parts.se, whole.se, rtol=1e-12)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="even"):
        shapley(np.ones((1, 2), bool), lambda j, c: np.ones(len(j)), orders=3)
    with pytest.raises(ValueError, match="above 0"):
        shapley(np.ones((1, 2), bool), lambda j, c: np.zeros(len(j)))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("last touch", [0, 1, 2]),
        ("first touch", [2, 1, 0]),
        ("linear", [2 / 4 + 1 / 2, 1 + 1 / 4, 1 / 4 + 1 / 2]),
        ("position", [0.4 + 0.1 + 0.5, 1 + 0.1, 0.4 + 0.5]),
    ],
)
def test_rules_by_hand(rule: str, expected: list[float]) -> None:
    """Journeys 0 0 1 2, then 1, then 0 2, and one without a touch."""
    touches = [np.array([0, 0, 1, 2]), np.array([1]), np.array([0, 2]), np.array([], int)]
    assert by_rule(rule, touches, 3) == pytest.approx(expected)


@pytest.mark.parametrize("rule", RULES)
def test_rules_share_out_each_conversion_once(rule: str) -> None:
    generator = np.random.default_rng(0)
    touches = [generator.integers(0, 4, generator.integers(0, 7)) for _ in range(200)]
    assert by_rule(rule, touches, 4).sum() == pytest.approx(sum(len(one) > 0 for one in touches))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of last touch"):
        by_rule("middle", [np.array([0])], 1)
