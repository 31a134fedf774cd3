"""How a source column of any type becomes one of the four things that journeys.sql knows: id, text, number, instant.

Everything here is GoogleSQL text. A column's kind is BigQuery's name for its type: STRING, INT64, FLOAT64, NUMERIC,
BOOL, DATE, DATETIME (no zone: read as UTC), TIMESTAMP. STRING columns hold numbers and times as text (all of CSV does):
what the patterns below admit means the same to both engines, and nothing else is handed to SAFE_CAST.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from preprocessing.cli import UserError, visible

IDS = ("STRING", "INT64")
TEXTS = ("STRING", "INT64", "BOOL", "DATE")
NUMBERS = ("INT64", "FLOAT64", "NUMERIC", "BOOL", "STRING")
TRUTHS = ("BOOL", "INT64", "STRING")
INSTANTS = ("TIMESTAMP", "DATETIME", "DATE", "STRING")
ORDERED = ("STRING", "INT64", "FLOAT64", "NUMERIC", "BOOL", "DATE", "DATETIME", "TIMESTAMP")

LARGEST = "1e15"  # beyond it a float64 no longer counts in units, and signed log1p in float32 tells nothing apart
EARLIEST_US = -2_208_988_800_000_000  # 1900-01-01
LATEST_US = 7_258_118_400_000_000  # 2200-01-01

BLANK = r"^\s*$"
NUMBER = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?\s*$"
NOT_A_NUMBER = r"^\s*[+-]?(?i:nan)\s*$"
INFINITE = r"^\s*[+-]?(?i:inf|infinity)\s*$"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_ZONE = r"(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00))?"
INSTANT = rf"^\s*[12]\d{{3}}-\d{{2}}-\d{{2}}([T ]{_CLOCK}(:[0-5]\d(\.\d{{1,9}})?)?{_ZONE})?\s*$"


@dataclass(frozen=True)
class Column:
    """A source column: `place` names it in errors, `sql` is how a query calls it."""

    place: str
    name: str
    kind: str
    sql: str


@dataclass(frozen=True)
class Problem:
    """A reason to set a row aside: `condition` over the row's canonical values, `shown` the source value, if any."""

    reason: str
    column: str
    condition: str
    shown: str | None = None


