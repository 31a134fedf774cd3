"""The Storage Read API: a table's rows as Arrow record batches, stream by stream, each row once whatever breaks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from preprocessing.bigquery_client import patiently, read_client

if TYPE_CHECKING:
    import pyarrow as pa

Name = tuple[str, str, str]
Stream = tuple[str, bytes]  # its name, and the Arrow schema of its batches, serialized

ATTEMPTS = 8  # at one place of a stream
_log = logging.getLogger(__name__)


def open_streams(table: Name, project: str, columns: Sequence[str] = (), most: int = 0) -> tuple[list[Stream], bytes]:
    """The streams of a new read session over the table, and its Arrow schema.

    project: that pays; columns: by default all; most: how many streams at most, 0 for as many as BigQuery sees fit.
    """
    from google.cloud.bigquery_storage_v1 import types

    wanted = types.ReadSession(
        table="projects/{}/datasets/{}/tables/{}".format(*table), data_format=types.DataFormat.ARROW
    )
    wanted.read_options.selected_fields = list(columns)
    wanted.read_options.arrow_serialization_options = types.ArrowSerializationOptions(buffer_compression="LZ4_FRAME")
    session = read_client().create_read_session(
        parent=f"projects/{project}", read_session=wanted, max_stream_count=most, retry=patiently()
    )
    schema: bytes = session.arrow_schema.serialized_schema
    return [(stream.name, schema) for stream in session.streams], schema


def read_stream(client: Any, stream: Stream) -> Iterator[pa.RecordBatch]:
    """The batches of a stream, read by a client of the Storage Read API (bigquery_client.read_client).

    Google's client resumes after most breaks by itself. What it lets through (a busy service, an internal error) is
    tried again from the first row that has not arrived, with backoff; raises it after ATTEMPTS in a row without a row.
    """
    import time

    import pyarrow as pa
    from google.api_core import exceptions
    from google.api_core.retry import exponential_sleep_generator

    name, serialized = stream
    schema = pa.ipc.read_schema(pa.py_buffer(serialized))
    offset, failed, waits = 0, 0, exponential_sleep_generator(0.5, 30)
    while True:
        try:
            for message in client.read_rows(name, offset=offset, retry=patiently()):
                encoded = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                batch = pa.ipc.read_record_batch(encoded, schema)
                offset += batch.num_rows
                failed, waits = 0, exponential_sleep_generator(0.5, 30)
                yield batch
            return
        except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.Aborted) as error:
            failed += 1
            if failed == ATTEMPTS:
                raise
            _log.info("    a stream broke at row %d (%s); reading on from there", offset, type(error).__name__)
            time.sleep(next(waits))


def read_table(table: Name, project: str) -> pa.Table:
    """All rows of a small table, in no order."""
    import pyarrow as pa

    streams, schema = open_streams(table, project, most=1)
    client = read_client()
    batches = [batch for stream in streams for batch in read_stream(client, stream)]
    return pa.Table.from_batches(batches, pa.ipc.read_schema(pa.py_buffer(schema)))
