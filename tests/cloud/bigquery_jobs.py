"""Jobs of the BigQuery server: queries (dry runs, sessions, parameters, caps) and load jobs from uploaded content."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.cloud import bigquery_schema as schemas
from tests.cloud import bigquery_sql
from tests.cloud.bigquery_store import Name, Store, Table, now_ms
from tests.cloud.service import ApiError

MEGABYTE = 1 << 20
LEAST_BILLED = 10 * MEGABYTE  # a table referenced, as cloud.google.com/bigquery/pricing has it


class Job:
    """One job: `resource` as jobs.get answers it, `rows` where it was a query that ran."""

    def __init__(self, project: str, body: dict[str, Any]) -> None:
        reference = body.get("jobReference") or {}
        self.project = project
        self.id = reference.get("jobId") or f"job_{uuid.uuid4().hex}"
        self.location: str | None = reference.get("location")
        self.configuration: dict[str, Any] = body["configuration"]
        self.statistics: dict[str, Any] = {"creationTime": str(now_ms()), "startTime": str(now_ms())}
        self.error: ApiError | None = None
        self.rows: pa.Table | None = None

    @property
    def resource(self) -> dict[str, Any]:
        reference = {"projectId": self.project, "jobId": self.id, "location": self.location or "US"}
        status: dict[str, Any] = {"state": "DONE"}
        if self.error:
            told = {"reason": self.error.reason, "message": self.error.message}
            status |= {"errorResult": told, "errors": [told]}
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{self.location or 'US'}.{self.id}",
            "jobReference": reference,
            "configuration": self.configuration,
            "status": status,
            "statistics": {**self.statistics, "endTime": str(now_ms())},
            "user_email": "local@example.com",
        }


def run_query(store: Store, job: Job) -> None:
    """Runs job.configuration["query"]. Raises ApiError as jobs.insert does for a dry run; else the job fails."""
    query, dry_run = job.configuration["query"], bool(job.configuration.get("dryRun"))
    job.configuration["jobType"] = "QUERY"
    default = query.get("defaultDataset")
    session = _session(store, job, query)
    context = bigquery_sql.Context(
        project=job.project,
        dataset=(default.get("projectId", job.project), default["datasetId"]) if default else None,
        session=session,
        parameters=bigquery_sql.parameters_of(query),
        location=job.location,
        dry_run=True,
    )
    sql = query["query"]
    if query.get("useLegacySql", True) and "[" in sql:
        sql = re.sub(r"\[([\w-]+):(\w+)\.([\w$]+)\]", r"`\1.\2.\3`", sql)
    is_script = (session or "").startswith("script")  # whose later statements need the tables of the earlier ones
    found = None
    if dry_run or not is_script:
        found = bigquery_sql.run(store, sql, context)  # finds what is wrong before anything runs
    billed = _billed(context)
    job.location = context.location
    cap = int(query.get("maximumBytesBilled") or 0)
    if cap and billed > cap and not dry_run:
        told = f"Query exceeded limit for bytes billed: {cap}. {billed} or higher required."
        raise ApiError(400, told, reason="bytesBilledLimitExceeded")
    if not dry_run:
        context.dry_run, context.read, context.read_bytes = False, [], 0
        context.parameters = bigquery_sql.parameters_of(query)
        found = bigquery_sql.run(store, sql, context)
        billed = _billed(context)
        job.rows = _stored(store, job, query, found)
    statistics = {
        "totalBytesProcessed": str(context.read_bytes),
        "totalBytesBilled": "0" if dry_run else str(billed),
        "statementType": context.statement,
        "cacheHit": False,
        "referencedTables": [
            dict(zip(("projectId", "datasetId", "tableId"), table.name, strict=True)) for table in context.read
        ],
    }
    if dry_run:
        statistics["totalBytesProcessedAccuracy"] = "PRECISE"
        if found is not None:
            statistics["schema"] = {"fields": schemas.fields_of(found.schema)}
    if context.affected is not None:
        statistics["numDmlAffectedRows"] = str(context.affected)
    if context.made is not None:
        statistics["ddlTargetTable"] = dict(zip(("projectId", "datasetId", "tableId"), context.made.name, strict=True))
    job.statistics |= {"query": statistics, "totalBytesProcessed": statistics["totalBytesProcessed"]}


def _billed(context: bigquery_sql.Context) -> int:
    """Rounded up to a megabyte, ten at least for each table referenced."""
    least = LEAST_BILLED * len({table.name for table in context.read})
    return max(least, -(-context.read_bytes // MEGABYTE) * MEGABYTE)


def _session(store: Store, job: Job, query: dict[str, Any]) -> str | None:
    named = {one["key"]: one["value"] for one in query.get("connectionProperties", ())}
    session: str | None = named.get("session_id")
    if query.get("createSession"):
        session = uuid.uuid4().hex
        store.sessions[session] = {}
    if session is not None:
        if session not in store.sessions:
            raise ApiError(400, f"Session {session} is not found or has expired", reason="invalid")
        job.statistics["sessionInfo"] = {"sessionId": session}
    elif ";" in query["query"].rstrip().rstrip(";"):  # a script has temporary tables of its own
        session = f"script{job.id}"
        store.sessions[session] = {}
    return session


def _stored(store: Store, job: Job, query: dict[str, Any], found: pa.Table | None) -> pa.Table | None:
    """Every result is a table: the one that the job names, or one that nobody lists."""
    if found is None:
        return None
    fields = schemas.fields_of(found.schema)
    wanted = query.get("destinationTable")
    if wanted is None:
        hidden = f"_anon{uuid.uuid4().hex}"
        name: Name = (job.project, "_results", hidden)
        store.datasets.setdefault(name[:2], {"location": job.location or "US", "hidden": True})
        table = store.add_table(name, {"schema": {"fields": fields}})
        query["destinationTable"] = dict(zip(("projectId", "datasetId", "tableId"), name, strict=True))
    else:
        table = _destination(store, wanted, query, fields)
    store.append(table, found)
    return store.rows(table) if wanted is None else found


def _destination(store: Store, wanted: dict[str, str], settings: dict[str, Any], fields: list[schemas.Field]) -> Table:
    """The table that a job writes to, made or emptied as its dispositions say; `$YYYYMMDD` is one partition."""
    plain, _, day = wanted["tableId"].partition("$")
    name: Name = (wanted["projectId"], wanted["datasetId"], plain)
    store.dataset(*name[:2])
    disposition = settings.get("writeDisposition", "WRITE_APPEND" if "sourceFormat" in settings else "WRITE_EMPTY")
    if name not in store.tables:
        if settings.get("createDisposition") == "CREATE_NEVER":
            store.table(name)
        resource = {"schema": {"fields": fields}}
        resource |= {k: settings[k] for k in ("timePartitioning", "clustering") if settings.get(k)}
        table = store.add_table(name, resource)
        properties = settings.get("destinationTableProperties", {})
        table.resource |= {k: properties[k] for k in ("labels", "description") if properties.get(k)}
        return table
    table = store.table(name)
    if disposition == "WRITE_EMPTY" and store.count(table):
        raise ApiError(409, f"Already Exists: Table {name[0]}:{name[1]}.{name[2]}", reason="duplicate")
    known = {f["name"]: f for f in table.fields}
    if disposition == "WRITE_TRUNCATE" and day:
        _check_columns(table, fields)
        store.delete_partition(table, dt.datetime.strptime(day, "%Y%m%d").date())
    elif disposition == "WRITE_TRUNCATE":
        store.define(table, [known.get(f["name"], f) for f in schemas.normal(fields)])
        properties = settings.get("destinationTableProperties", {})
        table.resource |= {k: properties[k] for k in ("labels", "description") if properties.get(k)}
    else:
        _check_columns(table, fields)
    return table


def _check_columns(table: Table, fields: list[schemas.Field]) -> None:
    known = {f["name"]: schemas.kind_of(f) for f in table.fields}
    for one in fields:
        if known.get(one["name"]) != schemas.kind_of(one):
            raise ApiError(
                400,
                f"Provided Schema does not match Table {table.name[0]}:{table.name[1]}.{table.name[2]}. "
                f"Field {one['name']} has changed type or is missing",
                reason="invalid",
            )


def run_load(store: Store, job: Job, content: bytes) -> None:
    """A load job of uploaded content: Parquet or newline-delimited JSON."""
    load = job.configuration["load"]
    job.configuration["jobType"] = "LOAD"
    wanted = load["destinationTable"]
    location = store.dataset(wanted["projectId"], wanted["datasetId"])["location"]
    if job.location and job.location.lower() != location.lower():
        name = f"{wanted['projectId']}:{wanted['datasetId']}"
        raise ApiError(404, f"Not found: Dataset {name} was not found in location {job.location}")
    job.location = location
    declared = load.get("schema", {}).get("fields")
    name = (wanted["projectId"], wanted["datasetId"], wanted["tableId"].partition("$")[0])
    fields = schemas.normal(declared) if declared else store.tables[name].fields if name in store.tables else None
    load.setdefault("sourceFormat", "CSV")
    match load["sourceFormat"]:
        case "PARQUET":
            rows = pq.read_table(io.BytesIO(content))
            fields = fields or schemas.fields_of(rows.schema)
        case "NEWLINE_DELIMITED_JSON":
            rows = _json_rows(content, fields)
            fields = fields or schemas.fields_of(rows.schema)
        case "CSV":
            rows = _csv_rows(store, content, load)
            fields = fields or schemas.fields_of(rows.schema)
        case other:
            raise ApiError(400, f"not known to this local server: sourceFormat {other}", reason="invalid")
    day = wanted["tableId"].partition("$")[2]
    partitioning = load.get("timePartitioning") or (
        store.tables[name].resource.get("timePartitioning") if name in store.tables else None
    )
    if day and partitioning:
        _check_day(rows, partitioning["field"], day)
    table = _destination(store, wanted, load, fields)
    store.append(table, rows)
    job.statistics["load"] = {
        "inputFiles": "1",
        "inputFileBytes": str(len(content)),
        "outputRows": str(rows.num_rows),
        "outputBytes": str(sum(schemas.size_of(column) for column in store.rows(table).columns)),
        "badRecords": "0",
    }


def _check_day(rows: pa.Table, column: str, day: str) -> None:
    strays = [one for one in rows[column].to_pylist() if one is None or f"{one:%Y%m%d}" != day]
    if strays:
        raise ApiError(
            400,
            f"Some rows belong to different partitions rather than destination partition {day}",
            reason="invalid",
        )


def _json_rows(content: bytes, fields: list[schemas.Field] | None) -> pa.Table:
    told = [json.loads(line) for line in content.decode().splitlines() if line.strip()]
    if fields is None:
        return pa.Table.from_pylist(told)
    try:
        made = [{f["name"]: schemas.from_json(row.get(f["name"]), f) for f in fields} for row in told]
        return pa.Table.from_pylist(made, schema=schemas.arrow_schema(fields))
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, f"Error while reading data, error message: {error}", reason="invalid") from None


def _csv_rows(store: Store, content: bytes, load: dict[str, Any]) -> pa.Table:
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        Path(file.name).write_bytes(content)
        header = int(load.get("skipLeadingRows") or 0)
        return store.connection.read_csv(file.name, header=bool(header)).to_arrow_table()