def find(columns: Mapping[str, str], name: str, *, key: str, place: str, expected: tuple[str, ...], sql: str) -> Column:
    """The column `name` among `columns` (name to kind), which SQL calls `sql`.

    Raises UserError where it is not there or of no expected kind.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1, cutoff=0.6) or [
            c for c in columns if c.casefold() == name.casefold()
        ]
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"{place}: {key}: no column {name!r}; {hint or 'expected one of ' + visible(', '.join(columns))}"
        )
    kind = columns[name]
    if kind not in expected:
        raise UserError(f"{place}: {key}: column {name!r} is {kind}; expected {' or '.join(expected)}")
    return Column(place, name, kind, sql)


def text(column: Column) -> str:
    """STRING; NULL where missing. FLOAT64 and NUMERIC are refused before: the engines print them differently."""
    return column.sql if column.kind == "STRING" else f"CAST({column.sql} AS STRING)"


def number(column: Column) -> str:
    """FLOAT64; NULL where missing, NaN or, in text, unreadable or infinite. No negative zero."""
    raw = column.sql
    value = {
        "INT64": f"CAST({raw} AS FLOAT64)",
        "BOOL": f"CAST(CAST({raw} AS INT64) AS FLOAT64)",
        # DuckDB's own cast of DECIMAL divides twice-rounded integers; its text is read exactly
        "NUMERIC": f"CAST(CAST({raw} AS STRING) AS FLOAT64)",
        "FLOAT64": f"IF(IS_NAN({raw}), NULL, {raw})",
        "STRING": f"IF(REGEXP_CONTAINS({raw}, r'{NUMBER}'), "
        rf"SAFE_CAST(REGEXP_REPLACE({raw}, r'\s', '') AS FLOAT64), NULL)",
    }[column.kind]
    return f"({value}) + 0.0"  # -0.0 + 0.0 is 0.0: one zero, so that ties are ties


def truth(column: Column) -> str:
    """BOOL of a column of TRUTHS: of 0 and 1, true and false; NULL for all else."""
    raw = column.sql
    return {
        "BOOL": raw,
        "INT64": f"IF({raw} IN (0, 1), {raw} = 1, NULL)",
        "STRING": rf"IF(REGEXP_CONTAINS({raw}, r'^\s*(?i:0|1|true|false)\s*$'), "
        rf"REGEXP_CONTAINS({raw}, r'^\s*(?i:1|true)\s*$'), NULL)",
    }[column.kind]


def micros(column: Column) -> str:
    """INT64, microseconds since 1970 in UTC; NULL where missing or, in text, not an ISO 8601 date or time."""
    raw = column.sql
    if column.kind == "TIMESTAMP":
        return f"UNIX_MICROS({raw})"
    if column.kind in ("DATE", "DATETIME"):
        return f"UNIX_MICROS(TIMESTAMP({raw}))"
    whole = rf"REGEXP_REPLACE(REGEXP_REPLACE({raw}, r'\.(\d{{6}})\d+', r'.\1'), r'^\s+|\s+$', '')"
    # a time of day without seconds gets them: DuckDB would read it, BigQuery would not
    whole = rf"REGEXP_REPLACE({whole}, r'^(.{{10}})[T ](\d\d:\d\d)(Z|[+-]\d\d:\d\d)?$', r'\1 \2:00\3')"
    return f"IF(REGEXP_CONTAINS({raw}, r'{INSTANT}'), UNIX_MICROS(SAFE_CAST({whole} AS TIMESTAMP)), NULL)"


def typed(column: Column, kind: str) -> str:
    """The column as a predicate sees it: NaN is missing, and text known to hold another `kind` is read as that."""
    if column.kind == "STRING" and kind in ("INT64", "BOOL", "DATE"):
        return rf"SAFE_CAST(REGEXP_REPLACE({column.sql}, r'\s', '') AS {kind})"
    if column.kind == "STRING" and kind == "FLOAT64":
        return number(column)
    if column.kind == "STRING" and kind == "TIMESTAMP":
        return f"TIMESTAMP_MICROS({micros(column)})"
    return f"IF(IS_NAN({column.sql}), NULL, {column.sql})" if kind == "FLOAT64" else column.sql


def number_text(value: str) -> str:
    """STRING of a FLOAT64 expression, the same in every engine: the whole part, a point, and the billionths above it.

    NULL where missing, infinite, or beyond what INT64 holds.
    """
    return (
        f"CONCAT(CAST(SAFE_CAST(FLOOR({value}) AS INT64) AS STRING), '.', "
        f"CAST(SAFE_CAST(FLOOR(({value} - FLOOR({value})) * 1e9) AS INT64) AS STRING))"
    )


def missing(column: Column, raw: str) -> str:
    """A condition: nothing stands there. Blank text is nothing, where a number or a time is expected."""
    return f"({raw} IS NULL OR REGEXP_CONTAINS({raw}, r'{BLANK}'))" if column.kind == "STRING" else f"{raw} IS NULL"


def number_problems(
    column: Column, raw: str, value: str, low: float | None, high: float | None
) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """What may be wrong with a number: unparsable, beyond all measure, out of the field's bounds."""
    name, is_text = column.name, column.kind == "STRING"
    unparsable = f"NOT REGEXP_CONTAINS({raw}, r'{BLANK}|{NUMBER}|{NOT_A_NUMBER}|{INFINITE}')"
    huge = f"ABS({value}) > {LARGEST}" + (f" OR REGEXP_CONTAINS({raw}, r'{INFINITE}')" if is_text else "")
    bounds = [f"{value} < {low!r}"] * (low is not None) + [f"{value} > {high!r}"] * (high is not None)
    return (
        [Problem("unparsable number", name, unparsable, raw)] if is_text else [],
        [Problem("infinite or absurd number", name, huge, raw)],
        [Problem("number out of bounds", name, " OR ".join(bounds), raw)] if bounds else [],
    )


def instant_problems(column: Column, raw: str, value: str, what: str) -> list[Problem]:
    """What may be wrong with an instant: missing, unparsable."""
    return [
        Problem(f"null {what}", column.name, missing(column, raw)),
        Problem(f"unparsable {what}", column.name, f"{value} IS NULL", raw),
    ]


def absurd(column: Column, raw: str, value: str) -> Problem:
    return Problem("absurd time", column.name, f"{value} < {EARLIEST_US} OR {value} >= {LATEST_US}", raw)
