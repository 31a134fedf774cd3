"""Files without some customers: Parquet, TFRecord shards, evolution.json and the report that draws it.

What is left is what was there, in the same order: rows value by value, records byte for byte, files without the
customers untouched.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError
from preprocessing.storage import WHOLE

if TYPE_CHECKING:
    import pyarrow as pa

KEYS = ("customer_key", "journey_id", "key")  # columns that tell whose a row is
_MARK = re.compile(rb"(?=([0-9a-f]{64}))")
_TOLD = re.compile(r'<section class="told">.*?</section>\n?', re.DOTALL)


class Eraser:
    """Takes some customers out of files; `removed` counts by what.

    `marks` must not be found again: the customers' keys, and the ids of their journeys once `learn` saw these. Erasers
    of one command share them, since a file may hold ids of journeys alone.
    """

    def __init__(self, marks: set[str]) -> None:
        self.marks = marks
        self.removed: Counter[str] = Counter()

    def learn(self, place: Path) -> None:
        """Adds the ids of their journeys to the marks, where Parquet files of a directory, or this one, tell them."""
        for path in _files(place):
            if path.suffix == ".parquet":
                self._learn_journeys(path)

    def files_with(self, place: Path) -> list[Path]:
        """The files in a directory, or the file itself, that hold something of them."""
        files = sorted(_files(place))
        found = [path for path in files if _holds(path, self.marks)]
        told = any(path.name == "evolution.json" for path in found)
        # the report draws the journeys that evolution.json tells, without a key that a search would find
        return found + [path for path in files if told and path.name == "report.html" and path not in found]

    def erase(self, path: Path) -> None:
        """Writes the file anew without them. Raises UserError for a file that nobody taught it to read."""
        aside = path.with_name(f"{path.name}.aside")
        if path.suffix == ".parquet":
            self._erase_rows(path, aside)
        elif path.name.endswith(".tfrecord.gz"):
            self._erase_records(path, aside)
        elif path.name == "evolution.json":
            self._erase_told(path, aside)
        elif path.name == "report.html":
            return  # with evolution.json, which says which of its sections go
        else:
            raise UserError(f"{path.name}: holds a customer's key where none is expected; nothing was changed")
        aside.replace(path)

    def _learn_journeys(self, path: Path) -> None:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        if {"customer_key", "journey_id"} <= set(file.schema_arrow.names):
            for batch in file.iter_batches(columns=["customer_key", "journey_id"]):
                whose = zip(batch["customer_key"].to_pylist(), batch["journey_id"].to_pylist(), strict=True)
                self.marks.update(journey for customer, journey in whose if customer in self.marks and journey)

    def _erase_rows(self, path: Path, aside: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        column = file.metadata.row_group(0).column(0) if file.metadata.num_row_groups else None
        compression = column.compression.replace("UNCOMPRESSED", "NONE") if column else "zstd"
        with pq.ParquetWriter(aside, file.schema_arrow, compression=compression) as writer:
            for number in range(file.metadata.num_row_groups):
                rows = file.read_row_group(number)
                theirs = pa.chunked_array([pa.array([False] * rows.num_rows)])
                for name in _named(rows.schema):
                    theirs = pc.or_(theirs, _theirs(rows[name], self.marks))
                kept = rows.filter(pc.invert(theirs))
                what = "journeys" if path.name.startswith("part-") else path.stem
                self.removed[what] += rows.num_rows - kept.num_rows
                writer.write_table(kept, row_group_size=max(kept.num_rows, 1))

    def _erase_records(self, path: Path, aside: Path) -> None:
        with aside.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file:
            for framed in _records(path):
                if _among(framed, self.marks):
                    self.removed[f"records/{path.name.partition('-')[0]}"] += 1
                else:
                    file.write(framed)

    def _erase_told(self, path: Path, aside: Path) -> None:
        told: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        theirs = [one["customer_key"] in self.marks for one in told]
        kept = [one for one, out in zip(told, theirs, strict=True) if not out]
        aside.write_text(json.dumps(kept, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        self.removed["single journeys of the report"] += sum(theirs)
        report = path.with_name("report.html")
        if not report.is_file():
            return
        sections = _TOLD.findall(report.read_text(encoding="utf-8"))
        if len(sections) != len(told):
            raise UserError(
                f"{report.name}: draws {len(sections)} single journeys, evolution.json {len(told)}; nothing is changed"
            )
        out = iter(theirs)
        text = _TOLD.sub(lambda found: "" if next(out) else found[0], report.read_text(encoding="utf-8"))
        new = report.with_name("report.html.aside")  # never into the file itself, which the old directory may share
        new.write_text(text, encoding="utf-8")
        new.replace(report)


def linked(source: Path, target: Path) -> None:
    """The files of `source` in `target` too, as links where the disk has them; without the mark of the old whole."""

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)
        return other

    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=link, ignore=shutil.ignore_patterns(WHOLE))


def searched(place: Path, marks: set[str]) -> int:
    """How many files were searched for the marks. Raises UserError where one is left: then nothing changes places."""
    files = _files(place)
    for path in files:
        if _holds(path, marks):
            raise UserError(f"{path.name}: still holds something of them; nothing was changed")
    return len(files)


def _holds(path: Path, marks: set[str]) -> bool:
    """Whether a file holds one of the marks, in the clear, in a gzip file, or in a column of a Parquet file."""
    if path.suffix == ".parquet":
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        names = _named(file.schema_arrow)
        return any(
            pc.any(_theirs(batch[name], marks)).as_py() for batch in file.iter_batches(columns=names) for name in names
        )
    if path.name.endswith(".tfrecord.gz"):
        return any(_among(framed, marks) for framed in _records(path))
    return _among(path.read_bytes(), marks)


def _among(content: bytes, marks: set[str]) -> bool:
    """Whether one of the marks stands there; one look for all of them, wherever 64 such letters begin."""
    return any(found.decode() in marks for found in _MARK.findall(content))


def _theirs(column: pa.Array | pa.ChunkedArray, marks: set[str]) -> pa.Array | pa.ChunkedArray:
    """bool, which cells are one of the marks, whatever kind of text the column is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(column.cast(pa.string()), pa.array(sorted(marks), pa.string()))


def _named(schema: pa.Schema) -> list[str]:
    """The columns that tell whose a row is."""
    from trainer.joins import is_text

    return [name for name in KEYS if name in schema.names and is_text(schema.field(name).type)]


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def _records(path: Path) -> Iterator[bytes]:
    """The records of a gzip TFRecord shard, each with its length and checksums as they stand there."""
    try:
        with gzip.open(path, "rb") as file:
            while head := file.read(12):
                (length,) = struct.unpack("<Q", head[:8])
                body = file.read(length + 4)
                if len(head) < 12 or len(body) < length + 4:
                    raise EOFError
                yield head + body
    except (OSError, EOFError, struct.error):
        raise UserError(f"{path.name}: damaged, or no gzip TFRecord file; make the records anew") from None
