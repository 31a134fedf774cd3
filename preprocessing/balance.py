"""Where every row went: rows set aside, with too many of them an error, and the summary whose counts must add up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError
from preprocessing.engine import Queried, count
from preprocessing.personal import check_personal
from preprocessing.spec import AnySpec, EventsSpec, JourneysSpec
from preprocessing.tolerance import Tolerance, TooManyBadRows, exceeds, in_words

if TYPE_CHECKING:
    from preprocessing.tables import Table

# which part each table plays in journeys.sql
ROLES = {"events": "events", "customers": "subjects", "journeys": "subjects", "assignments": "assignments"}
KEPT = ("train", "eval", "test", "predict", "assigned_train", "assigned")
PLACES = ("used", "used_as_feature", "used_as_conversion", "truncated", "ineligible", "outside_windows")
_NO_PLACES = ("read", "set_aside", "used_as_feature", "used_as_conversion")  # all else that is counted is one
_REASONS_SHOWN = 5
_log = logging.getLogger(__name__)


def check_read(
    connection: Queried,
    spec: AnySpec,
    tables: Mapping[str, Table],
    read: Mapping[str, int],
    max_bad_rows: Tolerance,
    *,
    labelled: bool,
) -> None:
    """What is asked of the tables once they are read, before anything is made of them. labelled: whether they train.

    Raises TooManyBadRows, or UserError for what looks like personal data and for rows that contradict each other.
    """
    check_rows(connection, tables, read, max_bad_rows)
    if labelled:
        check_personal(connection, spec, tables)
    if isinstance(spec, JourneysSpec):
        check_journeys(connection, spec, tables["journeys"], labelled=labelled)
    elif spec.customer is not None and spec.customer.valid_from is None:
        check_customers(connection, spec, tables["customers"])


def check_rows(
    connection: Queried,
    tables: Mapping[str, Table],
    read: Mapping[str, int],
    max_bad_rows: Tolerance,
) -> None:
    """Raises TooManyBadRows where of a table ('events', 'customers', 'journeys', 'assignments') more rows than that
    are set aside."""
    for source, table in tables.items():
        reasons = connection.execute(
            "SELECT reason, field, COUNT(*) FROM set_aside WHERE source = ? GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
            [source],
        ).fetchall()
        bad = sum(n for *_, n in reasons)
        if exceeds(bad, read[source], max_bad_rows):
            listed = ", ".join(f"{n} {reason} ({column})" for reason, column, n in reasons[:_REASONS_SHOWN])
            raise TooManyBadRows(
                f"{table.place}: {bad} of {read[source]} rows ({bad / read[source]:.1%}) cannot be used: {listed}; "
                f"expected at most {in_words(max_bad_rows)}"
            )
        if bad:
            _log.info("%s: %d of %d rows set aside", table.place, bad, read[source])


def check_customers(connection: Queried, spec: EventsSpec, table: Table) -> None:
    """Customers without dates: raises UserError where rows of one differ, of which none is the later."""
    assert spec.customer is not None
    columns = [f"k{i}" for i in range(len(spec.customer.categorical))]
    columns += [f"z{i}" for i in range(len(spec.customer.numeric))]
    columns += ["is_eligible"] if spec.eligible.where else []
    told = ", ".join(("id", *columns))
    several = count(
        connection,
        f"SELECT COUNT(*) FROM (SELECT id FROM (SELECT DISTINCT {told} FROM subjects_read WHERE problem = 0) AS told "
        "GROUP BY id HAVING COUNT(*) > 1) AS differing",
    )
    if several:
        raise UserError(
            f"{table.place}: customer: {several} customers have several rows that differ, and by customer.static none "
            "is the later; expected one row a customer, or customer.valid_from, the column that says since when"
        )


def check_journeys(connection: Queried, spec: JourneysSpec, table: Table, *, labelled: bool) -> None:
    """Ready-made journeys: raises UserError where one is told twice, or lacks the label that it should have."""
    doubled = count(connection, "SELECT COUNT(*) - COUNT(DISTINCT id) FROM subjects_read WHERE problem = 0")
    if doubled:
        raise UserError(
            f"{table.place}: journeys.journey: {doubled} rows repeat the {spec.journeys.journey!r} of another; "
            "expected one row a journey"
        )
    if labelled:
        wanted = "AND is_wanted" if spec.journeys.where else ""
        unlabelled = count(
            connection, f"SELECT COUNT(*) FROM subjects_read WHERE problem = 0 AND label IS NULL {wanted}"
        )
        if unlabelled:
            label = spec.journeys.label
            raise UserError(f"{table.place}: journeys.label: {unlabelled} rows whose {label!r} is neither 0 nor 1")


def summary(connection: Queried, places: Mapping[str, int], read: Mapping[str, int]) -> dict[str, Any]:
    """Counts in which every row read of every table is in one place: used, truncated, … or set aside, by reason.

    `places` sums the balance of all shards. `used_as_feature` and `used_as_conversion` may count an event both. Raises
    AssertionError, which is a bug, where the places of a table's rows do not add up to the rows read.
    """
    reasons = connection.execute(
        "SELECT source, reason, COUNT(*) FROM set_aside GROUP BY source, reason ORDER BY source, reason"
    ).fetchall()
    set_aside = {reason: n for source, reason, n in reasons if source == "events"}
    duplicate = read["events"] - sum(set_aside.values()) - count(connection, "SELECT COUNT(*) FROM events")
    events = {"read": read["events"], **places, "duplicate": duplicate, "set_aside": set_aside}
    fates = dict(connection.execute("SELECT fate, COUNT(*) FROM decided GROUP BY fate ORDER BY fate").fetchall())
    result: dict[str, Any] = {
        "events": events,
        "journeys": {
            "considered": sum(fates.values()),
            "kept": {fate: fates[fate] for fate in KEPT if fate in fates},
            "dropped": {fate: n for fate, n in fates.items() if fate not in KEPT},
        },
    }
    found = {"journeys": _journeys, "customers": _customers, "assignments": _assignments}
    tables = {
        source: {
            "read": read[source],
            **found[source](connection),
            "set_aside": {reason: n for of, reason, n in reasons if of == source},
        }
        for source in read
        if source != "events"
    }
    for source, counts in {"events": events, **tables}.items():
        if sum(places_of(counts).values()) + sum(counts["set_aside"].values()) != counts["read"]:
            raise AssertionError(f"{source} do not balance: {counts}")
    return result | {"tables": tables} if tables else result


def places_of(counts: Mapping[str, Any]) -> dict[str, int]:
    """Where the rows of a table are that were not set aside; each row is in one of the places."""
    return {place: n for place, n in counts.items() if place not in _NO_PLACES}


def line(source: str, counts: Mapping[str, Any]) -> str:
    """Where every row of a table went, in one line whose numbers add up; what is 0 is left out."""
    parts = [f"{place.replace('_', ' ')} {n:,}" for place, n in places_of(counts).items() if n or place == "used"]
    if "used_as_feature" in counts:
        features, conversions = counts["used_as_feature"], counts["used_as_conversion"]
        parts[0] += f" (in features {features:,}, as conversion {conversions:,})"
    parts += [f"set aside {n:,} ({reason})" for reason, n in counts["set_aside"].items() if n]
    return f"{source} read {counts['read']:,}: {', '.join(parts)}"


def _journeys(connection: Queried) -> dict[str, int]:
    return _by_fate(connection.execute("SELECT fate, COUNT(*) FROM decided GROUP BY fate").fetchall())


def _customers(connection: Queried) -> dict[str, int]:
    """Rows of the customer table by the journeys that read them: one kept, else one refused, else none."""
    # rows that tie in valid_us hold for no time at all, but the last of them: those joined are told apart by it
    used, refused = connection.execute(
        "SELECT COALESCE(SUM(kept), 0), COALESCE(SUM(CASE WHEN kept = 0 THEN refused ELSE 0 END), 0) FROM ("
        f"SELECT MAX(CASE WHEN d.fate IN {KEPT} THEN 1 ELSE 0 END) AS kept, "
        "MAX(CASE WHEN d.fate = 'ineligible' THEN 1 ELSE 0 END) AS refused "
        "FROM subjects AS s JOIN decided AS d "
        "ON d.person = s.person AND s.valid_us < d.as_of_us AND d.as_of_us <= s.next_us "
        "GROUP BY s.person, s.valid_us) AS joined"
    ).fetchone()
    unread = count(connection, "SELECT COUNT(*) FROM subjects") - used - refused
    return {"used": int(used), "ineligible": int(refused), "outside_windows": int(unread)}


def _assignments(connection: Queried) -> dict[str, int]:
    fates = _by_fate(
        connection.execute("SELECT fate, COUNT(*) FROM decided WHERE treated >= 0 GROUP BY fate").fetchall()
    )
    return fates | {"duplicate": _repeated_assignments(connection)}


def _by_fate(counted: list[Any]) -> dict[str, int]:
    fates = dict(sorted(counted))
    return {"used": sum(n for fate, n in fates.items() if fate in KEPT)} | {
        fate: n for fate, n in fates.items() if fate not in KEPT
    }


def _repeated_assignments(connection: Queried) -> int:
    """How many rows tell an assignment once more that another row has told, in the same words."""
    return count(
        connection,
        "SELECT COALESCE(SUM(n - 1), 0) FROM (SELECT COUNT(*) AS n FROM assignments_read WHERE problem = 0 "
        "GROUP BY id, time_us, campaign HAVING MIN(treated) = MAX(treated))",
    )
