"""Scores into a table of BigQuery, partitioned by the day of as_of: scoring a day again replaces that day, whole."""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.bigquery_client import bigquery_client, clearly, table_of
from preprocessing.bigquery_session import LABELS
from preprocessing.cli import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud import bigquery

PARTITION = "as_of"
log = logging.getLogger(__name__)


@contextmanager
def loaded(address: str, as_of: dt.datetime | None, project: str | None = None) -> Iterator[Path]:
    """Yields where to write a Parquet file of scores; what is there at the end goes into the table.

    address: bigquery://project.dataset.table, made where it is missing. as_of: whose day is replaced even where no row
    is of that day; project: that pays for nothing, load jobs are free, but owns them (default: the table's). Raises
    UserError where the table is not such a table, before anything is scored, or BigQuery refuses.
    """
    name = ".".join(table_of(address, "--output"))
    with clearly(f"--output {address}"):
        client = bigquery_client(project or name.split(".", 1)[0])
        dataset = client.get_dataset(name.rpartition(".")[0])
        _check(address, client, name, None)
    with tempfile.TemporaryDirectory(prefix="scores-") as aside:
        written = Path(aside) / "scores.parquet"
        yield written
        days = _by_day(written, Path(aside), as_of)
        with clearly(f"--output {address}"):
            columns = _made(address, client, name, written)
            for day, path in sorted(days.items()):
                _load(client, f"{name}${day:%Y%m%d}", dataset.location, path, columns)
                log.info("    %s: partition %s replaced", name, day)


def _by_day(written: Path, aside: Path, as_of: dt.datetime | None) -> dict[dt.date, Path]:
    """The file parted by the UTC day of as_of, in bounded memory."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    source = pq.ParquetFile(written)
    days: dict[dt.date, Path] = {}
    with ExitStack() as stack:
        writers: dict[dt.date, pq.ParquetWriter] = {}

        def writer(day: dt.date) -> pq.ParquetWriter:
            if day not in writers:
                days[day] = aside / f"{day:%Y%m%d}.parquet"
                writers[day] = stack.enter_context(pq.ParquetWriter(days[day], source.schema_arrow))
            return writers[day]

        if as_of is not None:
            writer(as_of.date())
        for batch in source.iter_batches():
            own = pc.cast(batch[PARTITION], "date32", safe=False)
            for day in pc.unique(own).to_pylist():
                writer(day).write_batch(batch.filter(pc.equal(own, day)))
    return days


def _made(address: str, client: bigquery.Client, name: str, written: Path) -> list[bigquery.SchemaField]:
    """The columns of the scores; the table that has them is there."""
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    columns = _columns(pq.read_schema(written))
    wanted = bigquery.Table(name, columns)
    wanted.time_partitioning = bigquery.TimePartitioning(type_="DAY", field=PARTITION)
    wanted.labels = LABELS
    client.create_table(wanted, exists_ok=True)
    _check(address, client, name, columns)
    return columns


def _load(
    client: bigquery.Client, partition: str, location: str, path: Path, columns: list[bigquery.SchemaField]
) -> None:
    """Replaces a partition, table$YYYYMMDD, by the file, in one job: readers see the old rows or the new ones."""
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(
        schema=columns,
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        labels=LABELS,
    )
    with path.open("rb") as file:
        job = client.load_table_from_file(file, partition, job_config=config, location=location)
    job.result()


def _check(address: str, client: bigquery.Client, name: str, columns: list[bigquery.SchemaField] | None) -> None:
    """Raises UserError where there is a table of another kind by that name."""
    from google.api_core.exceptions import NotFound

    try:
        table = client.get_table(name)
    except NotFound:
        return
    partitioning = table.time_partitioning
    if partitioning is None or (partitioning.field, partitioning.type_) != (PARTITION, "DAY"):
        raise UserError(
            f"--output {address}: the table is not partitioned by the day of {PARTITION}; name another table, which is "
            "then made"
        )
    if columns is not None:
        have = {(c.name, _STANDARD.get(c.field_type, c.field_type)) for c in table.schema}
        lacking = [c.name for c in columns if (c.name, c.field_type) not in have]
        if lacking:
            raise UserError(
                f"--output {address}: the table has no column such as {', '.join(lacking)} of these scores; name "
                "another table, which is then made"
            )


_STANDARD = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}


def _columns(schema: pa.Schema) -> list[bigquery.SchemaField]:
    from google.cloud import bigquery

    return [bigquery.SchemaField(field.name, _kind(field)) for field in schema]


def _kind(field: Any) -> str:
    import pyarrow as pa

    tests = (
        (pa.types.is_timestamp, "TIMESTAMP"),
        (pa.types.is_floating, "FLOAT64"),
        (pa.types.is_integer, "INT64"),
        (pa.types.is_boolean, "BOOL"),
        (pa.types.is_string, "STRING"),
    )
    return next(name for test, name in tests if test(field.type))
