"""The exact probabilities of the simulated process, by dynamic programming over its states.

Backward: the chance of no purchase from a day to the end of a horizon, for every state, through every bundle and every
future assignment. Forward: how customers spread over the states, which gives the intercept for a wished base rate.
Vectors are float64 [groups * states], states within a group together, in the order of hazard.Process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from preprocessing.bundles import EFFECTS, PURCHASE, STAY
from preprocessing.cli import UserError
from preprocessing.hazard import ACTIVITY_SHARES, FLAGS, GROUPS, SEGMENT_SHARES, Floats, Process
from preprocessing.waves import Wave

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EFFECT_HORIZON = 30  # days over which a campaign's effect is told


class Days:
    """The one-day transition matrices of a process, which share one sparsity pattern."""

    def __init__(self, process: Process) -> None:
        self.process = process
        offsets = np.arange(GROUPS)[:, None, None] * process.states
        self._columns = (process.transition + offsets).reshape(-1).astype(np.int32)
        self._moving = process.effect_rates.sum(axis=1)  # [states]; a sum per day would take a third of the time
        self._rows = np.arange(0, self._columns.size + 1, len(EFFECTS), dtype=np.int32)

    def matrix(self, day: int, survivors_only: bool) -> csr_array:
        """P(state on the next morning | state after the day's touches); without those who buy if survivors_only."""
        from scipy.sparse import csr_array

        process = self.process
        hazard = process.hazard(day)
        rates = process.activity[:, None] * process.activity_of_day(day)
        data = process.effect_rates * (rates * (1 - hazard))[:, :, None]
        data[:, :, STAY] = (1 - hazard) * (1 - rates * self._moving)
        data[:, :, PURCHASE] = 0 if survivors_only else hazard
        size = self._rows.size - 1
        return csr_array((data.reshape(-1), self._columns, self._rows), shape=(size, size))

    def treated(self, wave: Wave) -> Floats:
        """float64 [groups * states]: P(touched by the wave | state)."""
        return self.process.audience * self.process.propensity(wave.campaign).reshape(-1)


def _touched(values: Floats, bit: int) -> Floats:
    """values[state with the bit set], for each state: [groups * states, columns] to the same."""
    by_flags = values.reshape(-1, FLAGS, *values.shape[1:])
    return by_flags[:, np.arange(FLAGS) | bit].reshape(values.shape)


def _untouched(values: Floats) -> Floats:
    """values[state with no flags], for each state."""
    by_flags = values.reshape(-1, FLAGS, *values.shape[1:])
    return by_flags[:, np.zeros(FLAGS, np.int64)].reshape(values.shape)


def purchase_probabilities(
    process: Process, wanted: Iterable[tuple[int, int]], waves: Iterable[Wave] = ()
) -> tuple[dict[tuple[int, int], Floats], dict[int, tuple[Floats, Floats]]]:
    """P(a purchase in [day, day + horizon) | state at midnight of the day), exactly.

    wanted: (day, horizon) in days; day + horizon must not pass process.days (else ValueError).
    Returns by (day, horizon) float64 [groups, states], and by each wave's day the pair (treated, control) of the same
    shape: P within EFFECT_HORIZON days by assignment, later assignments left to chance. Waves that the data do not
    outlast by EFFECT_HORIZON are left out.
    """
    wanted = set(wanted)
    effects = {w.day for w in waves if w.day + EFFECT_HORIZON <= process.days}
    starts: dict[int, int] = {}  # by last day (exclusive): the earliest day that asks for it
    for day, horizon in wanted | {(day, EFFECT_HORIZON) for day in effects}:
        if not 0 <= day < day + horizon <= process.days:
            raise ValueError(f"day {day} and horizon {horizon} leave the {process.days} days of the process")
        starts[day + horizon] = min(day, starts.get(day + horizon, day))

    shape = (GROUPS, process.states)
    days = Days(process)
    probabilities: dict[tuple[int, int], Floats] = {}
    by_arm: dict[int, tuple[Floats, Floats]] = {}
    ends: list[int] = []
    survival = np.empty((GROUPS * process.states, 0))
    for day in range(max(starts, default=0) - 1, -1, -1):
        kept = [i for i, end in enumerate(ends) if starts[end] <= day]
        survival = survival[:, kept]
        ends = [ends[i] for i in kept]
        if day + 1 in starts:
            ends.append(day + 1)
            survival = np.hstack([survival, np.ones((len(survival), 1))])
        if not ends:
            continue
        survival = days.matrix(day, survivors_only=True) @ survival
        if wave := process.waves.get(day):
            touched = _touched(survival, wave.bit)
            if day in effects:
                column = ends.index(day + EFFECT_HORIZON)
                by_arm[day] = (1 - touched[:, column].reshape(shape), 1 - survival[:, column].reshape(shape))
            chance = days.treated(wave)[:, None]
            survival = chance * touched + (1 - chance) * survival
        if process.forgets_touches(day):
            survival = _untouched(survival)
        for end in ends:
            if (day, end - day) in wanted:
                probabilities[day, end - day] = 1 - survival[:, ends.index(end)].reshape(shape)
    return probabilities, by_arm


def group_shares() -> Floats:
    """float64 [groups]: the share of customers in each."""
    return np.outer(SEGMENT_SHARES, ACTIVITY_SHARES).reshape(-1)


def state_shares(process: Process, wanted: Iterable[int]) -> dict[int, Floats]:
    """By day: float64 [groups, states], the expected share of customers in each state at its midnight; sums to 1."""
    wanted = set(wanted)
    days = Days(process)
    start = np.zeros((GROUPS, process.states))
    start[:, 0] = group_shares()
    shares = start.reshape(-1)
    found: dict[int, Floats] = {}
    for day in range(max(wanted) + 1):
        if day in wanted:
            found[day] = shares.reshape(GROUPS, process.states)
        by_flags = shares.reshape(-1, FLAGS).copy()
        if process.forgets_touches(day):
            by_flags[:, 0] = by_flags.sum(axis=1)
            by_flags[:, 1:] = 0
        wave = process.waves.get(day)
        if wave and wave.bit:
            moving = by_flags * days.treated(wave).reshape(-1, FLAGS)
            by_flags -= moving
            for flags in range(FLAGS):
                by_flags[:, flags | wave.bit] += moving[:, flags]
        shares = days.matrix(day, survivors_only=False).T @ by_flags.reshape(-1)
    return found


def calibrated(process: Process, base_rate: float, days: Iterable[int], horizon: int = 30) -> Process:
    """The process with the intercept at which the mean probability over customers and days is base_rate.

    Rare purchases are near proportional to exp(intercept), so log(base_rate / mean) is the step.
    Raises UserError where no intercept gives it.
    """
    days = list(days)
    for _ in range(30):
        shares = state_shares(process, days)
        probabilities, _ = purchase_probabilities(process, [(day, horizon) for day in days])
        mean = float(np.mean([(shares[day] * probabilities[day, horizon]).sum() for day in days]))
        step = math.log(base_rate / mean)
        if abs(step) < 1e-4:
            return process
        process = process.with_intercept(process.intercept + step)
    raise UserError(f"--base_rate {base_rate}: the simulated customers cannot buy at this rate; expected at most 0.2")
