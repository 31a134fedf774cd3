"""The journey spec: which table columns play which part, and the windows. YAML in, frozen objects out.

Two forms. Dated events (`EventsSpec`): an events table, snapshots, a conversion. Ready-made journeys (`JourneysSpec`):
one row a journey with its label, events in seconds since the start. What follows after journeys.sql sees only what both
share: fields, horizons, windows. Importing this module costs pydantic and yaml, nothing heavier.
"""

from __future__ import annotations

import datetime as dt
import re
from keyword import iskeyword
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from preprocessing import yamlfile
from preprocessing.blocks import (
    AS_OF_FEATURES,
    ASKED,
    ASSIGNMENT_COLUMNS,
    GAP_FEATURES,
    Assignments,
    Block,
    Campaigns,
    Conversion,
    Customer,
    Eligible,
    Events,
    Privacy,
    ReadyJourneys,
    Sampling,
    Sequence,
    SessionEvents,
    Snapshots,
    Split,
    as_eligible,
)
from preprocessing.values import Instant

DAY_US = 86_400_000_000
RESERVED = frozenset(
    (
        *("journey_id", "customer_key", "as_of", "split", "held_out", "event_time", "length", "key", "weight"),
        *("days_to_conversion", "observed_days", "self"),
        *(ASKED, *ASSIGNMENT_COLUMNS),
        *GAP_FEATURES,
        *AS_OF_FEATURES,
    )
)


