"""Local tables in DuckDB: Parquet, CSV and JSON Lines files, globs, directories, DuckDB databases, queries over them.

Each table becomes a view whose columns have BigQuery's types, with the row's number beside them. CSV and JSON Lines are
read as text throughout, so that a bad cell is a row to set aside and not the end of the run. No error quotes a cell.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from preprocessing import dialect, engine, textfiles
from preprocessing.cli import UserError
from preprocessing.mirror import Mirror
from preprocessing.spec import AnySpec, JourneysSpec
from preprocessing.storage import is_remote

if TYPE_CHECKING:
    import duckdb

_COUNTED = "row_number() OVER ()"
_VIRTUAL = {"file_row_number", "file_index"}  # columns that read_parquet adds to every file
PARQUET = (".parquet", ".pq")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
JSONL = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
DATABASE = (".duckdb", ".db", ".ddb")
_FILES = (*PARQUET, *CSV, *JSONL)
QUERY = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)

_KINDS = {
    "VARCHAR": "STRING",
    "UUID": "STRING",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "INT64"),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT"), "INT64"),
    "FLOAT": "FLOAT64",
    "DOUBLE": "FLOAT64",
    "BOOLEAN": "BOOL",
    "DATE": "DATE",
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "DATETIME"),
    **dict.fromkeys(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"), "TIMESTAMP"),
}


@dataclass(frozen=True)
class Table:
    """`relation` is what SQL calls it, `place` what errors do; `columns` name to kind; `is_text`: STRING says nothing.

    Where `is_text`, the rows come from files in which each cell is text, and a STRING may be of any kind. `row` is what
    SQL calls the number of a row, NULL where rows have none; its column is none of `columns`.
    """

    place: str
    relation: str
    columns: dict[str, str]
    is_text: bool
    row: str


class Opens(Protocol):
    """What finds the spec's tables, here or in BigQuery."""

    def open_events(self, table: str) -> Table: ...

    def open(self, table: str, key: str) -> Table: ...


def open_sources(spec: AnySpec, tables: Opens, *, assigned: bool) -> dict[str, Table]:
    """The spec's tables by the part they play, events first; the assignments, where it has any, if `assigned`."""
    sources = {"events": tables.open_events(spec.events.table)}
    if isinstance(spec, JourneysSpec):
        sources["journeys"] = tables.open(spec.journeys.table, "journeys.table")
    elif spec.customer is not None:
        sources["customers"] = tables.open(spec.customer.table, "customer.table")
    if spec.assignments is not None and assigned:
        sources["assignments"] = tables.open(spec.assignments.table, "campaigns.assignments.table")
    return sources


