"""Points in time as requests write them, as UTC microseconds."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import pyarrow as pa

EXPECTED = "an instant with its zone, such as 2026-06-01T00:00:00Z, or UTC microseconds as an integer"
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
MOST_SECONDS = 8e9  # since a session's start: what preprocessing takes
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?) ?(Z|UTC|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
)


class BadValue(ValueError):
    """The first value of a column that cannot be used: `at`, its index, and what was expected instead."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at, self.message = at, message


def micros(values: list[Any]) -> np.ndarray:
    """int64 [n]: RFC 3339 text (also with a space for the T, or " UTC" for the Z, as BigQuery writes) or integers.

    Digits beyond the microsecond are cut off. Raises BadValue for anything else, and outside the years 1 to 9999.
    """
    kinds = set(map(type, values))
    try:
        if kinds <= {int}:
            found = np.array(values, np.int64)
        elif kinds == {str}:
            # Arrow reads most of it some twenty times as fast as datetime; what it refuses is read one by one
            text = pa.array(values, pa.string()).cast(pa.timestamp("us", "UTC"))
            found = text.cast(pa.int64()).to_numpy(zero_copy_only=False)
        else:
            return _one_by_one(values)
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        return _one_by_one(values)
    if len(found) and (found.min() < FIRST or found.max() > LAST):
        return _one_by_one(values)
    return found


def micros_of_seconds(values: list[Any]) -> np.ndarray:
    """int64 [n]: seconds since a session's start, rounded to microseconds, halves away from zero."""
    for at, value in enumerate(values) if set(map(type, values)) - {int, float} else ():
        if type(value) not in (int, float):
            raise BadValue(at, f"expected seconds since the start, a number, got {called(value)}")
    for at, value in enumerate(values):
        if not abs(value) <= MOST_SECONDS:
            raise BadValue(at, f"expected seconds since the start, at most {MOST_SECONDS:.0e} of them")
    exact = np.array(values, np.float64) * 1e6
    return np.trunc(exact + np.copysign(0.49999999999999994, exact)).astype(np.int64)


def text(instant: int) -> str:
    """UTC microseconds as RFC 3339."""
    return (_EPOCH + dt.timedelta(microseconds=int(instant))).isoformat().replace("+00:00", "Z")


def called(value: Any) -> str:
    """What a JSON value is, in words; never the value itself, which may be a customer's."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def _one_by_one(values: list[Any]) -> np.ndarray:
    return np.array([_micros(at, value) for at, value in enumerate(values)], np.int64)


def _micros(at: int, value: Any) -> int:
    if type(value) is int or (type(value) is float and value.is_integer()):
        instant = int(value)  # to JSON, 1.0 is an integer too
    elif type(value) is str:
        instant = _read(at, value)
    else:
        got = "a number with a fraction" if type(value) is float else called(value)
        raise BadValue(at, f"expected {EXPECTED}, got {got}")
    if not FIRST <= instant <= LAST:
        raise BadValue(at, "expected an instant in the years 1 to 9999, got one outside")
    return instant


def _read(at: int, value: str) -> int:
    found = _INSTANT.fullmatch(value)
    if found is None:
        raise BadValue(at, f"expected {EXPECTED}, got other text")
    day, time, zone = found.groups()
    if zone.upper() in ("Z", "UTC"):
        zone = "+00:00"
    try:
        # without its zone first: an offset may lead out of datetime's years
        local = dt.datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=dt.UTC)
        offset = dt.datetime.fromisoformat(f"2000-01-01T00:00{zone}").utcoffset()
    except ValueError:
        raise BadValue(at, f"expected {EXPECTED}, got a day or time that is in no calendar") from None
    assert offset is not None, "the pattern asks for a zone"
    return (local - _EPOCH) // dt.timedelta(microseconds=1) - offset // dt.timedelta(microseconds=1)
