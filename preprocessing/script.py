"""journeys.sql for one spec: checks the spec against the tables' columns and renders the script, in GoogleSQL.

What runs it (DuckDB here, BigQuery there) hands in the tables as they are found: the name that SQL calls each, and its
columns with their kinds.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocessing import assigned, columns, keys, predicates
from preprocessing.blocks import ASKED, HashSplit
from preprocessing.columns import Problem
from preprocessing.dialect import below, literal, quoted
from preprocessing.predicates import Predicate, predicates_of
from preprocessing.reading import Flag, Reading
from preprocessing.spec import DAY_US, EventsSpec, JourneysSpec
from preprocessing.tables import Table

TEMPLATE = Path(__file__).with_name("journeys.sql")
SUBJECTS_VALID_US = -62_135_596_800_000_000  # 0001-01-01, since when a static customer row holds
PERSONS_A_SHARD = 2**40  # room for them, not a count
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def micros(instant: dt.datetime) -> int:
    """Microseconds since 1970 in UTC, in integers: floats would round."""
    return (instant - EPOCH) // dt.timedelta(microseconds=1)


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def render(
    spec: EventsSpec | JourneysSpec,
    events: Table,
    subjects: Table | None,
    *,
    assignments: Table | None = None,
    kinds: Mapping[str, Mapping[str, str]] | None = None,
    predict: bool = False,
    predict_as_of: dt.datetime | None = None,
    pads: str = "pads",
    journeys: str = "journeys",
) -> str:
    """The script for these tables. `subjects` is the customer table, or that of ready-made journeys; `assignments` is
    wanted where the spec has them and no prediction is made.

    `kinds` by table ('events', 'subjects') tell what text columns hold (textfiles.infer_kinds). `pads` names a one-row
    table (inner_pad BYTES, outer_pad BYTES), `journeys` the table to make. Raises UserError where spec and tables
    disagree.
    """
    kinds = kinds or {}
    by_table = predicates_of(spec)
    event_reading = Reading(events, {**events.columns, **kinds.get("events", {})})
    subject_reading = None
    if subjects is not None:
        subject_reading = Reading(subjects, {**subjects.columns, **kinds.get("subjects", {})})
    assigned_reading = None
    if spec.assignments is not None and assignments is not None:
        assigned_reading = Reading(assignments, assignments.columns)
        assigned.read(spec.assignments, assigned_reading)
    shared: dict[str, Any] = {
        **assigned.template_values(spec, assigned_reading),
        "events": event_reading,
        "subjects": subject_reading,
        "predict": predict,
        "pads": pads,
        "journeys": journeys,
        "shard_letters": keys.SHARD_LETTERS,
        "persons_a_shard": PERSONS_A_SHARD,
        "max_events": spec.sequence.max_events,
        "min_customers": spec.privacy.min_customers,
        "day_us": DAY_US,
        "first_events": spec.first_events,
        "lookback_us": spec.lookback_us,
        "categorical": [{"name": quoted(c), "label": literal(c)} for c in spec.sequence.categorical],
        "numeric": [{"name": quoted(x)} for x in spec.sequence_numeric],
        "scalar_categorical": [{"name": quoted(k), "label": literal(k)} for k in spec.customer_categorical],
        "scalar_numeric": [{"name": quoted(z)} for z in spec.customer_numeric],
        "keep_below": "" if predict or spec.sampling.negative_rate >= 1 else below(spec.sampling.negative_rate),
        "drop_duplicates": spec.events.duplicates == "drop",
        "ordered": spec.events.order is not None,
        "context": [],
        "context_categorical": [],
        "context_numeric": [],
        "dated": isinstance(spec, EventsSpec),
        "available": False,
    }
    if isinstance(spec, EventsSpec):
        specific = _dated(spec, event_reading, subject_reading, by_table, predict_as_of)
    else:
        assert subject_reading is not None
        specific = _ready(spec, event_reading, subject_reading, by_table, predict)
    # not splitlines(), which takes U+2028 and others in a name or a text for the end of a line
    lines = _template().render({**shared, **specific}).split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip()).replace(";\n", ";\n\n") + "\n"


def _dated(
    spec: EventsSpec,
    events: Reading,
    subjects: Reading | None,
    by_table: dict[str, dict[str, Predicate]],
    predict_as_of: dt.datetime | None,
) -> dict[str, Any]:
    names = spec.events
    events.read_id(names.customer, "events.customer", "customer")
    time = events.column(names.time, "events.time", columns.INSTANTS)
    events.keep("time_us", columns.micros(time))
    raw = events.raw(time)
    events.found(1, *columns.instant_problems(time, raw, "time_us", "time"), columns.absurd(time, raw, "time_us"))
    if names.available is not None:
        available = events.column(names.available, "events.available", columns.INSTANTS)
        events.keep("available_us", columns.micros(available))
        events.found(5, *columns.instant_problems(available, events.raw(available), "available_us", "available"))
    _read_order(events, names.order)
    events.read_categorical(spec.sequence.categorical, "sequence.categorical", "c")
    events.read_numeric(spec.sequence.numeric, "sequence.numeric", "x")

    checks = by_table["events"]
    context = _context(spec, events)
    for key, predicate in checks.items():
        with_context = key == "conversion.where" and spec.snapshots.at is not None
        events.check(predicate, {c: events.kinds[c] for c in spec.context_columns} if with_context else None)
    events.read_predicates([*(c for p in checks.values() for c in p.columns()), *spec.context_columns])
    for i, name in enumerate(spec.context_columns):
        events.keep(f"t{i}", context[name])
    plain, contextual = checks["conversion.where"].conjuncts()
    events.flags.append(Flag("is_conversion", predicates.bound(plain, events.predicate_names)))
    events.flag("is_trigger", checks.get("snapshots.at"))
    events.flag("is_after", checks.get("eligible.after_event"))

    if subjects is not None:
        assert spec.customer is not None
        _read_customers(spec, subjects, by_table["subjects"])
    in_event = {name: f"e.p{i}" for i, name in enumerate(events.predicate_columns)}
    in_context = {name: f"j.q{i}" for i, name in enumerate(spec.context_columns)}
    split, days = spec.split, spec.conversion
    own_categorical = len(spec.customer.categorical) if spec.customer else 0
    own_numeric = len(spec.customer.numeric) if spec.customer else 0
    return {
        "available": names.available is not None,
        "at_events": spec.snapshots.at is not None,
        "after_event": spec.eligible.after_event is not None,
        "instants_us": [micros(t) for t in ((predict_as_of,) if predict_as_of else spec.snapshots.instants)],
        "first_us": _first(micros, predict_as_of or spec.snapshots.first),
        "last_us": None if predict_as_of else _first(micros, spec.snapshots.last),
        # a prediction sees the table as it is: data_until says how far labels reach
        "data_until_us": columns.LATEST_US if predict_as_of else micros(spec.data_until),
        "test_us": _first(micros, split.test_from),
        "eval_us": _first(micros, split.eval_from),
        "embargo_us": spec.embargo_days * DAY_US,
        "held_out_below": below(split.holdout_customers),
        "eval_below": below(split.holdout_customers + split.eval_customers),
        "salt": literal(split.salt),
        "gap_us": days.gap_days * DAY_US,
        "shortest_us": (days.gap_days + days.horizons_days[0]) * DAY_US,
        "longest_us": (days.gap_days + days.horizons_days[-1]) * DAY_US,
        "own_categorical": own_categorical,
        "own_numeric": own_numeric,
        "context": [{"value": _present(events, name, i)} for i, name in enumerate(spec.context_columns)],
        "context_categorical": [
            spec.sequence.categorical.index(c.removeprefix("context_"))
            for c in spec.customer_categorical[own_categorical:]
            if c != ASKED
        ],
        "context_numeric": [
            spec.sequence_numeric.index(c.removeprefix("context_")) for c in spec.customer_numeric[own_numeric:]
        ],
        "converts_in_context": predicates.bound(contextual, in_event, in_context) if contextual else "",
    }


def _ready(
    spec: JourneysSpec,
    events: Reading,
    subjects: Reading,
    by_table: dict[str, dict[str, Predicate]],
    predict: bool,
) -> dict[str, Any]:
    events.read_id(spec.events.journey, "events.journey", "journey")
    seconds = events.column(spec.events.seconds, "events.seconds", tuple(k for k in columns.NUMBERS if k != "BOOL"))
    raw, value = events.raw(seconds), columns.number(seconds)
    events.keep("time_us", f"IF(ABS({value}) <= 8e9, CAST(ROUND(({value}) * 1e6) AS INT64), NULL)")
    readable = rf"NOT REGEXP_CONTAINS({raw}, r'{columns.NUMBER}')" if seconds.kind == "STRING" else "FALSE"
    blank = columns.missing(seconds, raw) + (f" OR IS_NAN({raw})" if seconds.kind == "FLOAT64" else "")
    events.found(
        1,
        Problem("null time", seconds.name, blank),
        Problem("unparsable time", seconds.name, readable, raw),
        Problem(
            "absurd time", seconds.name, f"time_us IS NULL OR {columns.absurd(seconds, raw, 'time_us').condition}", raw
        ),
    )
    _read_order(events, spec.events.order)
    events.read_categorical(spec.sequence.categorical, "sequence.categorical", "c")
    events.read_numeric(spec.sequence.numeric, "sequence.numeric", "x")

    subjects.read_id(spec.journeys.journey, "journeys.journey", "journey")
    if not predict:
        subjects.keep("label", columns.truth(subjects.column(spec.journeys.label, "journeys.label", columns.TRUTHS)))
        if not isinstance(spec.journeys.split, HashSplit):
            part = subjects.column(spec.journeys.split.column, "journeys.split.column", columns.TEXTS)
            subjects.keep("part", f"IFNULL({columns.text(part)}, '')")
    subjects.read_categorical(spec.journeys.categorical, "journeys.categorical", "k")
    subjects.read_numeric(spec.journeys.numeric, "journeys.numeric", "z")
    where = by_table["subjects"].get("journeys.where")
    if where is not None:
        subjects.check(where)
        subjects.read_predicates(where.columns())
        subjects.flag("is_wanted", where)
    split = spec.journeys.split
    by_hash = isinstance(split, HashSplit)
    return {
        "own_categorical": len(spec.journeys.categorical),
        "own_numeric": len(spec.journeys.numeric),
        "split_column": None if by_hash else {p: literal(getattr(split, p)) for p in ("train", "eval", "test")},
        "held_out_below": below(split.test) if isinstance(split, HashSplit) else "",
        "eval_below": below(split.test + split.eval) if isinstance(split, HashSplit) else "",
        "salt": literal(split.salt if isinstance(split, HashSplit) else "v1"),
    }


def _read_order(events: Reading, order: str | None) -> None:
    if order is not None:
        column = events.column(order, "events.order", columns.ORDERED)
        events.keep("order_key", columns.typed(column, events.kinds[order]))


def _read_customers(spec: EventsSpec, subjects: Reading, checks: dict[str, Predicate]) -> None:
    customer = spec.customer
    assert customer is not None
    subjects.read_id(customer.customer or spec.events.customer, "customer.customer", "customer")
    if customer.valid_from is None:
        subjects.keep("valid_us", str(SUBJECTS_VALID_US))
    else:
        valid = subjects.column(customer.valid_from, "customer.valid_from", columns.INSTANTS)
        subjects.keep("valid_us", columns.micros(valid))
        raw = subjects.raw(valid)
        subjects.found(1, *columns.instant_problems(valid, raw, "valid_us", "time"))
    subjects.read_categorical(customer.categorical, "customer.categorical", "k")
    subjects.read_numeric(customer.numeric, "customer.numeric", "z")
    for predicate in checks.values():
        subjects.check(predicate)
        subjects.read_predicates(predicate.columns())
        subjects.flag("is_eligible", predicate)


def _context(spec: EventsSpec, events: Reading) -> dict[str, str]:
    """Each context column as text, which enters the journey's id."""
    result = {}
    for name in spec.context_columns:
        column = events.column(name, "snapshots.context", columns.ORDERED)
        if column.kind in columns.TEXTS:
            value = columns.text(column)
        elif column.kind in columns.NUMBERS:
            value = columns.number_text(columns.number(column))
        else:
            value = f"CAST({columns.micros(column)} AS STRING)"
        result[name] = f"IFNULL({value}, '')"
    return result


def _present(events: Reading, name: str, i: int) -> str:
    """A context column as the predicate sees it; '' and NULL are both missing, so that the two make one journey."""
    column = events.predicate_names[name]
    return f"NULLIF({column}, '')" if events.kinds[name] == "STRING" else column


def _first(convert: Any, value: Any) -> Any:
    return None if value is None else convert(value)
