"""The simulated tables as Arrow: events, customers, assignments, truth, campaign effects.

Each function takes one chunk of customers, and `ids`, their identifiers in order. Strings are dictionary-encoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.hazard import ACTIVITIES, SEGMENTS, Floats, Ints, Process
from preprocessing.population import COUNTRIES, DAY_US, Events, Population

INSTANT = pa.timestamp("us", tz="UTC")


def customer_ids(start: int, size: int, customers: int) -> pa.Array:
    """string [size]: C0000042 and so on, all of one width."""
    width = max(7, len(str(customers - 1)))
    return pa.array([f"C{number:0{width}d}" for number in range(start, start + size)], pa.string())


def _words(codes: Ints, words: list[str] | tuple[str, ...] | pa.Array) -> pa.Array:
    """The word of each code; -1 is null."""
    values = words if isinstance(words, pa.Array) else pa.array(words, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), values)


def _numbers(values: Floats) -> pa.Array:
    """float64; NaN is null."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _instants(micros: Ints) -> pa.Array:
    return pa.array(micros, pa.int64()).cast(INSTANT)


def _midnights(process: Process, days: list[int]) -> Ints:
    return process.first_us + np.array(days, np.int64) * DAY_US


def _joined(arrays: list[NDArray], dtype: type) -> NDArray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def events_table(events: Events, ids: pa.Array) -> pa.Table:
    """One row an event; `amount` is what a cart or a purchase is worth, negative for a return."""
    return pa.table(
        {
            "customer_id": _words(events.customer, ids),
            "event_time": _instants(events.time),
            "ingest_time": _instants(events.ingest_time),
            "event_type": _words(events.type, events.types),
            "channel": _words(events.channel, events.channels),
            "campaign": _words(events.campaign, events.campaigns),
            "amount": _numbers(events.amount),
        }
    )


def customers_table(people: Population, ids: pa.Array) -> pa.Table:
    """A row a customer from before the first event on, and a second one from a birthday within the data on."""
    row = np.concatenate([np.arange(people.size), np.flatnonzero(people.birthday >= 0)])
    order = np.argsort(row, kind="stable")
    later = order >= people.size
    row = row[order]
    return pa.table(
        {
            "customer_id": _words(row, ids),
            "updated_at": _instants(np.where(later, people.birthday[row], people.known_since[row])),
            "segment": _words(people.group[row] // len(ACTIVITIES), SEGMENTS),
            "activity": _words(people.group[row] % len(ACTIVITIES), ACTIVITIES),
            "age": pa.array(people.age[row] + later, pa.int64()),
            "country": _words(people.country[row], COUNTRIES),
            "consent": pa.array(people.consent[row], pa.bool_()),
        }
    )


def _assignment_columns(process: Process, people: Population, ids: pa.Array) -> dict[str, pa.Array]:
    waves = [wave for wave, _ in people.assignments]
    assigned = [rows for _, rows in people.assignments]
    sizes = [len(rows.customer) for rows in assigned]
    names = [campaign.name for campaign in process.campaigns]
    campaign = np.array([names.index(wave.campaign.name) for wave in waves], np.int64)
    return {
        "customer_id": _words(_joined([rows.customer for rows in assigned], np.int64), ids),
        "campaign": _words(np.repeat(campaign, sizes), names),
        "wave": pa.array(np.repeat(np.array([wave.number for wave in waves], np.int32), sizes)),
        "assigned_at": _instants(np.repeat(_midnights(process, [wave.day for wave in waves]), sizes)),
    }


def assignments_table(process: Process, people: Population, ids: pa.Array) -> pa.Table:
    """Everyone a wave was planned for, treated or held out; `propensity` is the true chance to be treated."""
    assigned = [rows for _, rows in people.assignments]
    columns = _assignment_columns(process, people, ids)
    columns["treated"] = pa.array(_joined([rows.treated for rows in assigned], np.bool_), pa.bool_())
    columns["propensity"] = _numbers(_joined([rows.propensity for rows in assigned], np.float64))
    return pa.table(columns)


def effects_table(
    process: Process, people: Population, ids: pa.Array, by_arm: dict[int, tuple[Floats, Floats]]
) -> pa.Table:
    """For each assignment the true P(buys within 30 days) if treated and if held out, given the history before it.

    Later assignments, reminders among them, are left to chance. Null where the data end within the 30 days.
    """
    treated, control = [], []
    for wave, rows in people.assignments:
        unknown = np.full(len(rows.customer), np.nan)
        at = (people.group[rows.customer], rows.state)
        treated.append(by_arm[wave.day][0][at] if wave.day in by_arm else unknown)
        control.append(by_arm[wave.day][1][at] if wave.day in by_arm else unknown)
    p_treated, p_control = _joined(treated, np.float64), _joined(control, np.float64)
    columns: dict[str, Any] = _assignment_columns(process, people, ids)
    columns["p_30d_treated"] = _numbers(p_treated)
    columns["p_30d_control"] = _numbers(p_control)
    columns["effect"] = _numbers(p_treated - p_control)
    return pa.table(columns)


def truth_table(
    process: Process,
    people: Population,
    ids: pa.Array,
    days: list[int],
    probabilities: dict[tuple[int, int], Floats],
) -> tuple[pa.Table, float]:
    """P(buys within each horizon | events before as_of), null where the horizon passes the data's end.

    Also the mean over customers and days at the longest horizon.
    """
    columns: dict[str, Any] = {
        "customer_id": _words(np.tile(np.arange(people.size), len(days)), ids),
        "as_of": _instants(np.repeat(_midnights(process, days), people.size)),
    }
    for horizon in sorted({horizon for _, horizon in probabilities}):
        values = np.full((len(days), people.size), np.nan)
        for i, day in enumerate(days):
            if (day, horizon) in probabilities:
                values[i] = probabilities[day, horizon][people.group, people.state[i]]
        columns[f"p_{horizon}d"] = _numbers(values.reshape(-1))
    return pa.table(columns), float(np.nanmean(values))
