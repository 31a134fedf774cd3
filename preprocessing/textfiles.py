"""CSV and JSON Lines as DuckDB reads them here: every column as text, so that a bad cell is a row to set aside.

What the columns are is read by Python: DuckDB's own guess at a CSV file skips lines that it finds odd.
"""

from __future__ import annotations

import gzip
import re
import zlib
from csv import reader
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing import engine
from preprocessing.cli import UserError, visible
from preprocessing.columns import INSTANT, NUMBER
from preprocessing.dialect import duckdb_files, duckdb_text, table_name

if TYPE_CHECKING:
    import duckdb

_PATTERNS = {
    "INT64": r"^\s*[+-]?\d{1,18}\s*$",
    "FLOAT64": NUMBER,
    "BOOL": r"^\s*(?i:true|false)\s*$",
    "DATE": r"^[12]\d{3}-\d{2}-\d{2}$",
    "TIMESTAMP": INSTANT,
}


def csv(files: list[Path]) -> str:
    """A relation of DuckDB for CSV files of one header. Raises UserError where they have none, or not the same."""
    headers = [header(path) for path in files]
    delimiter, columns = headers[0]
    for path, other in zip(files, headers, strict=True):
        if other != headers[0]:
            raise UserError(f"{path}: its header differs from that of {files[0].name}")
    return (
        f"read_csv({duckdb_files(files)}, auto_detect=false, header=true, delim={duckdb_text(delimiter)}, "
        f"quote='\"', escape='\"', columns={_all_text(columns)})"
    )


def jsonl(connection: duckdb.DuckDBPyConnection, files: list[Path], place: str) -> str:
    """A relation of DuckDB for files of one JSON object a line; a line that is none becomes a row of nulls."""
    source = f"read_json({duckdb_files(files)}, format='newline_delimited', ignore_errors=true, "
    with engine.readable(place):
        # all of the file is looked at: a key that comes late is a column nonetheless
        found = connection.execute(f"DESCRIBE SELECT * FROM {source}sample_size=-1, maximum_depth=1)").fetchall()
    names = [name for name, *_ in found]
    if names in ([], ["json"]):
        raise UserError(f"{place}: holds no JSON objects, one a line")
    return f"{source}columns={_all_text(names)})"


def _all_text(names: list[str]) -> str:
    return "{" + ", ".join(f"{duckdb_text(name)}: 'VARCHAR'" for name in names) + "}"


def header(path: Path) -> tuple[str, list[str]]:
    """Delimiter (one of , ; tab |) and column names of a CSV file, by its first line; UserError where it has none."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            line = file.readline().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or 'not a gzip file'}") from None
    except EOFError:
        raise UserError(f"{path}: cannot be read: the gzip file ends too early") from None
    except zlib.error:
        raise UserError(f"{path}: cannot be read: the gzip file is damaged") from None
    unquoted = re.sub(r'"[^"]*"', "", line)
    delimiter = max(",;\t|", key=unquoted.count)
    columns = next(reader([line], delimiter=delimiter), [])
    if not line.strip():
        raise UserError(f"{path}: empty; expected a line of column names")
    doubled = sorted({name for name in columns if [c.lower() for c in columns].count(name.lower()) > 1})
    if doubled or "" in columns:
        raise UserError(
            f"{path}: the first line names {'a column twice: ' + visible(doubled[0]) if doubled else 'an empty column'}"
        )
    return delimiter, columns


def infer_kinds(connection: duckdb.DuckDBPyConnection, relation: str, names: list[str]) -> dict[str, str]:
    """The kinds that text columns hold throughout: INT64, FLOAT64, BOOL, DATE, TIMESTAMP, else STRING.

    A predicate over such a column, and the order of events by it, then mean what they say: 10 comes after 9.
    """
    if not names:
        return {}
    parts = [
        f"coalesce(bool_and({column} IS NULL OR regexp_matches({column}, {duckdb_text(pattern)})) "
        f"AND count({column}) > 0, false)"
        for column in map(table_name, names)
        for pattern in _PATTERNS.values()
    ]
    row = connection.execute(f"SELECT {', '.join(parts)} FROM {relation}").fetchone()
    assert row is not None
    found = {}
    for i, name in enumerate(names):
        holds = row[i * len(_PATTERNS) : (i + 1) * len(_PATTERNS)]
        found[name] = next((kind for kind, is_kind in zip(_PATTERNS, holds, strict=True) if is_kind), "STRING")
    return found
