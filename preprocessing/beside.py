"""The tables beside the events: which one may be the spec's customers, which its assignments; each with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from preprocessing import guess, profile
from preprocessing.cli import UserError
from preprocessing.dialect import table_name
from preprocessing.profile import TIMES, Column, Profile

if TYPE_CHECKING:
    import duckdb

    from preprocessing.tables import Tables

MOST_ASSIGNMENTS = 100_000  # that become journeys beside those of the snapshots
_SHARED = 0.5  # of the events' customers, who must be in a table of customers or assignments
_PEOPLE = re.compile(r"crm|profile|demograph|attribute", re.I)
_SINCE = re.compile(r"valid_?from|effective|updat|modif|chang|(^|_)since|start", re.I)
_TREATED = re.compile(r"treat|expos|targeted|contacted|(^|_)(sent|test_?group)$", re.I)
_CAMPAIGN = re.compile(r"campaign|promo|offer|experiment|mailing|(^|_)test(_?(name|id))?$", re.I)
_CONSENT = re.compile(r"consent|gdpr|permission|opt(ed)?_?in(_|$)", re.I)
_REFUSAL = re.compile(r"opt(ed)?_?out(_|$)|do_?not|object(ed|ion)|withdrawn|refus", re.I)
_TOUCH = re.compile(r"(e-?mail|sms|push|display|banner|newsletter|mailing|(^|_)ad)", re.I)
_REACTS = re.compile(r"open|click|deliver|bounce|unsubscri|impression", re.I)


@dataclass(frozen=True)
class Customers:
    """A customer block; valid_from: "" where no column says since when a row holds. left: columns, and why not.

    eligible: the predicate of a flag named like consent, which is then no feature; "" where there is none.
    """

    table: str
    customer: str
    valid_from: str
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    left: dict[str, str]
    because: str
    eligible: str = ""


@dataclass(frozen=True)
class Assigned:
    """An assignments block; share: of them that become journeys; consequences: of their touches, among the events."""

    table: str
    customer: str
    campaign: str
    time: str
    treated: str
    because: str
    share: float
    consequences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What was found; passed_over: the other tables, and why."""

    customers: Customers | None = None
    assignments: Assigned | None = None
    passed_over: dict[str, str] = field(default_factory=dict)


def look(
    connection: duckdb.DuckDBPyConnection, tables: Tables, names: Sequence[str], events: Profile, *, who: str, kind: str
) -> Beside:
    """Looks at the tables `names`; who, kind: the events' columns with the customer and, "" for none, the event type.

    A table that cannot be read is passed over, with the reason.
    """
    found, passed_over = Beside(), {}
    for name in names:
        try:
            seen = profile.look(connection, tables.open(name, name))
        except UserError as error:
            passed_over[name] = str(error).splitlines()[0]
            continue
        key, shared = _key(connection, seen, events, who)
        if not key:
            passed_over[name] = f"no column of it holds the customers of {who}"
            continue
        because = f"{key} holds {100 * shared:.3g} % of the events' customers; {seen.rows:,} rows"
        one = _assigned(seen, name, key, because) or _customers(connection, seen, name, key, because)
        if isinstance(one, str):
            passed_over[name] = one
        elif isinstance(one, Assigned) and found.assignments is None:
            found = replace(found, assignments=replace(one, consequences=_consequences(events, kind)))
        elif isinstance(one, Customers) and (found.customers is None or _is_people(name, found.customers.table)):
            if found.customers is not None:
                passed_over[found.customers.table] = f"{name} is taken for the customers"
            found = replace(found, customers=one)
        else:
            passed_over[name] = "another table is taken for the same part"
    return replace(found, passed_over=passed_over)


def without(block: Customers, taken: Sequence[str]) -> Customers | None:
    """The block without fields that events have, too; None where none is left."""
    left = block.left | {
        name: "the events have a field of this name" for name in (*block.categorical, *block.numeric) if name in taken
    }
    categorical, numeric = (tuple(n for n in names if n not in taken) for names in (block.categorical, block.numeric))
    is_any = categorical or numeric or block.eligible
    return replace(block, categorical=categorical, numeric=numeric, left=left) if is_any else None


