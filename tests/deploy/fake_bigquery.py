"""A server that speaks what a query needs of BigQuery's REST v2: tables.get, jobs.insert, jobs.get, getQueryResults.

Queries are translated to DuckDB by sqlglot and run on Arrow tables, with their named parameters.
"""

import datetime as dt
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import duckdb
import pyarrow as pa
import sqlglot

_TYPES = ((pa.types.is_string, "STRING"), (pa.types.is_floating, "FLOAT"), (pa.types.is_integer, "INTEGER"))
_BASE = "/bigquery/v2/projects/"


def _type(kind):
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    return next(name for test, name in _TYPES if test(kind))


def _schema(table):
    return {"fields": [{"name": f.name, "type": _type(f.type), "mode": "NULLABLE"} for f in table.schema]}


def _cell(value):
    if isinstance(value, dt.datetime):
        value = int((value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1))
    return {"v": None if value is None else str(value)}


class FakeBigQuery:
    """tables: {"project.dataset.table": Arrow table}; queries: the texts that were run; page: rows an answer."""

    def __init__(self):
        self.tables, self.queries, self.results, self.host, self.page = {}, [], {}, "", 100

    def get_table(self, project, dataset, table):
        found = self.tables.get(f"{project}.{dataset}.{table}")
        if found is None:
            return _error(404, f"Not found: Table {project}:{dataset}.{table}")
        reference = {"projectId": project, "datasetId": dataset, "tableId": table}
        return 200, {"tableReference": reference, "schema": _schema(found), "type": "TABLE"}

    def insert_job(self, project, body):
        query = body["configuration"]["query"]
        self.queries.append(query["query"])
        values = {p["name"]: int(p["parameterValue"]["value"]) for p in query.get("queryParameters", [])}
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        tree = sqlglot.parse_one(query["query"], read="bigquery")
        for i, table in enumerate(list(tree.find_all(sqlglot.exp.Table))):
            name = ".".join(part.name for part in table.parts)
            if name not in self.tables:
                return _error(404, f"Not found: Table {name}")
            connection.register(f"t{i}", self.tables[name])
            table.replace(sqlglot.exp.to_table(f"t{i}"))
        for parameter in list(tree.find_all(sqlglot.exp.Parameter)):
            parameter.replace(sqlglot.exp.Literal.number(values[parameter.name]))
        self.results[body["jobReference"]["jobId"]] = connection.sql(tree.sql("duckdb")).to_arrow_table()
        return 200, self.job(project, body["jobReference"]["jobId"], body["configuration"])

    def job(self, project, job, configuration=None):
        reference = {"projectId": project, "jobId": job, "location": "EU"}
        done = {"kind": "bigquery#job", "jobReference": reference, "status": {"state": "DONE"}, "statistics": {}}
        # every query's result is a table, which the client asks for before it reads a row
        query = (configuration or {}).get("query", {}) | {
            "destinationTable": {"projectId": project, "datasetId": "_results", "tableId": job}
        }
        return done | {"configuration": {"query": query, "jobType": "QUERY"}}

    def query_results(self, project, job, asked):
        table = self.results[job]
        start = int(asked.get("pageToken", asked.get("startIndex", ["0"]))[0])
        most = min(self.page, int(asked.get("maxResults", [str(self.page)])[0]))
        rows = table.slice(start, most).to_pylist()
        answer = {
            "jobReference": {"projectId": project, "jobId": job, "location": "EU"},
            "jobComplete": True,
            "totalRows": str(table.num_rows),
            "schema": _schema(table),
        }
        if rows:  # left out where there are none, as BigQuery does; the client takes an empty list for the end
            answer["rows"] = [{"f": [_cell(value) for value in row.values()]} for row in rows]
        if start + most < table.num_rows and most:
            answer["pageToken"] = str(start + most)
        return 200, answer

    def answer(self, method, address, body):
        parts = urlsplit(address)
        if found := re.fullmatch(_BASE + r"([^/]+)/datasets/([^/]+)/tables/([^/]+)", parts.path):
            return self.get_table(*found.groups())
        if method == "POST" and (found := re.fullmatch(_BASE + r"([^/]+)/jobs", parts.path)):
            return self.insert_job(found[1], body)
        if found := re.fullmatch(_BASE + r"([^/]+)/jobs/([^/]+)", parts.path):
            return 200, self.job(*found.groups())
        if found := re.fullmatch(_BASE + r"([^/]+)/queries/([^/]+)", parts.path):
            return self.query_results(*found.groups(), parse_qs(parts.query))
        return _error(404, f"no such method: {method} {address}")


def _error(code, message):
    return code, {"error": {"code": code, "message": message, "errors": [{"reason": "notFound", "message": message}]}}


@contextmanager
def served():
    """The server on a port of its own; `.host` is what BIGQUERY_EMULATOR_HOST takes."""
    fake = FakeBigQuery()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = fake.answer(self.command, self.path, json.loads(content or b"{}"))
            encoded = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = _serve

        def log_message(self, *_):
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.host = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
