"""Events out of a notebook: pandas, Polars or Arrow frames where the commands take files.

A frame is whatever hands itself over by Arrow's C stream interface (`__arrow_c_stream__`: pandas from 2.2, Polars from
1.0); none of these libraries is imported here. Frames are written to Parquet files in a temporary directory, and the
commands' own code reads them.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from preprocessing.cli import UserError
from preprocessing.spec import load_spec
from preprocessing.tolerance import tolerance

if TYPE_CHECKING:
    import pyarrow as pa

    from preprocessing.explore import Explored


class Frame(Protocol):
    """A table in memory."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Frames = Frame | Mapping[str, Frame]


def journeys(
    spec: str | Path,
    events: Frames,
    *,
    key_file: str | None = None,
    as_of: dt.datetime | None = None,
    max_bad_rows: str = "1%",
) -> pa.Table:
    """The journeys of these events, one row each (journeys_schema), as preprocessing.task would make them.

    events: the events' frame, or each of the spec's tables by its name. key_file: as --key_file. as_of: an instant with
    its zone, for journeys to be predicted then; without it they have labels and splits. Raises UserError.
    """
    import pyarrow.parquet as pq

    from preprocessing import keys
    from preprocessing.journeys import build_journeys
    from preprocessing.journeys_schema import journeys_schema

    read = load_spec(spec)
    with as_files(events) as place, tempfile.TemporaryDirectory(prefix="parcours-") as aside:
        made = Path(aside, "journeys")
        made.mkdir()
        key, most = keys.load_key(key_file, make=True), tolerance(max_bad_rows)
        build_journeys(read, place, made, key, predict_as_of=as_of, max_bad_rows=most)
        return pq.read_table(sorted(made.glob("part-*.parquet")), schema=journeys_schema(read))


@contextmanager
def explored(spec: str | Path, events: Frames, *, max_bad_rows: str = "1%") -> Iterator[Explored]:
    """What these events and their journeys hold, before any training: counts and rates, for explore_plots to draw.

    `with explored(spec, events) as found:`, and inside it found.journeys.last_touch(), say: afterwards they are gone.

    events: as `journeys` takes them. Raises UserError.
    """
    from preprocessing import explore

    read, most = load_spec(spec), tolerance(max_bad_rows)
    with (
        as_files(events) as place,
        tempfile.TemporaryDirectory(prefix="parcours-") as aside,
        explore.explored(read, place, Path(aside), max_bad_rows=most, progress=False) as found,
    ):
        yield found


def prepare(spec: str | Path, events: Frames, run_dir: str | Path, *flags: str) -> None:
    """Makes journeys/, records/ and transform/ of `run_dir`, for trainer.task; `flags` are preprocessing.task's others.

    Raises UserError.
    """
    from preprocessing import task

    with as_files(events) as place:
        given = [f"--spec={spec}", f"--events={place}", f"--run_dir={run_dir}", *flags]
        if not _in_ipython():
            task.main(given)
            return
        # where Beam sees IPython it imports its interactive side, which fails with pandas 3; a process shows it none
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(task.main, given).result()


@contextmanager
def as_files(events: Frames) -> Iterator[str]:
    """What --events takes for these frames, as long as the context lasts. An error inside names a frame, not its file.

    Times are kept in microseconds, as journeys have them; what pandas has in nanoseconds is cut. Raises UserError where
    something else than a frame is given.
    """
    _import_duckdb()
    with tempfile.TemporaryDirectory(prefix="parcours-") as directory:
        named = events if isinstance(events, Mapping) else {"events": events}
        for name, frame in named.items():
            if not re.fullmatch(r"\w+", name):
                raise UserError(f"{name!r}: expected a frame's name to be a table's of the spec: letters, digits and _")
            _write(name, frame, Path(directory, f"{name}.parquet"))
        try:
            yield directory if isinstance(events, Mapping) else f"{directory}/events.parquet"
        except UserError as error:
            place = rf"{re.escape(directory)}(?:/(\w+)(?:\.parquet)?)?"
            raise UserError(re.sub(place, lambda m: f"frame {m[1]}" if m[1] else "the frames", str(error))) from None


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _import_duckdb() -> None:
    """Imports DuckDB as a script does. Imported in a notebook without ipywidgets it refuses every setting of its
    progress bar, which engine.py turns off. Raises UserError where that has happened before."""
    main = sys.modules["__main__"]
    if "ipykernel" not in sys.modules or importlib.util.find_spec("ipywidgets") is not None:
        return
    if "duckdb" not in sys.modules and not hasattr(main, "__file__"):
        main.__file__ = ""
        try:
            importlib.import_module("duckdb")
        finally:
            del main.__file__
    import duckdb

    try:
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false")
    except duckdb.InvalidInputException:
        raise UserError(
            "DuckDB was imported before frames were first used, and in a notebook it then wants ipywidgets: "
            "pip install ipywidgets, or import it later"
        ) from None


def _write(name: str, frame: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not hasattr(frame, "__arrow_c_stream__"):
        kind = type(frame).__name__
        raise UserError(f"frame {name}: expected one of pandas, Polars or Arrow, or several by name; got {kind}")
    try:
        table = pa.table(frame)
        for at, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                table = table.set_column(at, table.schema.names[at], _decoded(column))
        pq.write_table(table, path, coerce_timestamps="us", allow_truncated_timestamps=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        # what Arrow says quotes a cell, which may be anybody's
        where = re.search(r"column (.+?) with type|column '?([^':]+)", str(error))
        column = f" column {next(filter(None, where.groups()))!r}:" if where else ""
        raise UserError(
            f"frame {name}:{column} no table of plain values; expected one type a column: texts, numbers or times"
        ) from None


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories as their values; Polars' texts among them have a layout that Parquet's writer doesn't take."""
    import pyarrow as pa

    kind = column.type.value_type
    plain = pa.string() if pa.types.is_string_view(kind) else kind
    return pa.chunked_array([one.dictionary.cast(plain).take(one.indices) for one in column.chunks], plain)
