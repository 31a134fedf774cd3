"""DuckDB as Parcours runs it: its settings, and one line for what it says of broken files and full disks."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from preprocessing.cli import UserError

if TYPE_CHECKING:
    import duckdb

ENVIRONMENT = "PARCOURS_MEMORY"
MEMORY = "1500MB"  # beyond which tables move to disk: a larger events table takes longer, and no more memory


@contextmanager
def opened(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in the directory `scratch`, which spills there too.

    It keeps to MEMORY, or what $PARCOURS_MEMORY says ('8GB'). Raises OSError where the disk is full, UserError where
    that memory is too little or no size.
    """
    import duckdb

    memory = os.environ.get(ENVIRONMENT) or MEMORY
    try:
        with duckdb.connect(str(scratch / "events.duckdb")) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            _limit(connection, memory)
            connection.execute("SET temp_directory = ?", [str(scratch / "spill")])
            connection.execute("SET enable_progress_bar = false")
            yield connection
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        _raise_full(error)
        if isinstance(error, duckdb.OutOfMemoryException):
            raise UserError(
                f"{memory} of memory are not enough to build the journeys, even with the disk's help; "
                f"allow more: {ENVIRONMENT}=8GB, say"
            ) from None
        raise


def _limit(connection: duckdb.DuckDBPyConnection, memory: str) -> None:
    import duckdb

    try:
        connection.execute("SET memory_limit = ?", [memory])
    except duckdb.Error:
        raise UserError(f"{ENVIRONMENT}: expected a size such as 1500MB, 8GB or 50%, got {memory!r}") from None


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turns what DuckDB says of a broken file or query into a UserError, without the cells that it would quote."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        _raise_full(error)
        message = str(error)
        if line := re.search(r"CSV Error on Line: (\d+)", message):
            why = re.search(r"Expected Number of Columns: \d+ Found: \d+|unterminated quote|Invalid unicode", message)
            detail = f" ({why.group(0).lower()})" if why else ""
            raise UserError(f"{place}:{line.group(1)}: not a readable CSV line{detail}") from None
        if isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
            raise UserError(f"{place}: {message.splitlines()[0]}") from None
        if isinstance(error, duckdb.OutOfMemoryException):
            raise UserError(f"{place}: not enough memory to read it; allow more: {ENVIRONMENT}=8GB, say") from None
        if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
            raise UserError(f"{place}: a query or a predicate of the spec cannot be computed for every row") from None
        raise UserError(f"{place}: cannot be read; is the file whole and of the kind its name says?") from None


def _raise_full(error: Exception) -> None:
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        if os.strerror(code) in str(error):
            raise OSError(code, os.strerror(code)) from None


@contextmanager
def without_statistics(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """For reading sources: Parquet's statistics leave NaN out, and DuckDB 2.0 concludes that isnan(x) is false."""
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        yield
    finally:
        connection.execute("SET disabled_optimizers = ''")


class Queried(Protocol):
    """What answers a query, with `?` for its parameters: DuckDB's connection, a session of BigQuery."""

    def execute(self, query: str, parameters: Any = ...) -> Any: ...


def count(connection: Queried, query: str, parameters: list[Any] | None = None) -> int:
    """The one number that a query answers."""
    row = connection.execute(query, parameters or []).fetchone()
    assert row is not None
    return int(row[0])
