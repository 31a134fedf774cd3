"""What each touch is credited with along converting journeys: Shapley values by the model, beside simple rules.

A player is a channel, or a campaign. v(S) is the model's probability of a journey that keeps only events of the players
in S (and events of no player). A player's Shapley value is its marginal contribution v(S + player) - v(S), averaged
over all orders in which the players may come (Shapley 1953); orders are sampled here, each beside its reverse, which
takes noise out (Castro, Gomez & Tejada 2009; Mitchell et al. 2022). One conversion is one: contributions are divided by
v(all), and what is left, v(nobody) / v(all), is the share that the model gives without any touch. So the shares of a
journey, that remainder among them, sum to 1, exactly, however few orders are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.experiment import Floats, Ints

ORDERS = 16  # sampled a journey, an even number
_AT_ONCE = 2_000  # journeys whose coalitions are held in memory: with 12 players some 45 MB, and as much to sort them
FIRST_SHARE = LAST_SHARE = 0.4  # the position rule's; the touches between share the rest
RULES = ("last touch", "first touch", "linear", "position")


@dataclass(frozen=True)
class Shapley:
    """credit: float64 [journeys, players], NaN nowhere, 0 where a player has no part; se: float64 [players], of the
    summed credits, from the sampling of orders; without: float64 [journeys], the part of no player."""

    credit: Floats
    se: Floats
    without: Floats


def shapley(
    present: NDArray[np.bool_],
    value: Callable[[Ints, NDArray[np.bool_]], Floats],
    *,
    orders: int = ORDERS,
    seed: int = 0,
) -> Shapley:
    """Shapley values of journeys.

    present: bool [journeys, players], who touched the journey. value(journey, coalition) gives v, float64 [m], for
    int64 [m] rows of present and bool [m, players]; it is asked once for each different coalition, of some thousand
    journeys at a time.
    Raises ValueError where orders is not even and above 0, or v(all) is not above 0.
    """
    if orders < 2 or orders % 2:
        raise ValueError(f"orders: expected an even number from 2 on, got {orders}")
    generator = np.random.default_rng(seed)
    credit, without = np.zeros(present.shape), np.zeros(len(present))
    variance = np.zeros(present.shape[1])
    for start in range(0, len(present), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)

        def asked(journey: Ints, coalition: NDArray[np.bool_], start: int = start) -> Floats:
            return value(start + journey, coalition)

        credit[rows], of_draws, without[rows] = _sampled(present[rows], asked, orders, generator)
        variance += of_draws
    return Shapley(credit, np.sqrt(variance), without)


def _sampled(
    present: NDArray[np.bool_],
    value: Callable[[Ints, NDArray[np.bool_]], Floats],
    orders: int,
    generator: np.random.Generator,
) -> tuple[Floats, Floats, Floats]:
    """(credit, the variance of its sum over the journeys from the sampling of orders, without), as Shapley has them."""
    journeys, players = present.shape
    half = np.argsort(generator.random((journeys, orders // 2, players)), axis=2)
    order = np.concatenate([half, half[:, :, ::-1]], axis=1)  # [journeys, orders, players]
    joined = np.zeros((journeys, orders, players + 1, players), bool)
    for step in range(players):
        joined[:, :, step + 1] = joined[:, :, step]
        np.put_along_axis(joined[:, :, step + 1], order[:, :, step, None], True, axis=2)
    joined &= present[:, None, None, :]
    asked = np.column_stack(
        [np.repeat(np.arange(journeys), orders * (players + 1)), joined.reshape(-1, players).astype(np.int64)]
    )
    different, place = np.unique(asked, axis=0, return_inverse=True)
    values = value(different[:, 0], different[:, 1:].astype(bool))
    by_step = values[place.reshape(-1)].reshape(journeys, orders, players + 1)
    whole, nobody = by_step[:, 0, -1], by_step[:, 0, 0]
    if not (whole > 0).all():
        raise ValueError("expected a probability above 0 of every whole journey")
    gains = np.zeros((journeys, orders, players))
    np.put_along_axis(gains, order, np.diff(by_step, axis=2), axis=2)
    gains /= whole[:, None, None]
    pairs = (gains[:, : orders // 2] + gains[:, orders // 2 :]) / 2  # an order and its reverse are one draw
    variance = np.zeros(players)
    if orders > 2:
        variance = (pairs.var(axis=1, ddof=1) / (orders // 2)).sum(axis=0)
    return gains.mean(axis=1), variance, nobody / whole


def by_rule(rule: str, touches: Sequence[NDArray[np.int64]], players: int) -> Floats:
    """float64 [players]: conversions credited by one of RULES.

    touches: for each journey the players of its touches, oldest first; one conversion each, none where there is no
    touch. position: 40 % to the first and to the last touch, the rest to those between; with two touches half each.
    Raises ValueError for another rule.
    """
    credit = np.zeros(players)
    for touched in touches:
        count = len(touched)
        if count:
            np.add.at(credit, touched, _shares(rule, count))
    return credit


def _shares(rule: str, count: int) -> Floats:
    """float64 [count], summing to 1."""
    shares = np.zeros(count)
    if rule == "last touch":
        shares[-1] = 1
    elif rule == "first touch":
        shares[0] = 1
    elif rule == "linear":
        shares[:] = 1 / count
    elif rule == "position":
        if count <= 2:
            shares[:] = 1 / count
        else:
            shares[:] = (1 - FIRST_SHARE - LAST_SHARE) / (count - 2)
            shares[0], shares[-1] = FIRST_SHARE, LAST_SHARE
    else:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    return shares
