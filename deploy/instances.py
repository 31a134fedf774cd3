"""Journeys as the padded arrays that a SavedModel's `serving_default` takes: from the table, and from natural JSON.

A natural instance holds `key` (optional), `as_of`, customer fields as scalars, and its events in any order, as a list
of objects (`events`) or as one list a field (as a row of the journeys table has them). What is absent or null is
missing. Ready-made journeys give `seconds` since their start for `event_time`, and need no as_of.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from deploy import instants
from deploy.instants import BadValue, called
from preprocessing.padded import micros, spread

_ABSENT = object()
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class InstanceError(ValueError):
    """What is wrong with one instance: its index, the field's path ("" for the whole), and what was expected there."""

    def __init__(self, instance: int, field: str, message: str) -> None:
        super().__init__(f"instance {instance}{', ' if field else ''}{field}: {message}")
        self.instance, self.field, self.message = instance, field, message


@dataclass(frozen=True)
class Parsed:
    """Instances read.

    arrays: what serving_default takes, of the instances at `kept` in their order (strings as str, missing as '' and
    NaN); keys: theirs, None where none was given; errors: of the instances that cannot be used, by index.
    """

    arrays: dict[str, np.ndarray]
    kept: list[int]
    keys: list[str | None]
    errors: dict[int, InstanceError]


class Fields:
    """The names that an instance may bear, as model/parcours.json lays them down."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.dated = about["journeys"] == "dated"
        self.time = "event_time" if self.dated else "seconds"
        self.sequence: dict[str, str] = about["sequence"]
        self.customer: dict[str, str] = about["customer"]
        self.event = frozenset({self.time, *self.sequence})
        self.scalars = frozenset({"key", "as_of", *self.customer})
        # one value for each event field, in C; a model without any but the time has tuples too
        get = operator.itemgetter(self.time, *self.sequence)
        self.of_event = get if self.sequence else lambda event: (get(event),)
        self.all = self.event | self.scalars | {"events"}


def from_instances(instances: list[Any], about: Mapping[str, Any], max_events: int | None = None) -> Parsed:
    """Reads natural instances, JSON values of any kind, into arrays; about: model/parcours.json.

    max_events: of one instance; more make it an error. No content of `instances` raises: errors are in the result.
    """
    fields = Fields(about)
    kept, errors = list(range(len(instances))), dict[int, InstanceError]()
    try:
        arrays = _arrays(instances, fields, max_events)
    except InstanceError:
        # one by one to learn which are bad; the rest are read together again
        for index, instance in enumerate(instances):
            try:
                _arrays([instance], fields, max_events)
            except InstanceError as error:
                errors[index] = InstanceError(index, error.field, error.message)
        kept = [index for index in kept if index not in errors]
        arrays = _arrays([instances[index] for index in kept], fields, max_events)
    return Parsed(arrays, kept, [instances[index].get("key") for index in kept], errors)


def to_instances(journeys: pa.RecordBatch, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the journeys table in natural form, events as a list, key = journey_id; missing values are null."""
    fields = Fields(about)
    times = journeys.column("event_time").cast(pa.list_(pa.int64())).to_pylist()
    columns = {name: journeys.column(name).to_pylist() for name in (*fields.sequence, *fields.customer)}
    if fields.dated:
        as_ofs = [{"as_of": instants.text(instant)} for instant in micros(journeys.column("as_of"))]
    else:
        as_ofs = [{} for _ in times]
    instances = []
    for row, (key, moments) in enumerate(zip(journeys.column("journey_id").to_pylist(), times, strict=True)):
        written = [instants.text(t) for t in moments] if fields.dated else [t / 1e6 for t in moments]
        events: list[dict[str, Any]] = [{fields.time: moment} for moment in written]
        for name in fields.sequence:
            for event, value in zip(events, columns[name][row], strict=True):
                event[name] = _natural(value)
        customer = {name: _natural(columns[name][row]) for name in fields.customer}
        instances.append({"key": key, **as_ofs[row], **customer, "events": events})
    return instances


def _arrays(instances: list[Any], fields: Fields, max_events: int | None) -> dict[str, np.ndarray]:
    """The arrays of instances that are all good; raises InstanceError of one that is not."""
    columns, lengths, in_events = _gather(instances, fields, max_events)
    starts = np.cumsum([0, *lengths])

    def event_path(name: str, at: int) -> tuple[int, str]:
        row = int(np.searchsorted(starts, at, side="right")) - 1
        position = at - int(starts[row])
        return row, f"events[{position}].{name}" if in_events[row] else f"{name}[{position}]"

    def scalars(name: str) -> list[Any]:
        return [instance.get(name) for instance in instances]

    def read(read_as: Callable[[list[Any]], np.ndarray], name: str, values: list[Any], of_event: bool) -> np.ndarray:
        try:
            return read_as(values)
        except BadValue as bad:
            row, path = event_path(name, bad.at) if of_event else (bad.at, name)
            raise InstanceError(row, path, bad.message) from None

    length = np.array(lengths, np.int64)
    inside = np.arange(length.max(initial=0)) < length[:, None]
    read_time = instants.micros if fields.dated else instants.micros_of_seconds
    times = spread(read(read_time, fields.time, columns[fields.time], True), inside)
    arrays = {
        "key": read(_text, "key", scalars("key"), False),
        "as_of": read(instants.micros, "as_of", _as_ofs(instances, fields, times, inside), False),
        "length": length,
        "event_time": times,
    }
    for name, kind in fields.sequence.items():
        arrays[name] = spread(read(_READ[kind], name, columns[name], True), inside)
    for name, kind in fields.customer.items():
        arrays[name] = read(_READ[kind], name, scalars(name), False)
    return arrays


