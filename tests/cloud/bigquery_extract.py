"""Extract jobs of the BigQuery server: a table as one Avro or JSON file in the local Cloud Storage."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
from typing import TYPE_CHECKING, Any

from tests.cloud import bigquery_schema as schemas
from tests.cloud.service import ApiError
from tests.cloud.storage import Storage

if TYPE_CHECKING:
    from tests.cloud.bigquery import BigQuery
    from tests.cloud.bigquery_jobs import Job


def run_extract(service: BigQuery, job: Job) -> None:
    """Writes the table to the first of destinationUris, its `*` as twelve digits."""
    extract = job.configuration["extract"]
    job.configuration["jobType"] = "EXTRACT"
    source = extract["sourceTable"]
    table = service.store.table((source["projectId"], source["datasetId"], source["tableId"]))
    job.location = table.resource["location"]
    rows = [schemas.datetimes_as_text(row) for row in service.store.rows(table).to_pylist()]
    match extract.get("destinationFormat", "CSV"):
        case "AVRO":
            import fastavro

            file = io.BytesIO()
            fastavro.writer(file, fastavro.parse_schema(schemas.avro_schema(table.fields, "Root")), rows)
            content = file.getvalue()
        case "NEWLINE_DELIMITED_JSON":
            content = "".join(json.dumps(_plain(row)) + "\n" for row in rows).encode()
        case other:
            raise ApiError(400, f"not known to this local server: destinationFormat {other}", reason="invalid")
    uri = (extract.get("destinationUris") or [extract.get("destinationUri")])[0]
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    service.house.service(Storage).put(bucket, name.replace("*", "0" * 12), content)
    job.statistics["extract"] = {"destinationUriFileCounts": ["1"]}


def _plain(value: Any) -> Any:
    """As BigQuery's JSON exports have it: INT64 as text, times as text, BYTES in base64."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, bool | float) or value is None else str(value)
