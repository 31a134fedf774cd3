"""Customers drawn from the simulated process: their fields, what they do each day, and the events that this shows.

All arrays of a population are numpy, one entry a customer, an occurrence (a bundle on a day) or an assignment; strings
stay codes until simulate.py writes them. Everything follows from the generator that is passed in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.bundles import PURCHASE, PURCHASES, STAY
from preprocessing.hazard import FLAGS, Floats, Ints, Process
from preprocessing.truth import group_shares
from preprocessing.waves import Wave

COUNTRIES = ("FR", "BE", "CH", "LU")
COUNTRY_SHARES = (0.86, 0.07, 0.05, 0.02)
CONSENT_SHARE = 0.95
BIRTHDAY_SHARE = 0.1  # customers with a second, later row

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
TOUCH_HOURS = (7.0, 9.5)  # touches come before noon, sessions after: neither interrupts the other
SESSION_HOURS = (12.0, 21.0)
MONEY = {"add_to_cart": (3.8, 0.6, 1), "purchase": (4.1, 0.7, 1), "return": (3.6, 0.6, -1)}  # log mean, log sd, sign


@dataclass(frozen=True)
class Population:
    """What became of `size` customers; `state[i, c]` is customer c's state at midnight of the i-th day asked for."""

    size: int
    group: Ints
    age: Ints
    country: Ints
    consent: NDArray[np.bool_]
    known_since: Ints  # UTC microseconds
    birthday: Ints  # UTC microseconds, -1: none within the data
    state: NDArray[np.int16]
    occurrence_customer: Ints
    occurrence_day: Ints
    occurrence_bundle: Ints
    assignments: list[tuple[Wave, Assigned]]


@dataclass(frozen=True)
class Assigned:
    """The audience of one wave: `state` is each one's state at the assignment."""

    customer: Ints
    state: Ints
    propensity: Floats
    treated: NDArray[np.bool_]


class Draws:
    """What a process looks up each day, prepared once for all populations."""

    def __init__(self, process: Process) -> None:
        self.process = process
        rates = process.bundle_rates
        self.total_rate = rates.sum(axis=1)  # [states]
        self.cumulative = np.cumsum(rates, axis=1) / self.total_rate[:, None]
        self.cumulative[:, -1] = 1.0
        bundles = process.all_bundles
        self.effect = np.array([bundle.effect for bundle in bundles])
        first = next(code for code, bundle in enumerate(bundles) if bundle.effect == PURCHASE)
        self.purchases = first + np.arange(len(PURCHASES))
        self.purchase_shares = np.cumsum([share for _, share in PURCHASES])
        self.touches = {
            campaign.name: np.array([c for c, bundle in enumerate(bundles) if bundle.campaign == campaign.name])
            for campaign in process.campaigns
        }

    @functools.cached_property
    def hazards(self) -> list[Floats]:
        """By day: float64 [groups * states]."""
        return [self.process.hazard(day).reshape(-1) for day in range(self.process.days)]


def draw(
    draws: Draws, size: int, rng: np.random.Generator, days: Iterable[int], on_day: Callable[[], object]
) -> Population:
    """Simulates `size` customers from the process's first day to its last; `days` are those whose state is kept."""
    process = draws.process
    group = np.searchsorted(np.cumsum(group_shares())[:-1], rng.random(size), side="right")
    has_birthday = rng.random(size) < BIRTHDAY_SHARE
    birthday = process.first_us + rng.integers(DAY_US, process.days * DAY_US, size)
    fields = {
        "group": group,
        "age": np.clip(rng.normal(44, 14, size).round(), 18, 90).astype(np.int64),
        "country": np.searchsorted(np.cumsum(COUNTRY_SHARES)[:-1], rng.random(size), side="right"),
        "consent": rng.random(size) < CONSENT_SHARE,
        "known_since": process.first_us - rng.integers(DAY_US, 720 * DAY_US, size),
        "birthday": np.where(has_birthday, birthday, -1),
    }
    factor = process.activity[group]
    offset = group * process.states  # into hazards, which are flat
    state = np.zeros(size, np.int64)
    kept: dict[int, NDArray[np.int16]] = {day: np.empty(0, np.int16) for day in days}
    seen: list[tuple[Ints, int, Ints]] = []
    assignments: list[tuple[Wave, Assigned]] = []
    for day in range(process.days):
        if day in kept:
            kept[day] = state.astype(np.int16)
        if process.forgets_touches(day):
            state = state - state % FLAGS
        if wave := process.waves.get(day):
            assigned, bundles = _assign(draws, wave, state, offset, rng)
            assignments.append((wave, assigned))
            touched = assigned.customer[assigned.treated]
            state[touched] |= wave.bit
            seen.append((touched, day, bundles))
        hazard = draws.hazards[day][offset + state]
        chance = hazard + (1 - hazard) * factor * process.activity_of_day(day) * draws.total_rate[state]
        uniform = rng.random(size)
        active = np.flatnonzero(uniform < chance)
        bundles = _bundles(draws, uniform[active], hazard[active], chance[active], state[active])
        effect = np.full(size, STAY)
        effect[active] = draws.effect[bundles]
        state = process.transition[state, effect]
        seen.append((active, day, bundles))
        on_day()
    return Population(
        size=size,
        **fields,
        state=np.array(list(kept.values())),
        occurrence_customer=np.concatenate([customers for customers, _, _ in seen]),
        occurrence_day=np.concatenate([np.full(len(customers), day) for customers, day, _ in seen]),
        occurrence_bundle=np.concatenate([bundles for _, _, bundles in seen]),
        assignments=assignments,
    )


