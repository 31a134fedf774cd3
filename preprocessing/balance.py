"""Where every row went: rows set aside, with too many of them an error, and the summary whose counts must add up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError
from preprocessing.engine import Queried, count
from preprocessing.spec import JourneysSpec

if TYPE_CHECKING:
    from preprocessing.tables import Table

KEPT = ("train", "eval", "test", "predict", "assigned_train", "assigned")
PLACES = ("used", "used_as_feature", "used_as_conversion", "truncated", "ineligible", "outside_windows")
_EXCLUSIVE = ("used", "truncated", "ineligible", "outside_windows", "duplicate")
_REASONS_SHOWN = 5
_log = logging.getLogger(__name__)


def check_rows(
    connection: Queried,
    tables: Mapping[str, Table],
    read: Mapping[str, int],
    max_bad_rows: float,
) -> None:
    """Raises UserError where of a table ('events', 'customers', 'journeys', 'assignments') more than that share is set
    aside."""
    for source, table in tables.items():
        reasons = connection.execute(
            "SELECT reason, field, COUNT(*) FROM set_aside WHERE source = ? GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
            [source],
        ).fetchall()
        bad = sum(n for *_, n in reasons)
        if bad > max_bad_rows * read[source]:
            listed = ", ".join(f"{n} {reason} ({column})" for reason, column, n in reasons[:_REASONS_SHOWN])
            raise UserError(
                f"{table.place}: {bad} of {read[source]} rows ({bad / read[source]:.1%}) cannot be used: {listed}; "
                f"expected at most {max_bad_rows:.1%}"
            )
        if bad:
            _log.info("%s: %d of %d rows set aside", table.place, bad, read[source])


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
    """Counts in which every event read is in one place: used, truncated, … or set aside, by reason.

    `places` sums the balance of all shards. `used_as_feature` and `used_as_conversion` may count an event both.
    """
    reasons = connection.execute(
        "SELECT source, reason, COUNT(*) FROM set_aside GROUP BY source, reason ORDER BY source, reason"
    ).fetchall()
    set_aside = {reason: n for source, reason, n in reasons if source == "events"}
    duplicate = read["events"] - sum(set_aside.values()) - count(connection, "SELECT COUNT(*) FROM events")
    events = {"read": read["events"], **places, "duplicate": duplicate, "set_aside": set_aside}
    if sum(events[place] for place in _EXCLUSIVE) + sum(set_aside.values()) != events["read"]:
        raise AssertionError(f"events do not balance: {events}")
    fates = dict(connection.execute("SELECT fate, COUNT(*) FROM decided GROUP BY fate ORDER BY fate").fetchall())
    result: dict[str, Any] = {
        "events": events,
        "journeys": {
            "considered": sum(fates.values()),
            "kept": {fate: fates[fate] for fate in KEPT if fate in fates},
            "dropped": {fate: n for fate, n in fates.items() if fate not in KEPT},
        },
    }
    others = [source for source in read if source != "events"]
    if others:
        result["tables"] = {
            source: {"read": read[source], "set_aside": {reason: n for of, reason, n in reasons if of == source}}
            for source in others
        }
    if "assignments" in read:
        told = result["tables"]["assignments"]
        told["journeys"] = count(connection, "SELECT COUNT(*) FROM decided WHERE treated >= 0")
        told["duplicate"] = told["read"] - told["journeys"] - sum(told["set_aside"].values())
        if told["duplicate"] != _repeated_assignments(connection):
            raise AssertionError(f"assignments do not balance: {told}")
    return result


def _repeated_assignments(connection: Queried) -> int:
    """How many rows tell an assignment once more that another row has told, in the same words."""
    return count(
        connection,
        "SELECT COALESCE(SUM(n - 1), 0) FROM (SELECT COUNT(*) AS n FROM assignments_read WHERE problem = 0 "
        "GROUP BY id, time_us, campaign HAVING MIN(treated) = MAX(treated))",
    )
