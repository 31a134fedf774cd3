"""A look at a table: what each column holds, counted by DuckDB in one pass."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from preprocessing import engine
from preprocessing.cli import UserError
from preprocessing.dialect import table_name
from preprocessing.personal import suspicious

if TYPE_CHECKING:
    import duckdb

    from preprocessing.tables import Table, Tables

NUMERIC = ("INT64", "FLOAT64", "NUMERIC")
TIMES = ("TIMESTAMP", "DATETIME", "DATE")
MOST_VALUES = 50  # of which the values themselves are looked at
MOST_TEXTS = 5_000  # distinct texts that are looked at for personal data


@dataclass(frozen=True)
class Column:
    """One column. Shares are of the rows that have a value.

    kind: as BigQuery calls it, for text files what their cells hold throughout; filled: share of rows with a value;
    distinct: how many values, approximately; low, high: of numbers (float) and times (aware datetime); words: the mean
    of a text; personal: what its texts look like, e-mail addresses say; values: value to rows, where there are few.
    """

    name: str
    kind: str
    filled: float
    distinct: int
    low: Any = None
    high: Any = None
    words: float = 0.0
    personal: str = ""
    values: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A table with rows. `sql` reads it with its cells typed."""

    place: str
    rows: int
    columns: tuple[Column, ...]
    is_text: bool
    sql: str

    def named(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def look(connection: duckdb.DuckDBPyConnection, table: Table) -> Profile:
    """Counts what the columns of `table` hold. Raises UserError where it has no rows or cannot be read."""
    from preprocessing.textfiles import infer_kinds

    names = list(table.columns)
    with engine.readable(table.place), engine.without_statistics(connection):
        text = [name for name in names if table.is_text and table.columns[name] == "STRING"]
        kinds = {**table.columns, **infer_kinds(connection, table.relation, text)}
        typed = ", ".join(f"{_typed(name, kinds[name], name in text)} AS {table_name(name)}" for name in names)
        sql = f"SELECT {typed} FROM {table.relation}"
        counted = ["count(*)"]
        for name in names:
            counted += _counts(table_name(name), kinds[name])
        row = connection.execute(f"SELECT {', '.join(counted)} FROM ({sql})").fetchone()
        assert row is not None
        rows, width = row[0], len(_counts("x", "STRING"))
        if not rows:
            raise UserError(f"{table.place}: holds no rows")
        columns = []
        for i, name in enumerate(names):
            present, distinct, low, high, words = row[1 + i * width : 1 + (i + 1) * width]
            values = {}
            if distinct <= MOST_VALUES and kinds[name] in ("STRING", "BOOL", *NUMERIC):
                values = _values(connection, sql, table_name(name))
                distinct = len(values)
            low, high = (_aware(value) if kinds[name] in TIMES else value for value in (low, high))
            looks = _looks(connection, sql, name) if kinds[name] == "STRING" else ""
            columns.append(Column(name, kinds[name], present / rows, distinct, low, high, words or 0.0, looks, values))
    return Profile(table.place, rows, tuple(columns), table.is_text, sql)


def choose(tables: Tables, place: str, name: str | None) -> tuple[str, Table]:
    """What the spec calls the events table of `place`, and the table: `name`, the only one, or `events`."""
    if name is not None:
        return name, tables.open(name, "--table")
    found = tables.names()
    if found is None:
        return "events", tables.open_events("events")
    chosen = "events" if "events" in found else found[0] if len(found) == 1 else ""
    if not chosen:
        named = ", ".join(found) or "none"
        raise UserError(f"{place}: which table holds the events? Name one with --table; found {named}")
    return chosen, tables.open(chosen, "events.table")


def _typed(name: str, kind: str, is_text: bool) -> str:
    column = table_name(name)
    if kind in TIMES:  # a time without a zone is UTC, as everywhere
        return f"TRY_CAST({column} AS TIMESTAMPTZ)"
    if not is_text:
        return f"CAST({column} AS DOUBLE)" if kind == "NUMERIC" else column
    empty = f"nullif(trim({column}), '')"
    types = {"INT64": "BIGINT", "FLOAT64": "DOUBLE", "BOOL": "BOOLEAN"}
    return f"TRY_CAST({empty} AS {types[kind]})" if kind in types else empty


def _counts(column: str, kind: str) -> list[str]:
    is_text, ordered = kind == "STRING", kind in TIMES or kind in NUMERIC
    value = f"nullif(trim({column}), '')" if is_text else column
    finite = f"FILTER (isfinite({column}))" if ordered and kind != "INT64" else ""
    return [
        f"count({value})",
        f"approx_count_distinct({value})" if is_text or ordered or kind == "BOOL" else "0",
        f"min({column}) {finite}" if ordered else "NULL",
        f"max({column}) {finite}" if ordered else "NULL",
        f"avg(array_length(string_split_regex({value}, '\\s+')))" if is_text else "NULL",
    ]


def _values(connection: duckdb.DuckDBPyConnection, sql: str, column: str) -> dict[str, int]:
    query = (
        f"SELECT CAST({column} AS VARCHAR) AS value, count(*) AS n FROM ({sql}) WHERE {column} IS NOT NULL GROUP BY 1"
    )
    return dict(connection.execute(f"{query} ORDER BY n DESC, value LIMIT {2 * MOST_VALUES}").fetchall())


def _looks(connection: duckdb.DuckDBPyConnection, sql: str, name: str) -> str:
    """What most of the texts that look like personal data look like; "" where none does."""
    column = table_name(name)
    query = f"SELECT DISTINCT {column} FROM ({sql}) WHERE {column} IS NOT NULL LIMIT {MOST_TEXTS}"
    found = Counter(suspicious((row[0] for row in connection.execute(query).fetchall()), name).values())
    return min(found, key=lambda kind: (-found[kind], kind), default="")


def _aware(value: dt.datetime | None) -> dt.datetime | None:
    return None if value is None else value.astimezone(dt.UTC)
