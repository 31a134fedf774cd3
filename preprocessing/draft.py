"""A journey spec in words: the guesses as YAML with a comment each, and windows that fit how long the table reaches."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing import beside, guess
from preprocessing.cli import UserError, visible
from preprocessing.profile import Profile
from preprocessing.values import YEARS

_HORIZONS = ((240, (7, 14, 30)), (112, (7, 14)), (56, (3, 7)), (24, (1, 3)), (8, (1,)))  # days of data, horizons
_TEMPLATES = Path(__file__).parent / "templates"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_TEXT = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # to YAML
MADE = "made_time"  # the instant read from an integer


@dataclass(frozen=True)
class Draft:
    """The spec's text, and what is left for the user to decide before it can be used, one sentence each."""

    text: str
    undecided: tuple[str, ...]


@dataclass(frozen=True)
class Windows:
    """When is predicted, how far ahead, and what tests; eval_from is None where history is too short for it."""

    horizons: tuple[int, ...]
    lookback: int
    every: int
    first: dt.date
    last: dt.date
    until: dt.date
    eval_from: dt.date | None
    test_from: dt.date


def windows(low: dt.datetime, high: dt.datetime, place: str) -> Windows:
    """Windows for events from low through high. Raises UserError where they span fewer than eight days."""
    for moment in (low, high):
        if moment.year not in YEARS:
            raise UserError(f"{place}: the events' time reaches {moment.date()}; expected {YEARS[0]} to {YEARS[-1]}")
    start, until = low.date(), high.date() + dt.timedelta(days=1)
    days = (until - start).days
    horizons = next((found for least, found in _HORIZONS if days >= least), None)
    if horizons is None:
        raise UserError(f"{place}: the events span {days} days ({start} to {high.date()}); expected 8 or more")
    longest = horizons[-1]
    every = 7 if longest >= 7 else 1
    lookback = min(90, days // 4)
    last = until - dt.timedelta(days=longest)
    grid = (last - start - dt.timedelta(days=lookback)).days // every
    first = last - dt.timedelta(days=grid * every)
    test = max(1, grid // 5)
    embargo = -(-longest // every)  # snapshots between the parts, so that no label looks into the next
    eval_at = grid - test - embargo - max(1, grid // 8)
    has_eval = eval_at >= embargo + max(1, grid // 5)
    eval_from = first + dt.timedelta(days=eval_at * every) if has_eval else None
    return Windows(horizons, lookback, every, first, last, until, eval_from, last - dt.timedelta(days=test * every))


def dated(
    profile: Profile, table: str, events: str, others: Callable[[str, str], beside.Beside] | None = None
) -> Draft:
    """A spec for dated events. Raises UserError where no column can be the time or the customer, or a feature.

    others: looks at the tables beside the events, by the columns of the customer and the event type; None: there are
    none.
    """
    when = guess.time(profile)
    made, low, high = "", None, None
    if when.chosen:
        low, high = profile.named(when.chosen).low, profile.named(when.chosen).high
    else:
        made, function, unit = guess.epoch(profile)
        if not made:
            raise UserError(
                f"{profile.place}: no column holds a time; expected TIMESTAMP, DATETIME, DATE or ISO text, or, for "
                "sessions without dates, --journeys and the table with a row and a label each"
            )
        column = profile.named(made)
        low, high = (dt.datetime.fromtimestamp(value / unit, dt.UTC) for value in (column.low, column.high))
        value = f"CAST({guess.sql(made)} AS INT64)" if profile.is_text else guess.sql(made)
        table = f"SELECT *, {function}({value}) AS {MADE} FROM {guess.sql(table)}"
        when = guess.Guess(MADE, f"{made} counts since 1970, {function} reads it")
    who = guess.customer(profile)
    if not who.chosen:
        names = visible(", ".join(column.name for column in profile.columns))
        raise UserError(f"{profile.place}: no column looks like the customer's id, among {names}; call it customer_id")
    available, order = guess.available(profile, when.chosen), guess.order(profile)
    taken = {when.chosen, made, who.chosen, available, order} - {""}
    kind = guess.event_type(profile, taken)
    what = guess.conversion(profile, kind.chosen)
    categorical, numeric, left = _fields(profile, taken)
    if kind.chosen in categorical:
        categorical = [kind.chosen, *(name for name in categorical if name != kind.chosen)]
    fit = windows(low, high, profile.place)
    found = beside.Beside() if others is None else others(who.chosen, kind.chosen)
    people = found.customers and beside.without(found.customers, (*categorical, *numeric))
    text = _written(
        "events.yaml.j2",
        events=events,
        rows=f"{profile.rows:,}",
        who=who,
        personal=profile.named(who.chosen).personal,
        when=when,
        available=available,
        order=order,
        table=table,
        kind=kind,
        what=what,
        days=(fit.until - low.date()).days,
        fit=fit,
        campaign=next((name for name in categorical if re.fullmatch(r"(?i)campaign(_?(name|id))?", name)), ""),
        categorical=categorical,
        numeric=numeric,
        left=left,
        people=people,
        people_left={visible(name): why for name, why in people.left.items()} if people else {},
        assigned=found.assignments,
        passed_over={visible(name): visible(why) for name, why in found.passed_over.items()},
        looked=others is not None,
    )
    question = "conversion.where: which event converts? Write a predicate over one row in the place of DECIDE"
    return Draft(text, () if what.chosen else (question,))


def ready(profile: Profile, table: str, journeys: Profile, journeys_table: str, events: str) -> Draft:
    """A spec for ready-made journeys. Raises UserError where the two tables do not meet or none says how it ended."""
    names = {column.name for column in profile.columns}
    shared = [c.name for c in journeys.columns if c.name in names and c.distinct > 0.9 * journeys.rows]
    since, outcome = guess.seconds(profile), guess.label(journeys)
    if not shared:
        raise UserError(f"{journeys.place}: expected a column with the journey's id, in both tables and called alike")
    if not since:
        raise UserError(f"{profile.place}: no column counts the seconds since the start; expected one called seconds")
    if not outcome.chosen:
        raise UserError(f"{journeys.place}: no 0/1 or BOOL column is named like a label; expected one called converted")
    order = guess.order(profile)
    categorical, numeric, left = _fields(profile, {shared[0], since, order})
    column, parts = guess.split(journeys)
    text = _written(
        "journeys.yaml.j2",
        events=events,
        rows=f"{profile.rows:,}",
        outcome=outcome,
        column=column,
        parts=parts,
        journeys_table=journeys_table,
        journey=shared[0],
        table=table,
        since=since,
        order=order,
        categorical=categorical,
        numeric=numeric,
        left=left,
    )
    return Draft(text, ())


def _fields(profile: Profile, taken: set[str]) -> tuple[list[str], list[str], dict[str, str]]:
    categorical, numeric, left = guess.fields(profile, taken)
    if not categorical and not numeric:
        why = visible("; ".join(f"{name}: {reason}" for name, reason in left.items())) or "there is no other column"
        raise UserError(f"{profile.place}: expected a column to make a feature of; {why}")
    return categorical, numeric, left


def _written(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # YAML, not HTML: the filter quotes, and `visible` keeps comments on their line
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["yaml"] = _yaml
    environment.filters["visible"] = visible
    values["events"] = visible(values["events"])
    values["left"] = {visible(name): why for name, why in values["left"].items()}
    return environment.get_template(template).render(**values).rstrip("\n") + "\n"


def _yaml(value: str) -> str:
    """A YAML scalar that is read back as this text."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT
    return value if is_plain else json.dumps(value, ensure_ascii=False)
