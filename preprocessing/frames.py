"""Events out of a notebook: pandas, Polars or Arrow frames where the commands take files.

A frame is whatever hands itself over by Arrow's C stream interface (`__arrow_c_stream__`: pandas from 2.2, Polars from
1.0); none of these libraries is imported here. Frames are written to Parquet files in a temporary directory, and the
commands' own code reads them.
"""

from __future__ import annotations

import datetime as dt
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from preprocessing.cli import UserError
from preprocessing.spec import load_spec
from preprocessing.tolerance import tolerance

if TYPE_CHECKING:
    import pyarrow as pa


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
        key, most = keys.load_key(key_file), tolerance(max_bad_rows)
        build_journeys(read, place, made, key, predict_as_of=as_of, max_bad_rows=most)
        return pq.read_table(sorted(made.glob("part-*.parquet")), schema=journeys_schema(read))


def prepare(spec: str | Path, events: Frames, run_dir: str | Path, *flags: str) -> None:
    """Makes journeys/, records/ and transform/ of `run_dir`, for trainer.task; `flags` are preprocessing.task's others.

    Raises UserError.
    """
    from preprocessing import task

    with as_files(events) as place:
        task.main([f"--spec={spec}", f"--events={place}", f"--run_dir={run_dir}", *flags])


@contextmanager
def as_files(events: Frames) -> Iterator[str]:
    """What --events takes for these frames, as long as the context lasts. An error inside names a frame, not its file.

    Times are kept in microseconds, as journeys have them; what pandas has in nanoseconds is cut. Raises UserError where
    something else than a frame is given.
    """
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
        raise UserError(f"frame {name}: no table of plain values: {' '.join(str(error).split())[:200]}") from None


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories as their values; Polars' texts among them have a layout that Parquet's writer doesn't take."""
    import pyarrow as pa

    kind = column.type.value_type
    plain = pa.string() if pa.types.is_string_view(kind) else kind
    return pa.chunked_array([one.dictionary.cast(plain).take(one.indices) for one in column.chunks], plain)