def _assign(draws: Draws, wave: Wave, state: Ints, offset: Ints, rng: np.random.Generator) -> tuple[Assigned, Ints]:
    """The wave's audience, and the touch bundle of each treated one: likely buyers also open and click more."""
    process = draws.process
    audience = np.flatnonzero(rng.random(len(state)) < process.audience)
    propensity = process.propensity(wave.campaign).reshape(-1)[(offset + state)[audience]]
    treated = rng.random(len(audience)) < propensity
    touched = state[audience[treated]]
    codes = draws.touches[wave.campaign.name]
    chances = ((0.3, 0.25) if wave.campaign.channel == "email" else (0.08,))[: len(codes) - 1]
    reached = np.ones(len(touched), bool)
    depth = np.zeros(len(touched), np.int64)
    for chance in chances:
        reached &= rng.random(len(touched)) < chance * (1 + 0.25 * process.stage[touched])
        depth += reached
    return Assigned(audience, state[audience], propensity, treated), codes[depth]


def _bundles(draws: Draws, uniform: Floats, hazard: Floats, chance: Floats, state: Ints) -> Ints:
    """The bundle of each active customer, by `uniform` < `chance`: below `hazard` a purchase, else by the rates."""
    buys = uniform < hazard
    purchase = draws.purchases[np.searchsorted(draws.purchase_shares[:-1], uniform / np.maximum(hazard, 1e-300))]
    rest = (uniform - hazard) / np.maximum(chance - hazard, 1e-300)
    other = (draws.cumulative[state] <= rest[:, None]).sum(axis=1)
    return np.where(buys, purchase, np.minimum(other, draws.cumulative.shape[1] - 1))


@dataclass(frozen=True)
class Events:
    """One entry an event; codes index `types`, `channels` and `campaigns`; campaign -1 is none; amount NaN is none."""

    customer: Ints
    time: Ints  # UTC microseconds
    ingest_time: Ints
    type: Ints
    channel: Ints
    campaign: Ints
    amount: Floats
    types: list[str]
    channels: list[str]
    campaigns: list[str]


def events_of(process: Process, population: Population, rng: np.random.Generator) -> Events:
    """The events that the occurrences show, from 07:00 to 22:00 UTC, ingested within the hour: on the same day."""
    bundles = process.all_bundles
    types = sorted({event_type for bundle in bundles for event_type, _ in bundle.events})
    channels = sorted({channel for bundle in bundles for _, channel in bundle.events})
    campaigns = [campaign.name for campaign in process.campaigns]
    lengths = np.array([len(bundle.events) for bundle in bundles])
    type_of = np.zeros((len(bundles), lengths.max()), np.int64)
    channel_of = np.zeros_like(type_of)
    for code, bundle in enumerate(bundles):
        for place, (event_type, channel) in enumerate(bundle.events):
            type_of[code, place] = types.index(event_type)
            channel_of[code, place] = channels.index(channel)
    campaign_of = np.array([campaigns.index(b.campaign) if b.campaign else -1 for b in bundles])

    code_of = population.occurrence_bundle
    count = lengths[code_of]
    row = np.repeat(np.arange(len(code_of)), count)
    ends = np.cumsum(count)
    place_of = np.arange(len(row)) - np.repeat(ends - count, count)
    hours = np.where((campaign_of >= 0)[code_of, None], TOUCH_HOURS, SESSION_HOURS)
    start = (hours[:, 0] + rng.random(len(code_of)) * (hours[:, 1] - hours[:, 0])) * HOUR_US
    start = start.astype(np.int64) + population.occurrence_day * DAY_US + process.first_us
    steps = rng.integers(MINUTE_US // 3, 9 * MINUTE_US, len(row))  # between the events of one bundle
    elapsed = np.cumsum(steps)
    elapsed -= np.repeat(elapsed[ends - count], count) if len(row) else 0
    time = start[row] + elapsed

    types_seen = type_of[code_of[row], place_of]
    amount = np.full(len(row), np.nan)
    for name, (log_mean, log_sd, sign) in MONEY.items():
        at = np.flatnonzero(types_seen == types.index(name))
        amount[at] = sign * np.round(rng.lognormal(log_mean, log_sd, len(at)), 2)
    late = np.minimum(rng.exponential(4 * MINUTE_US, len(row)), HOUR_US).astype(np.int64)
    return Events(
        customer=population.occurrence_customer[row],
        time=time,
        ingest_time=time + 1 + late,
        type=types_seen,
        channel=channel_of[code_of[row], place_of],
        campaign=campaign_of[code_of[row]],
        amount=amount,
        types=types,
        channels=channels,
        campaigns=campaigns,
    )
