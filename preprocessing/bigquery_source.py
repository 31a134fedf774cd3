"""A Beam source for tables in BigQuery: the Storage Read API's Arrow streams, as tables of many rows.

One element a stream, so that a runner spreads the streams over its workers. A broken stream is taken up again at the
row where it broke. Every row is read once: a stream that starts over is its worker's whole bundle, whose first attempt
the runner forgets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa

from preprocessing.beam_options import beam_options
from preprocessing.bigquery_client import clearly, read_client
from preprocessing.bigquery_streams import Name, Stream, open_streams, read_stream
from preprocessing.dataflow import DATAFLOW, told
from preprocessing.journeys_schema import ROWS_A_GROUP, journeys_schema
from preprocessing.spec import AnySpec
from preprocessing.storage import join

if TYPE_CHECKING:
    from preprocessing.warehouse import Warehouse

log = logging.getLogger(__name__)


class OpenStreams(beam.DoFn):
    """The name of a table -> each stream of a new read session over its `columns`; `project` pays."""

    def __init__(self, project: str, columns: list[str], most: int) -> None:
        self._project, self._columns, self._most = project, columns, most

    def process(self, table: Name) -> Iterator[Stream]:
        streams, _ = open_streams(table, self._project, self._columns, self._most)
        log.info("    BigQuery: the journeys come in %d streams", len(streams))
        yield from streams


class ReadStream(beam.DoFn):
    """A stream -> tables in `schema`, of `rows` rows or somewhat more but for the last."""

    def __init__(self, schema: pa.Schema, rows: int = ROWS_A_GROUP) -> None:
        self._schema, self._rows = schema, rows

    def setup(self) -> None:
        self._client = read_client()

    def process(self, stream: Stream) -> Iterator[pa.Table]:
        held: list[pa.RecordBatch] = []
        for batch in read_stream(self._client, stream):
            held.append(batch)
            if sum(one.num_rows for one in held) >= self._rows:
                yield self._table(held)
                held = []
        if held:
            yield self._table(held)

    def _table(self, batches: list[pa.RecordBatch]) -> pa.Table:
        return pa.Table.from_batches(batches).select(self._schema.names).cast(self._schema).combine_chunks()


class ReadArrow(beam.PTransform):
    """The rows of a table as pa.Table in `schema`; `project` pays; `most` streams, 0: as many as BigQuery sees fit."""

    def __init__(self, table: Name, schema: pa.Schema, project: str, most: int = 0) -> None:
        super().__init__()
        self._table, self._schema, self._project, self._most = table, schema, project, most

    def expand(self, root: beam.pvalue.PBegin) -> Any:
        return (
            root
            | "Name the table" >> beam.Create([self._table])
            | "Open its streams" >> beam.ParDo(OpenStreams(self._project, self._schema.names, self._most))
            | "Spread them over workers" >> beam.Reshuffle()
            | "Read the streams" >> beam.ParDo(ReadStream(self._schema))
        )


class ReadRows(beam.PTransform):
    """The same by Beam's own ReadFromBigQuery, row by row: slow, and there to compare with."""

    def __init__(self, table: Name, schema: pa.Schema) -> None:
        super().__init__()
        self._table, self._schema = table, schema

    def expand(self, root: beam.pvalue.PBegin) -> Any:
        schema = self._schema
        return (
            root
            | "Read the table's rows"
            >> beam.io.ReadFromBigQuery(
                table="{}:{}.{}".format(*self._table), method=beam.io.ReadFromBigQuery.Method.DIRECT_READ
            )
            | "Gather rows" >> beam.BatchElements(min_batch_size=1000, max_batch_size=ROWS_A_GROUP)
            | "Lay them down as Arrow" >> beam.Map(lambda rows: pa.Table.from_pylist(rows, schema=schema))
        )


def write_journeys(table: Name, spec: AnySpec, output: Path, warehouse: Warehouse) -> None:
    """Writes the journeys table as part-*.parquet, by a Beam pipeline on the warehouse's runner (Warehouse.parts)."""
    schema = journeys_schema(spec)
    project = warehouse.project or table[0]
    read = ReadRows(table, schema) if warehouse.reader == "beam" else ReadArrow(table, schema, project)
    options = beam_options(list(warehouse.beam), "--events bigquery://…")
    # on Dataflow it is the job that may be refused; what BigQuery refuses its workers is in the job's failure
    guard = told() if options.get_all_options()["runner"] == DATAFLOW else clearly("BigQuery: " + ".".join(table))
    with guard, beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Read the journeys" >> read
            | "Write them as Parquet"
            >> beam.io.parquetio.WriteToParquetBatched(
                join(warehouse.parts or output, "part"), schema=schema, codec="zstd", file_name_suffix=".parquet"
            )
        )
