"""A server that speaks what a log of pairs asks of BigQuery's REST v2: tables.insert, tables.get, tabledata.insertAll.

Rows with an insertId seen before are dropped, as BigQuery does; values of the wrong type and unknown columns are
refused, row by row.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TABLES = r"/bigquery/v2/projects/([^/?]+)/datasets/([^/?]+)/tables"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class FakeBigQuery:
    """tables: {"project.dataset.table": {"schema", "timePartitioning"…}}; rows: {the same: {insertId: row}};
    failing: HTTP status for the next requests of insertAll; refusing: rows whose journey_id is in it are refused."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.datasets = {("project", "dataset")}
        self.inserts: list[int] = []
        self.failing: list[int] = []
        self.refusing: set[str] = set()
        self.host = ""

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if found := re.fullmatch(_TABLES, path):
            return self._create(found.groups(), body)
        if found := re.fullmatch(_TABLES + r"/([^/?]+)", path):
            table = self.tables.get(".".join(found.groups()))
            return (200, table) if table else _error(404, f"Not found: Table {'.'.join(found.groups())}")
        if (found := re.fullmatch(_TABLES + r"/([^/?]+)/insertAll", path)) and method == "POST":
            return self._insert(".".join(found.groups()), body)
        return _error(404, f"no such method: {method} {path}")

    def _create(self, dataset: tuple[str, ...], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if dataset not in self.datasets:
            return _error(404, f"Not found: Dataset {':'.join(dataset)}")
        name = ".".join((*dataset, body["tableReference"]["tableId"]))
        if name in self.tables:
            return _error(409, f"Already Exists: Table {name}")
        self.tables[name] = body
        self.rows[name] = {}
        return 200, body

    def _insert(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.inserts.append(len(body["rows"]))
        if self.failing:
            return _error(self.failing.pop(0), "backend error")
        columns = {field["name"]: field["type"] for field in self.tables[name]["schema"]["fields"]}
        errors = []
        for index, row in enumerate(body["rows"]):
            wrong = [column for column, value in row["json"].items() if not _fits(columns.get(column), value)]
            if wrong or row["json"]["journey_id"] in self.refusing:
                errors.append({"index": index, "errors": [{"reason": "invalid", "location": ",".join(wrong)}]})
        if errors:  # without skipInvalidRows none is taken
            return 200, {"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors}
        for row in body["rows"]:
            self.rows[name].setdefault(row["insertId"], row["json"])
        return 200, {"kind": "bigquery#tableDataInsertAllResponse"}


def _fits(kind: str | None, value: Any) -> bool:
    if value is None:
        return kind is not None
    if kind == "TIMESTAMP":
        return isinstance(value, str) and _TIME.fullmatch(value) is not None
    types = {"STRING": str, "FLOAT": int | float, "FLOAT64": int | float}
    return kind in types and isinstance(value, types[kind])


def _error(code: int, message: str) -> tuple[int, dict[str, Any]]:
    reason = {404: "notFound", 409: "duplicate"}.get(code, "backendError")
    return code, {"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}}


@contextmanager
def served() -> Iterator[FakeBigQuery]:
    """The server on a port of its own; `.host` is what BIGQUERY_EMULATOR_HOST takes."""
    fake = FakeBigQuery()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            code, answer = fake.answer(self.command, self.path.partition("?")[0], json.loads(content or b"{}"))
            encoded = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
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
