"""The blocks of a journey spec: one frozen object each, with the checks that need no other block."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from preprocessing.values import MOST_DAYS, Condition, Days, Instant, Share

RARE = "__rare__"  # what journeys.sql writes for a value too few customers hold: learnt as out of vocabulary
NONE = "__none__"  # the vocabulary's entry for '', a value missing in the source; tf.Transform keeps no empty entry

# What features.py makes of an event's time: names that no column may bear.
GAP_FEATURES = ("log_gap", "linear_gap", "no_gap")
AS_OF_FEATURES = ("log_to_as_of", "linear_to_as_of")
# The campaign that a journey is asked about: '' where none is. A field of the journey, like a customer's.
ASKED = "asked_campaign"
# What a journey at an assignment brings beside, and no feature may be: the campaign, 1 treated, 0 held out, -1 no
# assignment, and the days since the last conversion before as_of.
ASSIGNMENT_COLUMNS = ("assigned_campaign", "treated", "days_since_conversion")


def _as_numeric_field(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


def as_eligible(value: object) -> object:
    return {"where": value} if isinstance(value, str) else value


def _as_randomised(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, tuple) and all(isinstance(item, str) for item in value)):
        return value
    raise ValueError(f"expected true, false or a list of campaigns, got {value!r}")


class Block(BaseModel):
    """Frozen and strict: an unknown key and a value of the wrong type are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NumericField(Block):
    """A numeric column; values outside [min, max] set the row aside."""

    column: str
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> NumericField:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"max: expected {self.min:g}, the min, or more, got {self.max:g}")
        return self


Numerics = tuple[Annotated[NumericField, BeforeValidator(_as_numeric_field)], ...]


class Events(Block):
    """The events table: `order` breaks ties in time; `available` is when a row could first be read."""

    table: str = "events"
    customer: str
    time: str
    available: str | None = None
    order: str | None = None
    duplicates: Literal["drop", "keep"] = "drop"


class SessionEvents(Block):
    """Events of ready-made journeys: `seconds` since the journey's start; `first` cuts to the first so many events."""

    table: str = "events"
    journey: str
    seconds: str
    order: str | None = None
    first: int | None = Field(default=None, gt=0)
    duplicates: Literal["drop", "keep"] = "keep"


class Sequence(Block):
    categorical: tuple[str, ...] = ()
    numeric: Numerics = ()
    max_events: int = Field(default=64, gt=0, le=10_000)


class Customer(Block):
    """The customer table. Without `valid_from` its columns must be declared `static: true`: true at every as_of."""

    table: str = "customers"
    customer: str | None = None
    valid_from: str | None = None
    static: bool = False
    categorical: tuple[str, ...] = ()
    numeric: Numerics = ()

    @model_validator(mode="after")
    def _dated(self) -> Customer:
        if (self.valid_from is None) != self.static:
            raise ValueError("expected either valid_from (a column) or static: true, and not both")
        return self


class Eligible(Block):
    """Who is predicted at all: `where` over the customer row of the as_of, `after_event` over the events before it."""

    where: Condition | None = None
    after_event: Condition | None = None


class Conversion(Block):
    where: Condition
    gap_days: int = Field(default=0, ge=0, le=MOST_DAYS)
    horizons_days: tuple[Days, ...] = Field(min_length=1)
    primary_horizon: int

    @model_validator(mode="after")
    def _horizons(self) -> Conversion:
        if list(self.horizons_days) != sorted(set(self.horizons_days)):
            raise ValueError(f"horizons_days: expected increasing days, got {list(self.horizons_days)}")
        if self.primary_horizon not in self.horizons_days:
            raise ValueError(
                f"primary_horizon: expected one of horizons_days {list(self.horizons_days)}, got {self.primary_horizon}"
            )
        return self


class Snapshots(Block):
    """When predictions are made: a regular grid, a list of dates, each event that meets `at`, or each assignment."""

    first: Instant | None = None
    last: Instant | None = None
    every_days: Days | None = None
    dates: tuple[Instant, ...] | None = None
    at: Condition | None = None
    context: tuple[str, ...] = ()
    assignments: bool = False
    lookback_days: Days

    @model_validator(mode="after")
    def _one_form(self) -> Snapshots:
        grid = self.every_days is not None
        if grid + (self.dates is not None) + (self.at is not None) + self.assignments != 1:
            raise ValueError("expected one of {first, last, every_days}, {dates}, {at} and {assignments: true}")
        if grid and (self.first is None or self.last is None):
            raise ValueError("every_days: expected first and last beside it")
        if self.assignments and (self.first or self.last):
            raise ValueError("assignments: first and last have no part beside it")
        if self.dates is not None:
            if self.first or self.last:
                raise ValueError("dates: first and last have no part beside it")
            if not self.dates or list(self.dates) != sorted(set(self.dates)):
                raise ValueError("dates: expected one date or more, increasing")
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"last: expected a date from first ({self.first:%Y-%m-%d}) on, got {self.last:%Y-%m-%d}")
        if self.context and self.at is None:
            raise ValueError("context: needs `at`, the event whose columns it names")
        return self

    @property
    def instants(self) -> tuple[dt.datetime, ...]:
        """Every as_of of the grid or the list, oldest first; empty for snapshots at events or assignments."""
        if self.dates is not None:
            return self.dates
        if self.every_days is None or self.first is None or self.last is None:
            return ()
        count = (self.last - self.first) // dt.timedelta(days=self.every_days) + 1
        return tuple(self.first + i * dt.timedelta(days=self.every_days) for i in range(count))


