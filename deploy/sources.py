"""Where scores come from: which of five kinds a --incumbent or --candidate is, and tables of scores as Arrow."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from deploy.address import http_url
from deploy.population import globbed
from deploy.scores import renamed
from preprocessing.bigquery_client import SCHEME, bigquery_client, clearly, table_of
from preprocessing.cli import UserError
from preprocessing.storage import is_remote

_VERTEX = re.compile(r"projects/[^/]+/locations/[^/]+/endpoints/[^/]+")
TITLES = {
    "saved_model": "SavedModel",
    "http": "HTTP endpoint",
    "vertex": "Vertex AI endpoint",
    "bigquery": "BigQuery table",
    "table": "table of scores",
}


def kind_of(flag: str, source: str) -> str:
    """A key of TITLES. Raises UserError where the source is of none of the kinds."""
    if source.startswith(("http://", "https://")):
        http_url(flag, source)
        return "http"
    if source.startswith(SCHEME):
        table_of(source, flag)
        return "bigquery"
    if _VERTEX.fullmatch(source):
        return "vertex"
    path = Path(source)
    if is_remote(source):
        return "table" if source.endswith((".parquet", ".csv")) else "saved_model"
    if (path / "saved_model.pb").exists():
        return "saved_model"
    if path.suffix in (".parquet", ".csv") and (path.exists() or any(letter in source for letter in "*?[")):
        return "table"
    raise UserError(
        f"{flag} {source}: expected a SavedModel directory, an http(s):// address, a Vertex AI endpoint "
        "(projects/P/locations/L/endpoints/E), a .parquet or .csv file of scores, or bigquery://project.dataset.table"
    )


def read_scores(flag: str, source: str, mapping: list[str], window: tuple[int, int], project: str | None) -> pa.Table:
    """A table of scores, only the columns that a double run reads, named as it names them.

    mapping: NAME=COLUMN each; window: first and last as_of of the journeys, int64 UTC microseconds, to which a query of
    BigQuery is kept; project: that pays for the query, by default the table's. Raises UserError where it can't be read.
    """
    if source.startswith(SCHEME):
        return _from_bigquery(flag, source, mapping, window, project)
    table = _from_files(f"{flag} {source}", source, mapping)
    names = renamed(source, f"{flag}_column", table.column_names, mapping)
    chosen = _chosen(table.column_names, names)
    return table.select(list(chosen)).rename_columns(list(chosen.values()))


def _chosen(columns: list[str], names: dict[str, str]) -> dict[str, str]:
    """{column: its name here}: those named by flags, and of the others those that are named as here already."""
    own = re.compile(r"journey_id|customer_key|customer_id|as_of|model_version|status|latency_ms|p_\d+d")
    taken = set(names.values())
    return {
        column: names.get(column, column)
        for column in columns
        if column in names or (own.fullmatch(column) and column not in taken)
    }


def _from_files(what: str, source: str, mapping: list[str]) -> pa.Table:
    paths = globbed(source)
    if not paths:
        raise UserError(f"{what}: no such file")
    try:
        if source.endswith(".csv"):
            from pyarrow import csv

            # keys stay text, whatever they look like: 007 is no 7
            keys = ("journey_id", "customer_key", "customer_id", "as_of")
            given = {column for name, _, column in (text.partition("=") for text in mapping) if name in keys}
            text = dict.fromkeys({*keys, *given}, pa.string())
            options = csv.ConvertOptions(column_types=text, null_values=["", "NULL", "null", "NaN", "nan"])
            tables = [csv.read_csv(path, convert_options=options) for path in paths]
        else:
            import pyarrow.parquet as pq

            tables = [pq.ParquetFile(path).read() for path in paths]
        return pa.concat_tables(tables)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{what}: cannot be read: {error}") from None


def _from_bigquery(
    flag: str, source: str, mapping: list[str], window: tuple[int, int], project: str | None
) -> pa.Table:
    """By one query that names its columns, and the window of as_of, so that a partitioned table is read in part."""
    what = f"{flag} {source}"
    from google.cloud import bigquery

    place = table_of(source, flag)
    client = bigquery_client(project or place[0])
    with clearly(what):
        table = client.get_table(".".join(place))
        columns = [field.name for field in table.schema]
        names = renamed(source, f"{flag}_column", columns, mapping)
        chosen = _chosen(columns, names)
        if not chosen:
            raise UserError(f"{what}: no key and no score among its columns: {', '.join(columns)}")
        selected = ", ".join(f"`{column}` AS `{name}`" for column, name in chosen.items())
        query = f"SELECT {selected} FROM `{'.'.join(place)}`"
        as_of = next((column for column, name in chosen.items() if name == "as_of"), None)
        is_time = any(field.name == as_of and field.field_type == "TIMESTAMP" for field in table.schema)
        parameters: list[Any] = []
        if is_time:
            query += (  # a log of a live run knows no as_of of ready-made journeys
                f" WHERE `{as_of}` BETWEEN TIMESTAMP_MICROS(@first) AND TIMESTAMP_MICROS(@last) OR `{as_of}` IS NULL"
            )
            parameters = [
                bigquery.ScalarQueryParameter(name, "INT64", at)
                for name, at in zip(("first", "last"), window, strict=True)
            ]
        rows = client.query(query, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result()
        # the Storage API reads large results faster, but no emulator of the REST API has it
        return rows.to_arrow(create_bqstorage_client="BIGQUERY_EMULATOR_HOST" not in os.environ)
