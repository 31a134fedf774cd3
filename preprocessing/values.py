"""The values of a journey spec that are more than texts and numbers: instants, days, shares, conditions."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

MOST_DAYS = 36_500  # of a window
YEARS = range(1900, 2200)  # of a spec's dates
UTC = dt.timezone.utc  # noqa: UP017, which wants a name that Python 3.10 has not, and the trainer runs there too


def _as_utc(value: object) -> dt.datetime:
    """Dates are midnight UTC and times without a zone are UTC, so that a spec means the same on every machine."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"expected a date such as 2026-01-05, got {value!r}") from None
    if not isinstance(value, dt.date):  # which a datetime is, too
        raise ValueError(f"expected a date such as 2026-01-05, got {value!r}")
    if value.year not in YEARS:  # windows reach days before and after, and no calendar goes on for ever
        raise ValueError(f"expected a date within {YEARS[0]} to {YEARS[-1]}, got {value}")
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return dt.datetime(value.year, value.month, value.day, tzinfo=UTC)


def _no_blank(condition: str) -> str:
    """A blank one would be taken for none, and everybody meets that."""
    if not condition.strip():
        raise ValueError(f"expected a condition, got {condition!r}")
    return condition


Instant = Annotated[dt.datetime, BeforeValidator(_as_utc)]
Condition = Annotated[str, AfterValidator(_no_blank)]
Share = Annotated[float, Field(ge=0, lt=1)]
Days = Annotated[int, Field(gt=0, le=MOST_DAYS)]
