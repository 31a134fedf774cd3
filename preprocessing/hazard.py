"""The simulated customer: a finite automaton whose state is a function of the events that a journey shows.

Time runs in days. On each day a customer buys with a probability (the hazard) that depends on the state, the segment,
the season and the campaign touches; or else shows one bundle of events, or nothing. The bundle moves the state:

- intent is a stage from 0 (cold) to 4. A session in the order search → view → cart climbs one stage, the same events
  in the opposite order fall one, so counts of events say little about the stage and their order says much;
- a store visit up to three days after a click in an ordinary e-mail climbs too, the visit before the click does not;
- a stage that is not moved for a while (10 to 12 days) decays by one, so timing matters;
- a complaint to the call centre, and a purchase, keep the stage at 0 for some days;
- a campaign touches a customer at most twice; the exposure fades and its effect saturates.

Nothing is latent: whoever reads the events can follow the state, and truth.py computes every probability exactly.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.bundles import (
    BUNDLES,
    CLICK,
    CLIMB,
    COMPLAINT,
    EFFECTS,
    FALL,
    PURCHASE,
    PURCHASES,
    RETURN,
    STAY,
    VISIT,
    Bundle,
)
from preprocessing.waves import CAMPAIGNS, CYCLE_DAYS, CYCLE_START, Campaign, Wave

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEGMENTS = ("new", "regular", "loyal", "bargain")
SEGMENT_SHARES = (0.25, 0.40, 0.20, 0.15)
SEGMENT_LOG_ODDS = (-0.4, 0.0, 0.5, 0.1)
ACTIVITIES = ("low", "medium", "high")
ACTIVITY_SHARES = (0.35, 0.45, 0.20)
ACTIVITY_FACTORS = (0.3, 0.75, 1.2)
GROUPS = len(SEGMENTS) * len(ACTIVITIES)  # group = segment * len(ACTIVITIES) + activity

STAGES = 5
CLICK_DAYS = 3
FLAGS = 4  # bit 0: touched by a campaign's first wave, bit 1: by its second


@dataclass(frozen=True)
class Process:
    """The process between two dates. Days are counted from `first`; `last` is exclusive.

    Raises ValueError where the campaigns' windows overlap, since the state holds the touches of one at a time.
    """

    first: dt.date
    last: dt.date
    intercept: float = -10.05  # log odds of buying on a plain day at stage 0; truth.calibrated sets it
    campaigns: tuple[Campaign, ...] = CAMPAIGNS
    bundles: tuple[Bundle, ...] = BUNDLES
    stage_log_odds: tuple[float, ...] = (0.0, 1.9, 3.6, 4.8, 5.6)
    stage_days: tuple[int, ...] = (0, 12, 12, 10, 10)  # days that a stage lasts unmoved; 44 in all
    complaint_days: int = 14
    refractory_days: int = 7
    suppressed_log_odds: float = -1.0
    audience: float = 0.5  # the share of customers that a wave is planned for; the others have no assignment
    fading_days: float = 14.0
    saturation: float = 3.0
    seasonal: bool = True
    homogeneous_lift: float | None = None  # daily probability that a fresh touch of log odds 1 adds, alike for all

    def __post_init__(self) -> None:
        spans = sorted((c.waves[0], c.until) for c in self.campaigns if not c.inert)
        if any(a[1] > b[0] for a, b in itertools.pairwise(spans)) or any(s[1] > CYCLE_DAYS for s in spans):
            raise ValueError(f"campaign windows overlap or leave the cycle of {CYCLE_DAYS} days: {spans}")

    @property
    def days(self) -> int:
        return (self.last - self.first).days

    @property
    def first_us(self) -> int:
        """Midnight of the first day in UTC microseconds."""
        return int(np.datetime64(self.first, "us").astype(np.int64))

    # ---- states: (base * (CLICK_DAYS + 1) + click) * FLAGS + flags

    @functools.cached_property
    def _bases(self) -> list[tuple[str, int, int]]:
        """Each base state as (kind, stage, days in it)."""
        stages = [("stage", k, age) for k in range(STAGES) for age in range(self.stage_days[k] or 1)]
        complaint = [("complaint", 0, age) for age in range(self.complaint_days)]
        return stages + complaint + [("refractory", 0, age) for age in range(self.refractory_days)]

    @property
    def states(self) -> int:
        """How many states a customer can be in. State 0 is where every customer starts."""
        return len(self._bases) * (CLICK_DAYS + 1) * FLAGS

    def describe(self, state: int) -> tuple[str, int, int, int, int]:
        """A state as (stage, complaint or refractory; stage; days in it; days left of a click; flags)."""
        kind, stage, age = self._bases[state // FLAGS // (CLICK_DAYS + 1)]
        return kind, stage, age, state // FLAGS % (CLICK_DAYS + 1), state % FLAGS

    @functools.cached_property
    def stage(self) -> Ints:
        """int64 [states]: the stage of intent."""
        return self._spread(np.array([stage for _, stage, _ in self._bases]))

    @functools.cached_property
    def suppressed(self) -> NDArray[np.bool_]:
        """bool [states]: after a complaint or a purchase."""
        return self._spread(np.array([kind != "stage" for kind, _, _ in self._bases]))

    @staticmethod
    def _spread(by_base: NDArray) -> NDArray:
        return np.repeat(by_base, (CLICK_DAYS + 1) * FLAGS)

    @functools.cached_property
    def transition(self) -> Ints:
        """int64 [states, effects]: the state on the next morning. Touches (flags) are no part of it."""
        index = {base: i for i, base in enumerate(self._bases)}
        cold = index["stage", 0, 0]

        def next_base(base: tuple[str, int, int], effect: int, clicked: bool) -> int:
            kind, stage, age = base
            if effect == PURCHASE:
                return index["refractory", 0, 0]
            if effect == COMPLAINT:
                return index["complaint", 0, 0]
            if kind != "stage":
                return index.get((kind, 0, age + 1), cold)
            if effect == CLIMB or (effect == VISIT and clicked):
                return index["stage", min(stage + 1, STAGES - 1), 0]
            if effect == FALL:
                return index["stage", max(stage - 1, 0), 0]
            return index.get(("stage", stage, age + 1), index["stage", max(stage - 1, 0), 0])

        table = np.empty((len(self._bases), CLICK_DAYS + 1, FLAGS, len(EFFECTS)), np.int64)
        for i, base in enumerate(self._bases):
            for click in range(CLICK_DAYS + 1):
                for effect in range(len(EFFECTS)):
                    after = next_base(base, effect, click > 0)
                    left = CLICK_DAYS if effect == CLICK else max(click - 1, 0)
                    table[i, click, :, effect] = (after * (CLICK_DAYS + 1) + left) * FLAGS + np.arange(FLAGS)
        return table.reshape(self.states, len(EFFECTS))

    # ---- rates and hazard

    @functools.cached_property
    def all_bundles(self) -> tuple[Bundle, ...]:
        """Every bundle that can appear: drawn ones, the return, purchases, touches. Codes index this."""
        touches = tuple(bundle for campaign in self.campaigns for bundle in campaign.touches)
        return (*self.bundles, RETURN, *(bundle for bundle, _ in PURCHASES), *touches)

    @functools.cached_property
    def bundle_rates(self) -> Floats:
        """float64 [states, drawn bundles + 1]: rate per day of each, the return last, at activity 1 on a plain day."""
        rates = np.array([*(bundle.rate for bundle in self.bundles), 0.0])
        table = rates * (1 + 0.04 * self.stage[:, None])  # intent shows in activity, a little
        refractory = self._spread(np.array([kind == "refractory" for kind, _, _ in self._bases]))
        table[refractory, -1] = RETURN.rate
        return table

    @functools.cached_property
    def effect_rates(self) -> Floats:
        """float64 [states, effects]: bundle_rates summed by what they do; 0 for stay and purchase, the rest."""
        table = np.zeros((self.states, len(EFFECTS)))
        for code, bundle in enumerate((*self.bundles, RETURN)):
            if bundle.effect != STAY:
                table[:, bundle.effect] += self.bundle_rates[:, code]
        return table

    @functools.cached_property
    def activity(self) -> Floats:
        """float64 [groups]: factor of the rates."""
        return np.tile(np.array(ACTIVITY_FACTORS), len(SEGMENTS))

    def activity_of_day(self, day: int) -> float:
        """Factor of the rates on a day: weekends, and the weeks before Christmas."""
        if not self.seasonal:
            return 1.0
        date = self.first + dt.timedelta(days=day)
        return (0.92, 0.92, 0.95, 1.0, 1.05, 1.12, 1.04)[date.weekday()] * (1.2 if _before_christmas(date) else 1.0)

    def season(self, day: int) -> float:
        """What a day adds to the log odds of buying: a mild yearly wave, Saturdays, and the weeks before Christmas."""
        if not self.seasonal:
            return 0.0
        date = self.first + dt.timedelta(days=day)
        wave = 0.04 * np.cos(2 * np.pi * ((date - dt.date(date.year, 12, 15)).days / 365.25))
        weekday = (-0.15, -0.1, -0.05, 0.0, 0.1, 0.25, -0.1)[date.weekday()]
        return float(wave + weekday + (0.5 if _before_christmas(date) else 0.0))

    @functools.cached_property
    def base_log_odds(self) -> Floats:
        """float64 [groups, states]: log odds of buying on a plain day without campaigns, above the intercept."""
        stage = np.where(self.suppressed, self.suppressed_log_odds, np.array(self.stage_log_odds)[self.stage])
        return np.repeat(np.array(SEGMENT_LOG_ODDS), len(ACTIVITIES))[:, None] + stage

    def hazard(self, day: int) -> Floats:
        """float64 [groups, states]: P(buys on this day | state after the day's touches)."""
        log_odds = self.intercept + self.season(day) + self.base_log_odds
        campaign, exposure = self.exposure(day)
        if campaign is None:
            return 1 / (1 + np.exp(-log_odds))
        by_state = np.tile(exposure, self.states // FLAGS)
        if self.homogeneous_lift is not None:
            lift = self.homogeneous_lift * np.mean(campaign.log_odds) * by_state
            return 1 - (1 - 1 / (1 + np.exp(-log_odds))) * (1 - lift)
        effect = np.repeat(np.array(campaign.log_odds), len(ACTIVITIES))
        return 1 / (1 + np.exp(-(log_odds + effect[:, None] * by_state)))

    # ---- campaigns

    def day_of_cycle(self, day: int) -> int:
        return ((self.first - CYCLE_START).days + day) % CYCLE_DAYS

    def exposure(self, day: int) -> tuple[Campaign | None, Floats]:
        """The campaign in its window on a day, and float64 [FLAGS]: the saturated exposure, 1 for one fresh touch.

        Each touch fades as exp(-days / fading_days); the sum x acts as (1 - exp(-s x)) / (1 - exp(-s)).
        """
        at = self.day_of_cycle(day)
        campaign = next((c for c in self.campaigns if not c.inert and c.waves[0] <= at < c.until), None)
        if campaign is None:
            return None, np.zeros(FLAGS)
        total = np.zeros(FLAGS)
        for bit, wave in enumerate(campaign.waves):
            if at >= wave:
                total += (np.arange(FLAGS) >> bit & 1) * np.exp(-(at - wave) / self.fading_days)
        return campaign, (1 - np.exp(-self.saturation * total)) / (1 - np.exp(-self.saturation))

    def forgets_touches(self, day: int) -> bool:
        """Whether a window ends as this day begins, so that the flags return to 0."""
        at = self.day_of_cycle(day)
        return any(not c.inert and at in (c.waves[0], c.until % CYCLE_DAYS) for c in self.campaigns)

    @functools.cached_property
    def waves(self) -> dict[int, Wave]:
        """By day: the wave sent on it. No two fall on one day."""
        waves: dict[int, Wave] = {}
        for campaign in self.campaigns:
            sent = [day for day in range(self.days) if self.day_of_cycle(day) in campaign.waves]
            for number, day in enumerate(sent, 1):
                bit = 0 if campaign.inert else 1 << campaign.waves.index(self.day_of_cycle(day))
                if day in waves:
                    raise ValueError(f"{campaign.name} and {waves[day].campaign.name} are sent on one day")
                waves[day] = Wave(campaign, number, day, bit)
        return dict(sorted(waves.items()))

    def propensity(self, campaign: Campaign) -> Floats:
        """float64 [groups, states]: P(treated | in the audience), between 0.05 and 0.9 where targeted."""
        if not campaign.targeted:
            return np.full((GROUPS, self.states), 0.5)
        return np.clip(1 / (1 + np.exp(1.8 - 0.9 * self.base_log_odds)), 0.05, 0.9)

    def with_intercept(self, intercept: float) -> Process:
        return dataclasses.replace(self, intercept=intercept)


def _before_christmas(date: dt.date) -> bool:
    return (11, 24) <= (date.month, date.day) <= (12, 24)
