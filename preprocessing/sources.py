"""Journeys as Arrow record batches, in the form that tf.Transform takes: every column a large_list, times int64."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute  # used as pa.compute
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from preprocessing.blocks import ASSIGNMENT_COLUMNS
from preprocessing.spec import AnySpec

log = logging.getLogger(__name__)

BATCH_ROWS = 4096  # large enough that the graph's fixed cost per batch vanishes, small enough to stay in the caches


def journey_columns(spec: AnySpec) -> dict[str, pa.DataType]:
    """The columns that become features, with the type of one value."""
    types: dict[str, pa.DataType] = {"as_of": pa.int64(), "event_time": pa.int64()}
    types |= dict.fromkeys((*spec.sequence.categorical, *spec.customer_categorical), pa.large_binary())
    types |= dict.fromkeys((*spec.sequence_numeric, *spec.customer_numeric), pa.float32())
    return types


AS_OF_ALONGSIDE = "as_of_alongside"  # as_of once more, since what the graph reads cannot also ride along
_DAYS = ("days_to_conversion", "observed_days", "days_since_conversion")
_ALONGSIDE: dict[str, pa.DataType] = {
    AS_OF_ALONGSIDE: pa.int64(),
    "journey_id": pa.large_binary(),
    "customer_key": pa.large_binary(),
    "days_to_conversion": pa.float32(),
    "observed_days": pa.float32(),
    "weight": pa.float32(),
    "held_out": pa.int64(),
}


def alongside(spec: AnySpec) -> dict[str, pa.DataType]:
    """What rides along untouched: labels, weight, keys, the assignment. No part of the transform graph can read it."""
    kinds = (pa.large_binary(), pa.int64(), pa.float32())
    return _ALONGSIDE | (dict(zip(ASSIGNMENT_COLUMNS, kinds, strict=True)) if spec.assignments else {})


def batch_schema(spec: AnySpec) -> pa.Schema:
    """The Arrow schema of the batches that ReadJourneys yields."""
    types = journey_columns(spec) | alongside(spec)
    return pa.schema([(name, pa.large_list(kind)) for name, kind in types.items()])


def to_batch(journeys: pa.Table | pa.RecordBatch, spec: AnySpec) -> pa.RecordBatch:
    """Rows of the journeys table as one batch of `batch_schema(spec)`; no conversion is +inf days off."""
    schema = batch_schema(spec)
    columns = []
    for field in schema:
        column = journeys.column("as_of" if field.name == AS_OF_ALONGSIDE else field.name)
        if field.name in _DAYS:
            column = _rounded_down(column)
        columns.append(_large_list(column, field.type.value_type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _large_list(column: Any, kind: pa.DataType) -> pa.LargeListArray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths, flat = array.value_lengths().cast(pa.int64()), array.flatten()
        ends = pa.compute.cumulative_sum(lengths)
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    else:
        flat = array
        offsets = pa.array(range(len(array) + 1), pa.int64())
    if pa.types.is_timestamp(flat.type):
        flat = flat.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return pa.LargeListArray.from_arrays(offsets, flat.cast(kind))


def _rounded_down(days: Any) -> pa.Array:
    """float64 days to the float32 at or below: a conversion a microsecond before a horizon's end stays before it."""
    exact = days.fill_null(float("inf")).to_numpy()
    nearest = exact.astype(np.float32)
    return pa.array(np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest))


def row_groups(parts: Iterable[str | Path]) -> list[tuple[str, int]]:
    """(path, row group) of every row group of Parquet files on disk or under gs://."""
    found = []
    for path in parts:
        with FileSystems.open(str(path), compression_type=CompressionTypes.UNCOMPRESSED) as file:
            found += [(str(path), i) for i in range(pq.ParquetFile(file).num_row_groups)]
    return found


class _ReadPart(beam.DoFn):
    """Reads one row group of one Parquet part and sends each split its own way, or all the same way."""

    def __init__(self, spec: AnySpec, splits: tuple[str, ...], apart: bool) -> None:
        self._spec, self._splits, self._apart = spec, splits, apart

    def process(self, numbered: tuple[int, Iterable[tuple[str, int]]]) -> Iterator[Any]:
        for part in numbered[1]:
            yield from self._read(*part)

    def _read(self, path: str, row_group: int) -> Iterator[Any]:
        columns = [name for name in batch_schema(self._spec).names if name != AS_OF_ALONGSIDE] + ["split"]
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            table = pq.ParquetFile(file).read_row_group(row_group, columns=columns)
        log.info(
            "    %s journeys read from %s, row group %d", f"{table.num_rows:,}", path.rpartition("/")[2], row_group
        )
        for split in self._splits:
            rows = table.filter(pa.compute.equal(table["split"], split))
            for start in range(0, rows.num_rows, BATCH_ROWS):
                batch = to_batch(rows.slice(start, BATCH_ROWS), self._spec)
                yield beam.pvalue.TaggedOutput(split, batch) if self._apart else batch


class ReadJourneys(beam.PTransform):
    """Record batches of the journeys in Parquet parts, one PCollection a split, as a dict-like by split name.

    The parts lie on disk or under gs://, where Beam's own file systems read them. splits: those that are wanted; apart:
    False for one PCollection of them all. (Flattened afterwards, all of it would wait in memory.)
    """

    def __init__(
        self, parts: Iterable[str | Path], spec: AnySpec, splits: tuple[str, ...], *, apart: bool = True
    ) -> None:
        super().__init__()
        self._groups = list(enumerate(row_groups(parts)))
        self._spec, self._splits, self._apart = spec, splits, apart

    def expand(self, root: beam.pvalue.PBegin) -> Any:
        read = beam.ParDo(_ReadPart(self._spec, self._splits, self._apart))
        if self._apart:
            read = read.with_outputs(*self._splits)
        return (
            root
            | "List the parts of the journeys" >> beam.Create(self._groups)
            # Grouped by their number, not by Reshuffle's random keys: the same input gives the same order of records.
            | "Spread the parts over workers" >> beam.GroupByKey()
            | "Read journeys as record batches" >> read
        )