def _key(connection: duckdb.DuckDBPyConnection, seen: Profile, events: Profile, who: str) -> tuple[str, float]:
    """The column with the customers, and the share of the events' that it holds; ("", 0) where none has enough."""
    kind, best = events.named(who).kind, ("", 0.0)
    for column in seen.columns:
        if column.kind != kind or not (column.name.lower() == who.lower() or guess.is_customer(column.name)):
            continue
        mine, theirs = table_name(who), table_name(column.name)
        (shared,) = connection.execute(
            f"SELECT avg(CAST(k IN (SELECT {theirs} FROM ({seen.sql}) WHERE {theirs} IS NOT NULL) AS INT)) "
            f"FROM (SELECT DISTINCT {mine} AS k FROM ({events.sql}) WHERE {mine} IS NOT NULL)"
        ).fetchall()[0]
        if shared >= _SHARED and shared > best[1]:
            best = (column.name, shared)
    return best


def _assigned(seen: Profile, name: str, key: str, because: str) -> Assigned | None:
    when = guess.time(seen).chosen
    campaign = next((c.name for c in seen.columns if c.kind == "STRING" and c.values and _CAMPAIGN.search(c.name)), "")
    treated = next((c.name for c in seen.columns if _is_treated(c)), "")
    if not (when and campaign and treated):
        return None
    counts = seen.named(treated).values
    share = 100 * (counts.get("1", 0) + counts.get("true", 0)) / seen.rows
    share_of_all = min(1.0, round(MOST_ASSIGNMENTS / seen.rows, 3))
    reason = f"{because}; {treated} in {share:.3g} % of them, {seen.named(campaign).distinct} values of {campaign}"
    return Assigned(name, key, campaign, when, treated, reason, share_of_all)


def _is_treated(column: Column) -> bool:
    return _is_flag(column) and column.filled == 1 and bool(_TREATED.search(column.name))


def _is_flag(column: Column) -> bool:
    return column.kind in ("BOOL", "INT64") and set(column.values) in ({"0", "1"}, {"true", "false"})


def _eligible(seen: Profile) -> tuple[str, str]:
    """(the predicate of the first flag named like consent, or its refusal, that column); ("", "") where none is."""
    for column in seen.columns:
        refuses = bool(_REFUSAL.search(column.name))
        if _is_flag(column) and (refuses or _CONSENT.search(column.name)):
            name = guess.sql(column.name)
            if column.kind == "BOOL":
                return f"NOT {name}" if refuses else name, column.name
            return f"{name} = {0 if refuses else 1}", column.name
    return "", ""


def _customers(
    connection: duckdb.DuckDBPyConnection, seen: Profile, name: str, key: str, because: str
) -> Customers | str:
    """The block, or why there is none."""
    ((distinct,),) = connection.execute(f"SELECT count(DISTINCT {table_name(key)}) FROM ({seen.sql})").fetchall()
    single = distinct == seen.rows
    if not single and not _is_people(name):
        return "neither named like a table of customers nor one row a customer"
    since = next((c.name for c in seen.columns if c.kind in TIMES and c.filled == 1 and _SINCE.search(c.name)), "")
    if not single and not since:
        return f"{seen.rows / distinct:.1f} rows a customer, and no full time says since when each holds"
    eligible, flag = _eligible(seen)
    categorical, numeric, left = guess.fields(seen, {key, since, flag})
    if not categorical and not numeric and not eligible:
        return "no column of it can be a feature"
    reason = f"{because}, {'one' if single else f'{seen.rows / distinct:.1f}'} a customer"
    return Customers(name, key, since, tuple(categorical), tuple(numeric), left, reason, eligible)


def _is_people(name: str, instead_of: str = "") -> bool:
    """Whether a table is named like one of customers, and the one that it would replace is not."""
    return _named(name) and not (instead_of and _named(instead_of))


def _named(name: str) -> bool:
    return guess.is_customer(name) or bool(_PEOPLE.search(name))


def _consequences(events: Profile, kind: str) -> tuple[str, ...]:
    """Event types that look like what a customer does with a campaign's touch."""
    values = events.named(kind).values if kind else {}
    return tuple(sorted(value for value in values if _TOUCH.search(value) and _REACTS.search(value)))
