"""BigQuery's REST API v2 over DuckDB: datasets, tables, rows, jobs; the Storage Read API beside it.

Answers as cloud.google.com/bigquery/docs/reference/rest/v2 has them. It proves wire protocol and client behaviour, and
not IAM, quotas or how BigQuery itself computes.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from tests.cloud import bigquery_schema as schemas
from tests.cloud.bigquery_extract import run_extract
from tests.cloud.bigquery_jobs import Job, run_load, run_query
from tests.cloud.bigquery_storage import ReadApi
from tests.cloud.bigquery_store import Store
from tests.cloud.listener import Listener
from tests.cloud.service import ApiError, Request, Response, Service, answer, route

V2 = "/bigquery/v2/projects/{project}"
DATASET = V2 + "/datasets/{dataset}"
TABLE = DATASET + "/tables/{table}"
UPLOAD = "/upload" + V2 + "/jobs"
PAGE = 10_000  # rows an answer at most


class BigQuery(Service):
    """`store` holds what there is; `page` rows an answer; insertAll refuses a row with a value among `refusing`."""

    name = "bigquery"
    hosts = ("bigquery.googleapis.com", "bigquerystorage.googleapis.com")
    grpc_services = ("google.cloud.bigquery.storage.v1.BigQueryRead",)

    def reset(self) -> None:
        super().reset()
        self.store = Store()
        self.jobs: dict[str, Job] = {}
        self.uploads: dict[str, tuple[str, dict[str, Any]]] = {}
        self.read_api = ReadApi(self)
        self.page = PAGE
        self.refusing: set[str] = set()

    def add_to(self, server: Any) -> None:
        from tests.cloud.bigquery_storage import handler

        server.add_generic_rpc_handlers((handler(self),))

    # datasets

    @route("POST", V2 + "/datasets")
    def insert_dataset(self, request: Request, project: str) -> Any:
        with self.lock:
            return self.store.add_dataset(project, request.json())

    @route("GET", V2 + "/datasets")
    def list_datasets(self, request: Request, project: str) -> Any:
        """With `filter=labels.key:value …`, as the API has it: every term must hold."""
        terms = request.query.get("filter", "").split()
        if any(not re.fullmatch(r"labels\.[^:]+(:.*)?", term) for term in terms):
            raise ApiError(400, f"Invalid filter: {request.query['filter']}")
        with self.lock:
            found = [
                d
                for (owner, _), d in sorted(self.store.datasets.items())
                if owner == project and not d.get("hidden") and all(_labelled(d, term) for term in terms)
            ]
        shown = ("kind", "id", "datasetReference", "labels", "location")
        listed = [{key: d[key] for key in shown if key in d} for d in found]
        return {"kind": "bigquery#datasetList"} | ({"datasets": listed} if listed else {})

    @route("GET", DATASET)
    def get_dataset(self, request: Request, project: str, dataset: str) -> Any:
        with self.lock:
            return self.store.dataset(project, dataset)

    @route("PATCH", DATASET)
    def patch_dataset(self, request: Request, project: str, dataset: str) -> Any:
        with self.lock:
            found = self.store.dataset(project, dataset)
            found |= request.json()
            return found

    @route("DELETE", DATASET)
    def delete_dataset(self, request: Request, project: str, dataset: str) -> Any:
        with self.lock:
            self.store.dataset(project, dataset)
            names = [n for n in self.store.tables if n[:2] == (project, dataset)]
            if names and request.query.get("deleteContents", "").lower() != "true":
                raise ApiError(400, f"Dataset {project}:{dataset} is still in use", reason="resourceInUse")
            for name in names:
                self.store.drop(name)
            del self.store.datasets[project, dataset]
        return Response(204)

    # tables and their rows

    @route("POST", DATASET + "/tables")
    def insert_table(self, request: Request, project: str, dataset: str) -> Any:
        body = request.json()
        with self.lock:
            made = self.store.add_table((project, dataset, body["tableReference"]["tableId"]), body)
            return self.store.described(made)

    @route("GET", DATASET + "/tables")
    def list_tables(self, request: Request, project: str, dataset: str) -> Any:
        with self.lock:
            tables = self.store.matching(project, dataset, "")
        shown = ("kind", "id", "tableReference", "type", "labels", "expirationTime", "timePartitioning")
        listed = [{key: t.resource[key] for key in shown if key in t.resource} for t in tables]
        found = {"kind": "bigquery#tableList", "totalItems": len(listed)}
        return found | ({"tables": listed} if listed else {})

    @route("GET", TABLE)
    def get_table(self, request: Request, project: str, dataset: str, table: str) -> Any:
        with self.lock:
            return self.store.described(self.store.table((project, dataset, table)))

    @route("PATCH", TABLE)
    def patch_table(self, request: Request, project: str, dataset: str, table: str) -> Any:
        with self.lock:
            found = self.store.table((project, dataset, table))
            found.resource |= {k: v for k, v in request.json().items() if k not in ("schema", "tableReference")}
            return self.store.described(found)

    @route("DELETE", TABLE)
    def delete_table(self, request: Request, project: str, dataset: str, table: str) -> Any:
        with self.lock:
            self.store.table((project, dataset, table))
            self.store.drop((project, dataset, table))
        return Response(204)

    @route("GET", TABLE + "/data")
    def list_rows(self, request: Request, project: str, dataset: str, table: str) -> Any:
        with self.lock:
            found = self.store.table((project, dataset, table))
            rows = self.store.rows(found)
        return {"kind": "bigquery#tableDataList", **self._paged(rows, found.fields, request)}

    @route("POST", TABLE + "/insertAll")
    def insert_all(self, request: Request, project: str, dataset: str, table: str) -> Any:
        """All rows or, where one is wrong and skipInvalidRows is not set, none; an insertId seen before is dropped."""
        body = request.json()
        with self.lock:
            found = self.store.table((project, dataset, table))
            known = {f["name"]: f for f in found.fields}
            errors, good = [], []
            for index, row in enumerate(body["rows"]):
                if wrong := self._wrong(row["json"], known):
                    errors.append({"index": index, "errors": [{"reason": "invalid", "location": wrong}]})
                elif row.get("insertId") not in found.insert_ids:
                    good.append(row)
            if not errors or body.get("skipInvalidRows"):
                found.insert_ids |= {row["insertId"] for row in good if row.get("insertId")}
                values = [{n: schemas.from_json(row["json"].get(n), f) for n, f in known.items()} for row in good]
                if values:
                    self.store.append(found, pa.Table.from_pylist(values, schema=schemas.arrow_schema(found.fields)))
        response = {"kind": "bigquery#tableDataInsertAllResponse"}
        return response | ({"insertErrors": errors} if errors else {})

    def _wrong(self, row: dict[str, Any], known: dict[str, schemas.Field]) -> str:
        for name, value in row.items():
            if name not in known or (isinstance(value, str) and value in self.refusing):
                return name
            try:
                schemas.from_json(value, known[name])
            except (KeyError, TypeError, ValueError):
                return name
        return ""

    # jobs

    @route("POST", V2 + "/jobs")
    def insert_job(self, request: Request, project: str) -> Any:
        return self._run(Job(project, request.json()), None).resource

    @route("GET", V2 + "/jobs")
    def list_jobs(self, request: Request, project: str) -> Any:
        with self.lock:
            jobs = [{**job.resource, "state": "DONE"} for job in self.jobs.values() if job.project == project]
        return {"kind": "bigquery#jobList", "jobs": jobs}

    @route("GET", V2 + "/jobs/{job}")
    def get_job(self, request: Request, project: str, job: str) -> Any:
        return self._job(project, job).resource

    @route("POST", V2 + "/jobs/{job}/cancel")
    def cancel_job(self, request: Request, project: str, job: str) -> Any:
        return {"kind": "bigquery#jobCancelResponse", "job": self._job(project, job).resource}

    @route("POST", V2 + "/queries")
    def query(self, request: Request, project: str) -> Any:
        body = request.json()
        query = {k: v for k, v in body.items() if k not in ("location", "dryRun", "labels", "maxResults", "timeoutMs")}
        configuration = {"query": query, "dryRun": body.get("dryRun", False), "labels": body.get("labels", {})}
        job = self._run(
            Job(project, {"configuration": configuration, "jobReference": {"location": body.get("location")}}), None
        )
        if job.error:
            raise job.error
        return {"kind": "bigquery#queryResponse", **self._results(job, request)}

    @route("GET", V2 + "/queries/{job}")
    def query_results(self, request: Request, project: str, job: str) -> Any:
        found = self._job(project, job)
        if found.error:
            raise found.error
        return {"kind": "bigquery#getQueryResultsResponse", **self._results(found, request)}

    @route("POST", UPLOAD)
    def upload(self, request: Request, project: str) -> Any:
        if request.query["uploadType"] == "resumable":
            name = uuid.uuid4().hex
            self.uploads[name] = (project, request.json())
            address = f"http{'s' * (request.host.endswith('googleapis.com'))}://{request.headers['host']}{request.path}"
            return answer({}, Location=f"{address}?uploadType=resumable&upload_id={name}")
        described, content = _multipart(request)
        return self._run(Job(project, described), content).resource

    @route("PUT", UPLOAD)
    def upload_content(self, request: Request, project: str) -> Any:
        """One piece of a resumable upload: 308 until `Content-Range: bytes a-b/total` brings the last."""
        name = request.query["upload_id"]
        owner, body = self.uploads[name]
        held = body.setdefault("_content", b"") + request.body
        body["_content"] = held
        total = request.headers.get("content-range", "*/*").rpartition("/")[2]
        if total == "*" or len(held) < int(total):
            return Response(308, headers={"Range": f"bytes=0-{len(held) - 1}"})
        del self.uploads[name], body["_content"]
        return self._run(Job(owner, body), held).resource

    def _run(self, job: Job, content: bytes | None) -> Job:
        with self.lock:
            if job.id in self.jobs:
                raise ApiError(409, f"Already Exists: Job {job.project}:{job.id}", reason="duplicate")
            try:
                if "query" in job.configuration:
                    run_query(self.store, job)
                elif "load" in job.configuration and content is not None:
                    run_load(self.store, job, content)
                elif "extract" in job.configuration:
                    run_extract(self, job)
                else:
                    raise ApiError(400, "this local server knows queries, extracts, and loads of uploaded content")
            except ApiError as error:
                if job.configuration.get("dryRun"):
                    raise
                job.error = error
            if not job.configuration.get("dryRun"):
                self.jobs[job.id] = job
        return job

    def _job(self, project: str, job: str) -> Job:
        if job not in self.jobs:
            raise ApiError(404, f"Not found: Job {project}:{job}")
        return self.jobs[job]

    def _results(self, job: Job, request: Request) -> dict[str, Any]:
        found = {"jobComplete": True, "jobReference": job.resource["jobReference"], "cacheHit": False}
        found["totalBytesProcessed"] = job.statistics.get("totalBytesProcessed", "0")
        if affected := job.statistics.get("query", {}).get("numDmlAffectedRows"):
            found["numDmlAffectedRows"] = affected
        if session := job.statistics.get("sessionInfo"):
            found["sessionInfo"] = session
        if job.rows is None:
            return {**found, "totalRows": "0", "schema": {"fields": []}}
        fields = schemas.fields_of(job.rows.schema)
        return {**found, "schema": {"fields": fields}, **self._paged(job.rows, fields, request)}

    def _paged(self, rows: pa.Table, fields: list[schemas.Field], request: Request) -> dict[str, Any]:
        asked = request.query
        start = int(asked.get("pageToken") or asked.get("startIndex") or 0)
        most = min(self.page, int(asked.get("maxResults", self.page)))
        integers = asked.get("formatOptions.useInt64Timestamp", "").lower() == "true"
        page = rows.slice(start, most).to_pylist()
        made: dict[str, Any] = {"totalRows": str(rows.num_rows)}
        if page:  # left out where there are none; the client takes an empty list for the end
            made["rows"] = [{"f": [schemas.cell(row[f["name"]], f, integers) for f in fields]} for row in page]
        if most and start + most < rows.num_rows:
            made["pageToken"] = str(start + most)
        return made


@contextmanager
def emulator() -> Iterator[BigQuery]:
    """The REST API alone, on a port of its own; `.url` is what BIGQUERY_EMULATOR_HOST takes."""
    server = BigQuery()
    listener = Listener([server], lambda _: None)
    server.url = f"http://127.0.0.1:{listener.port}"
    try:
        yield server
    finally:
        listener.close()


def _labelled(dataset: dict[str, Any], term: str) -> bool:
    key, _, value = term.removeprefix("labels.").partition(":")
    labels = dataset.get("labels", {})
    return key in labels and value in ("", labels[key])


def _multipart(request: Request) -> tuple[dict[str, Any], bytes]:
    """The two parts of a multipart upload: what is described in JSON, and the content."""
    import json

    boundary = re.search(r'boundary="?([^";]+)', request.headers["content-type"])
    assert boundary
    _, first, second, *_ = request.body.split(b"--" + boundary[1].encode())
    described, content = (part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in (first, second))
    return json.loads(described), content