class Split(Block):
    """train | eval | test in time, and customers held out of both train and eval.

    Eval is the time from `eval_from` to `test_from`, or, where history is short, `eval_customers` of the customers
    before `test_from`. `embargo_days` replaces gap + longest horizon between the parts: shorter than that, a train
    label looks into the next part, which reproduces some published tasks and nothing else. Without `test_from` (a test
    whose assignments were all made at once has no later ones) the customers held out are the test.
    """

    eval_from: Instant | None = None
    eval_customers: Share = 0.0
    test_from: Instant | None = None
    holdout_customers: Share = 0.0
    embargo_days: int | None = Field(default=None, ge=0, le=MOST_DAYS)
    salt: str = "v1"

    @model_validator(mode="after")
    def _ordered(self) -> Split:
        if (self.eval_from is None) == (self.eval_customers == 0):
            raise ValueError("expected either eval_from or eval_customers")
        if self.test_from is None and (self.eval_from is not None or not self.holdout_customers):
            raise ValueError("test_from: without it, expected holdout_customers, who are the test, and eval_customers")
        if self.eval_from is not None and self.test_from is not None and self.eval_from >= self.test_from:
            raise ValueError(
                f"eval_from {self.eval_from:%Y-%m-%d} and test_from {self.test_from:%Y-%m-%d} overlap: "
                "expected eval_from before test_from"
            )
        if self.eval_customers + self.holdout_customers >= 1:
            raise ValueError("eval_customers and holdout_customers leave no customer to train on")
        return self


class Sampling(Block):
    """`negative_rate`: the share of train journeys kept among those known not to convert within the longest horizon."""

    negative_rate: float = Field(default=1.0, gt=0, le=1)


class Privacy(Block):
    """A categorical value that fewer than `min_customers` train customers hold is read as out of vocabulary.

    `allow`: categorical columns that may hold what looks like personal data.
    """

    min_customers: int = Field(default=20, ge=1)
    allow: tuple[str, ...] = ()


class Assignments(Block):
    """The table of who was assigned to which campaign when, treated or held out.

    `randomised`: the campaigns for which lots were drawn over who is treated, or true for all. `consequences`: values
    of categorical fields of events (of event_type, say) that come of a campaign's touch without bearing its name.
    `share`: the part of the assignments, by hash, that become journeys.
    """

    table: str = "assignments"
    customer: str
    campaign: str
    time: str
    treated: str
    consequences: tuple[str, ...] = ()
    randomised: Annotated[bool | tuple[str, ...], BeforeValidator(_as_randomised)] = False
    share: float = Field(default=1.0, gt=0, le=1)

    def is_randomised(self, campaign: str) -> bool:
        """Whether the spec declares that lots were drawn over who is treated by the campaign."""
        return self.randomised if isinstance(self.randomised, bool) else campaign in self.randomised


class Campaigns(Block):
    """`column` names the campaign that an event belongs to; a test with assignments may do without such events."""

    column: str | None = None
    assignments: Assignments | None = None

    @model_validator(mode="after")
    def _something(self) -> Campaigns:
        if self.column is None and self.assignments is None:
            raise ValueError("expected column, assignments or both")
        return self


class LabelSplit(Block):
    """The column that says which journeys train, evaluate and test, and its three values."""

    column: str
    train: str = "train"
    eval: str = "eval"
    test: str = "test"


class HashSplit(Block):
    """Without a split column: shares by hash of the journey."""

    eval: float = Field(default=0.2, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)
    salt: str = "v1"

    @model_validator(mode="after")
    def _some_train(self) -> HashSplit:
        if self.eval + self.test >= 1:
            raise ValueError("eval and test leave no journey to train on")
        return self


class ReadyJourneys(Block):
    """One row a journey: `label` is 0/1 or BOOL, `where` picks the rows that count."""

    table: str = "journeys"
    journey: str
    label: str
    where: Condition | None = None
    categorical: tuple[str, ...] = ()
    numeric: Numerics = ()
    split: LabelSplit | HashSplit = HashSplit()
