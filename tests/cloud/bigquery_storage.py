"""The Storage Read API over gRPC: CreateReadSession, and ReadRows in Arrow and Avro from any offset.

As google/cloud/bigquery/storage/v1/storage.proto and stream.proto have it. A session is a snapshot. Its messages are
encoded once for each state of a table, so that the server is not what a reader waits for.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tests.cloud import bigquery_schema as schemas
from tests.cloud.service import ApiError

if TYPE_CHECKING:
    import grpc

    from tests.cloud.bigquery import BigQuery

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
MOST_STREAMS = 1000
ROWS_A_MESSAGE = 2000
ROWS_A_STREAM = 4000  # fewer rows are no stream of their own


@dataclass
class Stream:
    """Rows first to last (exclusive) of a session's snapshot, in one format."""

    rows: pa.Table
    fields: list[schemas.Field]
    avro: bool
    compression: str | None
    cache: dict[Any, Any]
    key: tuple[Any, ...]

    def messages(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """(rows, encoded rows) from `offset` on."""
        for start in range(0, self.rows.num_rows, ROWS_A_MESSAGE):
            rows = self.rows.slice(start, ROWS_A_MESSAGE)
            if start + rows.num_rows <= offset:
                continue
            if start < offset:
                rows = rows.slice(offset - start)
                yield rows.num_rows, self._encoded(rows)
                continue
            key = (*self.key, start)
            if key not in self.cache:
                self.cache[key] = self._encoded(rows)
            yield rows.num_rows, self.cache[key]

    def schema(self) -> bytes:
        if self.avro:
            return json.dumps(schemas.avro_schema(self.fields)).encode()
        return bytes(self.rows.schema.serialize().to_pybytes())

    def _encoded(self, rows: pa.Table) -> bytes:
        if not self.avro:
            (batch,) = rows.combine_chunks().to_batches()
            options = pa.ipc.IpcWriteOptions(compression=self.compression)
            return _serialized(batch, options)
        import fastavro

        parsed = fastavro.parse_schema(schemas.avro_schema(self.fields))
        file = io.BytesIO()
        for row in rows.to_pylist():
            fastavro.schemaless_writer(file, parsed, schemas.datetimes_as_text(row))
        return file.getvalue()


def _serialized(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> bytes:
    """The batch's IPC message alone, without its schema; pa.RecordBatch.serialize knows no compression."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
    messages.read_next_message()  # the schema
    return bytes(messages.read_next_message().serialize().to_pybytes())


class ReadApi:
    """Sessions and streams; `read` lists (stream, offset) of each ReadRows, for tests that look back."""

    def __init__(self, service: BigQuery) -> None:
        self._service = service
        self.sessions: list[dict[str, Any]] = []
        self.streams: dict[str, Stream] = {}
        self.read: list[tuple[str, int]] = []
        self.cache: dict[Any, Any] = {}
        self._snapshots: dict[Any, pa.Table] = {}

    def create(self, request: Any) -> Any:
        from google.cloud.bigquery_storage_v1 import types

        asked = request.read_session
        _, project, _, dataset, _, name = asked.table.split("/")
        with self._service.lock:
            table = self._service.store.table((project, dataset, name))
            options = asked.read_options
            chosen, where = list(options.selected_fields), options.row_restriction
            key = (table.physical, table.version, tuple(chosen), where)
            if key not in self._snapshots:
                self._snapshots[key] = self._rows(table, chosen, where)
            rows = self._snapshots[key]
            size = sum(schemas.size_of(column) for column in rows.columns)
        fields = [f for f in table.fields if f["name"] in rows.column_names]
        avro = asked.data_format == types.DataFormat.AVRO
        codec = options.arrow_serialization_options.buffer_compression
        compression = {1: "lz4", 2: "zstd"}.get(int(codec))
        session = f"projects/{project}/locations/us/sessions/{uuid.uuid4().hex}"
        most = min(request.max_stream_count or MOST_STREAMS, MOST_STREAMS)
        count = max(1, min(most, rows.num_rows // ROWS_A_STREAM)) if rows.num_rows else 0
        edges = [i * rows.num_rows // max(count, 1) for i in range(count + 1)]
        made = types.ReadSession(name=session, table=asked.table, data_format=asked.data_format)
        made.read_options = options
        made.estimated_row_count = rows.num_rows
        made.estimated_total_bytes_scanned = size
        made.expire_time = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
        for i in range(count):
            part = rows.slice(edges[i], edges[i + 1] - edges[i])
            self.streams[f"{session}/streams/{i}"] = Stream(
                part, fields, avro, compression, self.cache, (*key, avro, compression, edges[i], edges[i + 1])
            )
            made.streams.append(types.ReadStream(name=f"{session}/streams/{i}"))
        told = Stream(rows, fields, avro, compression, {}, ()).schema()
        if avro:
            made.avro_schema = types.AvroSchema(schema=told.decode())
        else:
            made.arrow_schema = types.ArrowSchema(serialized_schema=told)
        self.sessions.append({"table": asked.table, "fields": chosen, "where": where, "streams": count})
        return made

    def _rows(self, table: Any, chosen: list[str], where: str) -> pa.Table:
        rows = self._service.store.rows(table)
        if where:
            import sqlglot

            condition = sqlglot.transpile(where, read="bigquery", write="duckdb")[0]
            connection = self._service.store.connection
            connection.register("restricted", rows)
            rows = connection.sql(f"SELECT * FROM restricted WHERE {condition}").to_arrow_table().cast(rows.schema)
            connection.unregister("restricted")
        return (rows.select([n for n in rows.column_names if n in chosen]) if chosen else rows).combine_chunks()

    def rows(self, request: Any) -> Iterator[Any]:
        from google.cloud.bigquery_storage_v1 import types

        stream = self.streams.get(request.read_stream)
        if stream is None:
            raise ApiError(404, f"Not found: stream {request.read_stream}")
        if request.offset > stream.rows.num_rows:
            raise ApiError(400, f"offset {request.offset} is beyond the stream's {stream.rows.num_rows} rows")
        self.read.append((request.read_stream, request.offset))
        for i, (count, encoded) in enumerate(stream.messages(request.offset)):
            made = types.ReadRowsResponse(row_count=count)
            if stream.avro:
                made.avro_rows = types.AvroRows(serialized_binary_rows=encoded)
                if not i:
                    made.avro_schema = types.AvroSchema(schema=stream.schema().decode())
            else:
                made.arrow_record_batch = types.ArrowRecordBatch(serialized_record_batch=encoded)
                if not i:
                    made.arrow_schema = types.ArrowSchema(serialized_schema=stream.schema())
            yield made


def handler(service: BigQuery) -> grpc.GenericRpcHandler:
    """The two gRPC methods; the house adds credentials, errors and faults."""
    import grpc
    from google.cloud.bigquery_storage_v1 import types

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                lambda request, _: service.read_api.create(request),
                request_deserializer=types.CreateReadSessionRequest.deserialize,
                response_serializer=types.ReadSession.serialize,
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                lambda request, _: service.read_api.rows(request),
                request_deserializer=types.ReadRowsRequest.deserialize,
                response_serializer=types.ReadRowsResponse.serialize,
            ),
        },
    )