def _gather(
    instances: list[Any], fields: Fields, max_events: int | None
) -> tuple[dict[str, list[Any]], list[int], list[bool]]:
    """Every event field as one flat list over all instances, how many events each has, and whether it lists them."""
    columns: dict[str, list[Any]] = {name: [] for name in (fields.time, *fields.sequence)}
    lengths, in_events = [], []
    for row, instance in enumerate(instances):
        if type(instance) is not dict:
            raise InstanceError(row, "", f"expected an object, got {called(instance)}")
        if not fields.all >= instance.keys():
            raise InstanceError(row, *_unknown(instance, fields.all, "the model's fields"))
        listed = "events" in instance
        if not listed:
            length = _extend_by_columns(columns, row, instance, fields)
        elif fields.event.isdisjoint(instance):
            length = _extend_by_events(columns, row, instance["events"], fields)
        else:
            raise InstanceError(row, "events", "expected events as a list or as columns, got both")
        if max_events is not None and length > max_events:
            at = "events" if listed else fields.time
            raise InstanceError(row, at, f"expected at most {max_events} events, got {length}")
        lengths.append(length)
        in_events.append(listed)
    return columns, lengths, in_events


def _extend_by_events(columns: dict[str, list[Any]], row: int, events: Any, fields: Fields) -> int:
    if type(events) is not list:
        raise InstanceError(row, "events", f"expected a list of events, got {called(events)}")
    if set(map(type, events)) - {dict}:
        at, event = next((at, event) for at, event in enumerate(events) if type(event) is not dict)
        raise InstanceError(row, f"events[{at}]", f"expected an object, got {called(event)}")
    absent = 0
    try:
        for column, values in zip(columns.values(), zip(*map(fields.of_event, events), strict=True), strict=False):
            column.extend(values)
    except KeyError:  # not every event has every field, which takes twice as long
        for name, column in columns.items():
            given = [event.get(name, _ABSENT) for event in events]
            absent += given.count(_ABSENT)
            column.extend(None if value is _ABSENT else value for value in given)
    # fields counted instead of names compared: nothing is unknown where as many were found as there are
    if sum(map(len, events)) != len(columns) * len(events) - absent:
        at, event = next((at, event) for at, event in enumerate(events) if not fields.event >= event.keys())
        field, message = _unknown(event, fields.event, "the model's event fields")
        raise InstanceError(row, f"events[{at}]{'.' if field else ''}{field}", message)
    return len(events)


def _extend_by_columns(columns: dict[str, list[Any]], row: int, instance: dict[str, Any], fields: Fields) -> int:
    given = {name: instance[name] for name in columns if instance.get(name) is not None}
    for name, values in given.items():
        if type(values) is not list:
            raise InstanceError(row, name, f"expected a list, a value an event, got {called(values)}")
    length = len(given.get(fields.time, ()))
    for name, column in columns.items():
        values = given.get(name, [None] * length)
        if len(values) != length:
            raise InstanceError(row, name, f"expected as many values as {fields.time} has, {length}, got {len(values)}")
        column.extend(values)
    return length


def _unknown(given: Mapping[Any, Any], known: Iterable[str], what: str) -> tuple[str, str]:
    """The path of the first field that the model has not, where it is a name at all, and what it has."""
    name = next(name for name in given if name not in known)
    plain = isinstance(name, str) and name.isidentifier() and len(name) <= 64 and name.isascii()
    return name if plain else "", f"unknown field; expected {what}: {', '.join(sorted(known))}"


def _as_ofs(instances: list[Any], fields: Fields, times: np.ndarray, inside: np.ndarray) -> list[Any]:
    if fields.dated:
        return [instance.get("as_of") for instance in instances]
    # a session is asked about at its last event seen; the epoch where it has none
    last = np.where(inside, times, instants.FIRST).max(axis=1, initial=instants.FIRST)
    ends = np.where(inside.any(axis=1), last, 0) + 1
    given = [instance.get("as_of") for instance in instances]
    return [int(end) if value is None else value for end, value in zip(ends, given, strict=True)]


def _text(values: list[Any]) -> np.ndarray:
    """object [n] of str; '' where null. A NUL ends a string for much that may read it after us, so it is none."""
    kinds = set(map(type, values))
    if type(None) in kinds:
        values = ["" if value is None else value for value in values]
    if kinds <= {str, type(None)}:
        together = "".join(values)
        if together.isascii() and "\0" not in together:
            return np.array(values, object)
    for at, value in enumerate(values):
        if type(value) is not str:
            raise BadValue(at, f"expected text or null, got {called(value)}")
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise BadValue(at, "expected text, got text with a NUL or half a surrogate pair in it")
    return np.array(values, object)


def _numbers(values: list[Any]) -> np.ndarray:
    """float32 [n]; NaN where null."""
    if set(map(type, values)) <= {int, float, type(None)}:
        try:
            found = np.array(values, np.float64)
        except OverflowError:
            pass
        else:
            if not (np.abs(found) > _FLOAT32_MAX).any():
                return found.astype(np.float32)
    for at, value in enumerate(values):
        if type(value) not in (int, float, type(None)):
            raise BadValue(at, f"expected a number or null, got {called(value)}")
        if value is not None and abs(value) > _FLOAT32_MAX:
            raise BadValue(at, "expected a number that 32-bit floats reach (below 3.4e38), got a larger one")
    raise AssertionError("a column of numbers in range was refused")


_READ: dict[str, Callable[[list[Any]], np.ndarray]] = {"categorical": _text, "numeric": _numbers}


def _natural(value: Any) -> Any:
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return None if missing else value
