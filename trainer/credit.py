"""The conversions of test journeys credited to their touches: by the model's Shapley values, and by simple rules.

An association in what the model has learnt, no cause: a channel that likely buyers use gets credit for their liking.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.spec import EventsSpec
from trainer.attribution import ORDERS, RULES, by_rule, shapley
from trainer.experiment import Flags, Floats, Ints
from trainer.outcomes import read_outcomes
from trainer.raw_journeys import Arrays, read_padded

MOST_JOURNEYS = 2_000
MOST_PLAYERS = 12  # the most frequent values; the rest is one player
OTHER = "(other)"
_BATCH = 2_048
Score = Callable[[Arrays], Floats]


def columns_of(spec: EventsSpec) -> list[str]:
    """What is credited: the campaign column, and a field that is called channel."""
    named = spec.campaigns.column if spec.campaigns else None
    return [name for name in dict.fromkeys(("channel", named)) if name in spec.sequence.categorical]


def credited(
    journeys: Path, spec: EventsSpec, columns: list[str], score: Score, *, most: int = MOST_JOURNEYS, seed: int = 0
) -> dict[str, Any]:
    """{"converted", "journeys", "columns": [{column, players, …}]}, of converting test journeys.

    score: padded journeys to P(converts within the primary horizon), float64 [n]. At most `most` journeys are taken, by
    lot. Each column's list of players sums, with `without`, to the journeys taken.
    """
    outcomes = read_outcomes(journeys, "test")
    known = outcomes.known(spec.primary_horizon, spec.gap_days)
    rows = np.flatnonzero(known & outcomes.converted(spec.primary_horizon))
    taken = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    found: dict[str, Any] = {"converted": len(rows), "journeys": len(taken), "columns": []}
    if len(taken):
        arrays = read_padded(journeys, "test", spec, outcomes.take(taken))
        sequence = ("event_time", *spec.sequence.categorical, *spec.sequence_numeric)
        found["columns"] = [_column(arrays, name, sequence, score, seed) for name in columns]
    return found


def _column(arrays: Arrays, name: str, sequence: tuple[str, ...], score: Score, seed: int) -> dict[str, Any]:
    players, player = _players(arrays, name)
    rows = len(player)
    touched = player >= 0
    present = np.zeros((rows, len(players)), bool)
    present[np.nonzero(touched)[0], player[touched]] = True

    def value(journey: Ints, coalition: Flags) -> Floats:
        parts = [slice(start, start + _BATCH) for start in range(0, len(journey), _BATCH)]
        return np.concatenate([score(_only(arrays, player, journey[p], coalition[p], sequence)) for p in parts])

    shares = shapley(present, value, orders=ORDERS, seed=seed)
    touches = [player[row, touched[row]] for row in range(rows)]
    rules = {rule: by_rule(rule, touches, len(players)) for rule in RULES}
    return {
        "column": name,
        "without": float(shares.without.sum()),
        "untouched": int((~present.any(axis=1)).sum()),
        "orders": ORDERS,
        "players": [
            {
                "name": player_name,
                "journeys": int(present[:, i].sum()),
                "shapley": float(shares.credit[:, i].sum()),
                "se": float(shares.se[i]),
                **{rule: float(credit[i]) for rule, credit in rules.items()},
            }
            for i, player_name in enumerate(players)
        ],
    }


def _players(arrays: Arrays, name: str) -> tuple[list[str], Ints]:
    """The players by falling number of events, and int64 [n, steps]: each event's player, -1 where it has none."""
    inside = np.arange(arrays[name].shape[1]) < arrays["length"][:, None]
    found, places, counts = np.unique(arrays[name][inside], return_inverse=True, return_counts=True)
    values = [value.decode() for value in found]
    order = sorted((i for i in range(len(values)) if values[i]), key=lambda i: (-counts[i], values[i]))
    number = np.full(len(values), -1)
    kept = order if len(order) <= MOST_PLAYERS else order[: MOST_PLAYERS - 1]
    number[order] = len(kept)
    number[kept] = np.arange(len(kept))
    player = np.full(inside.shape, -1)
    player[inside] = number[places]
    return [_spoken(values[i]) for i in kept] + [OTHER] * (len(order) > len(kept)), player


def _spoken(value: str) -> str:
    return "(rare)" if value == "__rare__" else value


def _only(arrays: Arrays, player: Ints, journey: Ints, coalition: Flags, sequence: tuple[str, ...]) -> Arrays:
    """The journeys without the events of players outside the coalition."""
    taken = {name: values[journey] for name, values in arrays.items()}
    of_event = player[journey]
    inside = np.arange(of_event.shape[1]) < taken["length"][:, None]
    plays = of_event >= 0
    member = np.take_along_axis(coalition, np.maximum(of_event, 0), axis=1) if coalition.shape[1] else plays
    kept = inside & (~plays | member)
    order = np.argsort(~kept, axis=1, kind="stable")
    taken |= {name: np.take_along_axis(taken[name], order, axis=1) for name in sequence}
    length = kept.sum(axis=1)
    steps = max(1, int(length.max(initial=0)))
    return taken | {name: taken[name][:, :steps] for name in sequence} | {"length": length}