class Spec(Block):
    """What both forms share, and all that follows after journeys.sql may ask for."""

    sequence: Sequence
    privacy: Privacy = Privacy()
    sampling: Sampling = Sampling()

    @property
    def context_columns(self) -> tuple[str, ...]:
        return ()

    @property
    def assignments(self) -> Assignments | None:
        """The table of assignments, at each of which a journey is made; None where there is none."""
        return None

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts that journeys fall into. Journeys at assignments beside snapshots keep to parts of their own."""
        return ("train", "eval", "test")

    @property
    def train_splits(self) -> tuple[str, ...]:
        """The parts that training, and the transform graph before it, learns from."""
        return tuple(split for split in self.splits if split in ("train", "assigned_train"))

    @property
    def time_features(self) -> tuple[str, ...]:
        """What is made of each event's time. A ready-made journey has no as_of of its own, and nothing until then."""
        return GAP_FEATURES

    @property
    def kinds(self) -> dict[str, dict[str, str]]:
        """{"sequence": {field: "categorical" or "numeric"}, "customer": {…}}: every field that a journey brings."""
        parts = {
            "sequence": (self.sequence.categorical, self.sequence_numeric),
            "customer": (self.customer_categorical, self.customer_numeric),
        }
        return {
            part: dict.fromkeys(categorical, "categorical") | dict.fromkeys(numeric, "numeric")
            for part, (categorical, numeric) in parts.items()
        }

    @property
    def sequence_numeric(self) -> tuple[str, ...]:
        return tuple(field.column for field in self.sequence.numeric)

    @property
    def customer_categorical(self) -> tuple[str, ...]:
        """Scalar categorical fields of a journey: of the customer, of the event that asked (`context_…`), and the
        campaign that is asked about where there are assignments."""
        context = (f"context_{c}" for c in self.context_columns if c in self.sequence.categorical)
        return (*self._customer_block_fields()[0], *context, *([ASKED] if self.assignments else []))

    @property
    def customer_numeric(self) -> tuple[str, ...]:
        return self._customer_block_fields()[1] + tuple(
            f"context_{c}" for c in self.context_columns if c in self.sequence_numeric
        )

    def _customer_block_fields(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        raise TypeError("EventsSpec and JourneysSpec say which")

    @property
    def first_events(self) -> int | None:
        """Only so many events from the start of a journey are seen; None: all."""
        return None

    @property
    def lookback_us(self) -> int | None:
        """Microseconds before as_of that events count; None where journeys are ready-made."""
        return None

    @model_validator(mode="after")
    def _field_names(self) -> Spec:
        if not self.sequence.categorical and not self.sequence.numeric:
            raise ValueError("sequence: expected at least one categorical or numeric column")
        scalars = self.customer_categorical[: -1 if self.assignments else None]  # without our own, the campaign asked
        for name in (fields := (*self.sequence.categorical, *self.sequence_numeric, *scalars, *self.customer_numeric)):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(
                    f"column {name!r}: a field's name becomes a tensor's: expected letters, digits and _; "
                    "rename it in a query (table: SELECT … AS …)"
                )
            if name.lower() in RESERVED or name.endswith("_missing") or iskeyword(name):
                raise ValueError(f"column {name!r}: the name is taken by Parcours; rename it in a query")
        campaign = (self.assignments.campaign,) if self.assignments else ()
        known = (*self.sequence.categorical, *self._customer_block_fields()[0], *campaign)
        for name in self.privacy.allow:
            if name not in known:
                expected = f"expected a categorical column of the spec: {', '.join(known)}"
                raise ValueError(f"privacy.allow: {name!r}: {expected}")
        doubled = sorted({name for name in fields if fields.count(name) > 1})
        if doubled:
            raise ValueError(f"column {doubled[0]!r}: expected each field once among sequence and customer fields")
        return self


class EventsSpec(Spec):
    """Dated events, with any kind of snapshots."""

    events: Events
    customer: Customer | None = None
    eligible: Annotated[Eligible, BeforeValidator(as_eligible)] = Eligible()
    conversion: Conversion
    snapshots: Snapshots
    data_until: Instant
    split: Split
    campaigns: Campaigns | None = None

    @property
    def context_columns(self) -> tuple[str, ...]:
        return self.snapshots.context

    @property
    def assignments(self) -> Assignments | None:
        return self.campaigns.assignments if self.campaigns else None

    @property
    def splits(self) -> tuple[str, ...]:
        if self.assignments is None:
            return super().splits
        if self.snapshots.assignments:
            return (*super().splits, "assigned")
        return (*super().splits, "assigned_train", "assigned")

    @property
    def time_features(self) -> tuple[str, ...]:
        return (*GAP_FEATURES, *AS_OF_FEATURES)

    def _customer_block_fields(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.customer is None:
            return (), ()
        return self.customer.categorical, tuple(f.column for f in self.customer.numeric)

    @property
    def horizons_days(self) -> tuple[int, ...]:
        return self.conversion.horizons_days

    @property
    def gap_days(self) -> int:
        return self.conversion.gap_days

    @property
    def primary_horizon(self) -> int:
        return self.conversion.primary_horizon

    @property
    def lookback_us(self) -> int:
        return self.snapshots.lookback_days * DAY_US

    @property
    def embargo_days(self) -> int:
        """Days between an as_of and the next split's start, so that no label looks into it."""
        natural = self.gap_days + self.horizons_days[-1]
        return natural if self.split.embargo_days is None else self.split.embargo_days

    @model_validator(mode="after")
    def _blocks_fit(self) -> EventsSpec:
        if self.eligible.where is not None and self.customer is None:
            raise ValueError("eligible: a predicate over customer columns needs the customer block")
        if self.campaigns and self.campaigns.column not in (None, *self.sequence.categorical):
            raise ValueError(f"campaigns.column: expected one of sequence.categorical, got {self.campaigns.column!r}")
        if self.snapshots.assignments and self.assignments is None:
            raise ValueError("snapshots.assignments: expected campaigns.assignments, the table that says when")
        if self.snapshots.assignments and self.sampling.negative_rate < 1:
            raise ValueError(
                "sampling.negative_rate: no journey at an assignment is thinned; expected 1, or no such key"
            )
        if self.snapshots.at is not None and self.assignments is not None:
            raise ValueError(
                "snapshots.at: has no part beside campaigns.assignments; expected {first, last, every_days}, {dates} "
                "or {assignments: true}"
            )
        return self

    @model_validator(mode="after")
    def _windows(self) -> EventsSpec:
        embargo = dt.timedelta(days=self.embargo_days)
        as_ofs = self.snapshots.instants
        split = self.split
        if split.test_from is None:
            if not self.snapshots.assignments:
                raise ValueError("split.test_from: missing; only snapshots {assignments: true} may do without")
        elif self.snapshots.at is None and not self.snapshots.assignments:
            train_until = split.eval_from or split.test_from
            if not any(t + embargo <= train_until for t in as_ofs):
                raise ValueError(
                    f"split: no snapshot trains: the first as_of, {as_ofs[0]:%Y-%m-%d}, plus {self.embargo_days} days "
                    f"(gap + longest horizon) passes {train_until:%Y-%m-%d}, where the next part starts"
                )
            if split.eval_from and not any(split.eval_from <= t and t + embargo <= split.test_from for t in as_ofs):
                raise ValueError(
                    f"split: no snapshot evaluates: none from eval_from {split.eval_from:%Y-%m-%d} on ends "
                    f"{self.embargo_days} days (gap + longest horizon) before test_from {split.test_from:%Y-%m-%d}"
                )
            if not any(t >= split.test_from for t in as_ofs):
                raise ValueError(f"split: no snapshot tests: the last as_of is {as_ofs[-1]:%Y-%m-%d}, before test_from")
            if as_ofs[-1] > self.data_until:
                raise ValueError(f"data_until: expected a date from the last as_of, {as_ofs[-1]:%Y-%m-%d}, on")
            primary = dt.timedelta(days=self.gap_days + self.primary_horizon)
            if not any(t >= split.test_from and t + primary <= self.data_until for t in as_ofs):
                raise ValueError(
                    f"data_until: no test snapshot can be scored at the primary horizon: test_from plus "
                    f"{self.gap_days + self.primary_horizon} days passes {self.data_until:%Y-%m-%d}"
                )
        return self


class JourneysSpec(Spec):
    """Ready-made journeys with a label: no snapshots, one horizon, which is the label itself."""

    journeys: ReadyJourneys
    events: SessionEvents

    def _customer_block_fields(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.journeys.categorical, tuple(f.column for f in self.journeys.numeric)

    @property
    def horizons_days(self) -> tuple[int, ...]:
        return (1,)

    @property
    def gap_days(self) -> int:
        return 0

    @property
    def primary_horizon(self) -> int:
        return 1

    @property
    def first_events(self) -> int | None:
        return self.events.first


AnySpec = EventsSpec | JourneysSpec


def load_spec(path: str | Path) -> AnySpec:
    """Reads a journey spec. Raises UserError with a line for each mistake: file, line, key, what was expected."""
    return parse_spec(yamlfile.read_text(path, "journey spec"), str(path))


def parse_spec(text: str, name: str = "spec") -> AnySpec:
    """As load_spec, from the YAML text; `name` is what errors call it."""
    spec: AnySpec = yamlfile.parse(text, name, lambda content: JourneysSpec if "journeys" in content else EventsSpec)
    return spec
