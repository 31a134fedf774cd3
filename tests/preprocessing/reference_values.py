"""What the reference makes of a source's values: instants, numbers, text, hashes, each in a few lines of Python."""

import datetime as dt
import hashlib
import hmac
import math
import re
from decimal import Decimal

DAY = 86_400_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def micros(value):
    """Microseconds since 1970 of a date, a time with or without zone, or ISO text; None where it is none."""
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[12]\d{3}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?", text):
            return None
        text = re.sub(r"\.(\d{1,6})\d*", lambda m: "." + m.group(1).ljust(6, "0"), text)
        try:
            value = dt.datetime.fromisoformat(text)
        except ValueError:
            return None
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return (value - EPOCH) // dt.timedelta(microseconds=1)


def instant(us):
    return EPOCH + dt.timedelta(microseconds=us)


def text(value):
    """A categorical value; '' where missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def number(value):
    """(value or None where missing, reason to set aside or None)."""
    if value is None:
        return None, None
    if isinstance(value, str):
        stripped = value.strip()
        if not stripped or stripped.lower().lstrip("+-") == "nan":
            return None, None
        if stripped.lower().lstrip("+-") in ("inf", "infinity"):
            return None, "infinite or absurd number"
        if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", stripped):
            return None, "unparsable number"
        value = stripped
    value = float(value)
    if math.isnan(value):
        return None, None
    return value + 0.0, ("infinite or absurd number" if abs(value) > 1e15 else None)


def truth(value):
    """True or False of a flag told as such, as 0 or 1, or as text; None of all else."""
    if isinstance(value, str):
        return {"1": True, "true": True, "0": False, "false": False}.get(value.strip().lower())
    return bool(value) if value in (0, 1) else None


def blank(value):
    return value is None or (isinstance(value, str) and not value.strip())


def plain(value):
    """A value as predicates see it and as ties are ordered by: NaN is missing, instants are numbers."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dt.datetime):
        return micros(value)
    return value


def none_first(value):
    return (value is not None, value)


def digest(*parts):
    return int(hashlib.sha256("".join(parts).encode()).hexdigest()[:16], 16)


def share(fraction):
    return int(fraction * 2**64)


def sign(key, message):
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def context_text(value):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dt.datetime):
        return str(micros(value))
    if isinstance(value, float | Decimal):
        value = float(value) + 0.0
        if abs(value) >= 2**63:
            return ""
        return f"{math.floor(value)}.{math.floor((value - math.floor(value)) * 1e9)}"
    return text(value)


def numbers_of(row, fields):
    """The numeric fields' values, and the first reason against one: unparsable, then infinite, then out of bounds."""
    values, reasons = [], []
    for f in fields:
        value, reason = number(row[f.column])
        values.append(value)
        if reason is None and value is not None:
            low, high = f.min, f.max
            if (low is not None and value < low) or (high is not None and value > high):
                reason = "number out of bounds"
        reasons.append(reason)
    for reason in ("unparsable number", "infinite or absurd number", "number out of bounds"):
        if reason in reasons:
            return values, reason
    return values, None


def seconds_in_micros(value):
    """Seconds to whole microseconds, halves away from zero; None where missing or unreadable."""
    value, reason = number(value)
    if value is None or reason or abs(value) > 8e9:
        return None
    size = abs(value * 1e6)
    whole = math.floor(size) + (size - math.floor(size) >= 0.5)
    return whole if value >= 0 else -whole