@dataclass
class Tables:
    """Finds the spec's tables where `events` (a file, a glob, a directory, a DuckDB database) says, and opens them.

    Under gs:// they are copied to disk first.
    """

    connection: duckdb.DuckDBPyConnection
    events: str
    _database: bool = field(init=False, default=False)
    _base: Path = field(init=False)
    _files: list[Path] = field(init=False, default_factory=list)
    _count: int = field(init=False, default=0)
    _mirror: Mirror | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._mirror = Mirror(self.events) if is_remote(self.events) else None
        events = self._mirror.events if self._mirror else self.events
        path = Path(events)
        self._base = path.parent
        if path.is_dir():
            self._base = path
        elif path.is_file() and _suffix(path, DATABASE):
            self._attach(path)
        elif path.is_file():
            self._files = [path]
        elif _is_pattern(events):
            self._files = _matching(Path(), events, "--events")
            while not self._base.is_dir():
                self._base = self._base.parent
            if not self._files:
                raise UserError(f"{self.events}: no file matches this pattern")
        else:
            raise UserError(f"{self.events}: no such file or directory; expected the events table")

    def open_events(self, table: str) -> Table:
        """The events table: what --events says, where that is a file or a glob, else `table` by name or query."""
        if self._files and not QUERY.match(table):
            return self._open_files(self._files, self.events)
        return self.open(table, "events.table")

    def open(self, table: str, key: str) -> Table:
        """A table of the spec by name or query; `key` is the spec's. Raises UserError where it cannot be had."""
        if QUERY.match(table):
            return self._open_query(table, key)
        if self._database:
            return self._open_view(f"{key}: {table}", self._in_database(table, key), is_text=False)
        return self._open_files(*self._find(table, key))

    def names(self) -> list[str] | None:
        """The tables of a directory or a database, sorted; None where `events` is a file or a glob, one table, or lies
        under gs://, of which only what is asked for comes here."""
        if self._database:
            return sorted(self._of_database())
        if self._files or self._mirror is not None:
            return None
        inside = [entry for entry in self._base.iterdir() if not entry.name.startswith(".")]
        files = {entry.name: _suffix(entry, _FILES) for entry in inside if entry.is_file()}
        return sorted(
            {name[: -len(suffix)] for name, suffix in files.items() if suffix}
            | {entry.name for entry in inside if entry.is_dir() and any(_suffix(p, _FILES) for p in entry.iterdir())}
        )

    def _attach(self, path: Path) -> None:
        import duckdb

        self._database = True
        try:
            with duckdb.connect(str(path), read_only=True):
                pass
            self.connection.execute(f"ATTACH {dialect.duckdb_text(str(path))} AS source_database (READ_ONLY)")
        except duckdb.Error:
            raise UserError(f"{path}: cannot be opened as a DuckDB database; is it one, and free of writers?") from None

    def _of_database(self) -> dict[str, tuple[str, str]]:
        """Schema and name of each table and view, by what a spec calls it."""
        found = self.connection.execute(
            "SELECT schema_name, table_name FROM (SELECT schema_name, table_name, database_name FROM duckdb_tables() "
            "UNION ALL SELECT schema_name, view_name, database_name FROM duckdb_views() WHERE NOT internal) "
            "WHERE database_name = 'source_database'"
        ).fetchall()
        return {f"{s}.{t}" if s != "main" else t: (s, t) for s, t in found}

    def _in_database(self, table: str, key: str) -> str:
        names = self._of_database()
        if table not in names:
            raise UserError(f"{self.events}: {key}: no table {table!r}; expected one of {', '.join(sorted(names))}")
        schema, name = names[table]
        return f"source_database.{dialect.table_name(schema)}.{dialect.table_name(name)}"

    def _find(self, table: str, key: str) -> tuple[list[Path], str]:
        if self._mirror is not None:
            self._mirror.fetch(table)
        whole = self._base / table
        show = str if self._mirror is None else self._mirror.shown
        shown = show(whole)
        if whole.is_file():
            return [whole], shown
        if _is_pattern(table):
            matches = _matching(self._base, table, key)
        elif whole.is_dir():
            matches = sorted(p for p in whole.iterdir() if _suffix(p, _FILES))
        else:
            matches = [p for suffix in _FILES if (p := whole.with_name(whole.name + suffix)).is_file()]
            if len(matches) > 1:
                raise UserError(
                    f"{shown}: {key}: found {' and '.join(p.name for p in matches)}; name one with its suffix"
                )
        if not matches:
            raise UserError(f"{shown}: {key}: no such table; expected {table} with one of {' '.join(_FILES)}")
        return matches, show(matches[0]) if len(matches) == 1 else shown

    def _open_files(self, files: list[Path], place: str) -> Table:
        suffixes = {
            _suffix(path, kinds) and kinds for path in files for kinds in (PARQUET, CSV, JSONL) if _suffix(path, kinds)
        }
        if len(suffixes) != 1 or not all(_suffix(path, _FILES) for path in files):
            raise UserError(f"{place}: expected files of one kind, with one of {' '.join((*_FILES, *DATABASE))}")
        kinds = suffixes.pop()
        if kinds == PARQUET:
            listed = dialect.duckdb_files(files)
            return self._open_view(place, f"read_parquet({listed})", is_text=False, row=self._row(place, listed))
        relation = textfiles.csv(files) if kinds == CSV else textfiles.jsonl(self.connection, files, place)
        return self._open_view(place, relation, is_text=True)

    def _row(self, place: str, files: str) -> str:
        """A row's number, through all files, by what Parquet says: DuckDB counts by one thread alone."""
        with engine.readable(place):
            counts = self.connection.execute(f"SELECT num_rows FROM parquet_file_metadata({files})").fetchall()
        *before, _ = itertools.accumulate((n for (n,) in counts), initial=0)
        return f"CAST({before} AS INT64[])[CAST(file_index AS INT64) + 1] + file_row_number + 1"

    def _open_query(self, query: str, key: str) -> Table:
        from preprocessing import queries

        def opened(name: str) -> Table:
            is_events = name == "events" and self._files
            return self._open_files(self._files, self.events) if is_events else self.open(name, key)

        relation, is_text = queries.over(query, key, opened)
        return self._open_view(key, f"({relation})", is_text=is_text)

    def _open_view(self, place: str, relation: str, *, is_text: bool, row: str = _COUNTED) -> Table:
        self._count += 1
        view = f"source_{self._count}"
        with engine.readable(place):
            found = self.connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            columns = {name: (_kind(kind), kind) for name, kind, *_ in found}
            values = ", ".join(
                f"{_canonical(dialect.table_name(name), kind)} AS {dialect.table_name(name)}"
                for name, (_, kind) in columns.items()
            )
            taken = {name.lower() for name in columns}
            if _VIRTUAL & taken:  # which a column of that name hides
                row = _COUNTED
            number = "source_row"
            while number in taken:
                number += "_"
            self.connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {values}, {row} AS {number} FROM {relation}")
        kinds = {name: kind for name, (kind, _) in columns.items()}
        return Table(place, view, kinds, is_text, f"source.{number}")


def _kind(duckdb_type: str) -> str:
    if duckdb_type.startswith("DECIMAL"):
        return "NUMERIC"
    if duckdb_type.startswith("ENUM"):
        return "STRING"
    return _KINDS.get(duckdb_type, duckdb_type)


def _canonical(name: str, duckdb_type: str) -> str:
    """The column in the type that BigQuery would give it."""
    if duckdb_type in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):  # floor to microseconds; DuckDB's cast would round
        nanos, make = f"epoch_ns({name})", "make_timestamptz" if "TZ" in duckdb_type else "make_timestamp"
        return f"{make}(({nanos} - (({nanos} % 1000) + 1000) % 1000) // 1000)"
    if duckdb_type in ("TIMESTAMP_S", "TIMESTAMP_MS"):
        return f"CAST({name} AS TIMESTAMP)"
    if duckdb_type == "UUID" or duckdb_type.startswith("ENUM"):
        return f"CAST({name} AS VARCHAR)"
    if duckdb_type == "FLOAT":
        return f"CAST({name} AS DOUBLE)"
    return name


def _is_pattern(text: str) -> bool:
    return any(letter in text for letter in "*?[")


def _matching(base: Path, pattern: str, key: str) -> list[Path]:
    """The files that a pattern names, which `base` is looked up in unless it is absolute. Raises UserError for one that
    is no pattern."""
    fixed = Path(base, pattern)
    place = next((parent for parent in fixed.parents if parent.is_dir()), Path())
    try:
        return sorted(path for path in place.glob(str(fixed.relative_to(place))) if path.is_file())
    except ValueError as error:
        raise UserError(f"{key}: {pattern}: no pattern of files: {error}") from None


def _suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The longest of the suffixes that the name ends with; '' where it does with none."""
    return max((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), key=len, default="")
