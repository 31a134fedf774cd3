"""Cloud Logging: what jobs write, and reading it back by the filter that Vertex AI's documentation gives."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from google.api import monitored_resource_pb2
from google.cloud.logging_v2.types import ListLogEntriesRequest, ListLogEntriesResponse, LogEntry
from google.protobuf import json_format

from tests.cloud.service import ApiError, Request, route
from tests.cloud.transcoding import TranscodingService, rpc

_TERM = re.compile(r'([\w.]+)\s*(>=|=|>|<)\s*"?([^"\s]+)"?')


class Logging(TranscodingService):
    """`entries`, oldest first. The filter knows terms joined by AND: type, labels, timestamp, insertId."""

    name = "logging"
    hosts = ("logging.googleapis.com",)
    grpc_services = ("google.logging.v2.LoggingServiceV2",)

    def reset(self) -> None:
        super().reset()
        self.entries: list[LogEntry] = []

    def write(self, project: str, labels: dict[str, str], line: str) -> None:
        resource = monitored_resource_pb2.MonitoredResource(type="ml_job", labels=labels)
        with self.lock:
            number = len(self.entries)
            self.entries.append(
                LogEntry(
                    log_name=f"projects/{project}/logs/{labels['task_name']}",
                    resource=resource,
                    timestamp=dt.datetime.now(dt.UTC),
                    insert_id=f"{number:012d}",
                    json_payload={"message": line, "levelname": "INFO"},
                )
            )

    @rpc("google.logging.v2.LoggingServiceV2")
    def ListLogEntries(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        terms = [part.strip() for part in re.split(r"\s+AND\s+|\n", request.filter) if part.strip()]
        with self.lock:
            found = [entry for entry in self.entries if all(_holds(entry, term) for term in terms)]
        if request.order_by not in ("", "timestamp asc", "timestamp desc"):
            raise ApiError(400, f"order_by: {request.order_by}")
        if request.order_by == "timestamp desc":
            found.reverse()
        start, size = int(request.page_token or 0), request.page_size or 50
        more = str(start + size) if len(found) > start + size else ""
        return ListLogEntriesResponse(entries=found[start : start + size], next_page_token=more)

    @route("POST", "/v2/entries:list")
    def list_entries(self, request: Request) -> Any:
        asked = ListLogEntriesRequest.pb(ListLogEntriesRequest())
        try:
            json_format.ParseDict(request.json(), asked)
        except json_format.ParseError as error:
            raise ApiError(400, f"Invalid JSON payload received. {error}") from None
        answer = self.ListLogEntries(ListLogEntriesRequest.wrap(asked))
        return json_format.MessageToDict(type(answer).pb(answer))


def _holds(entry: LogEntry, term: str) -> bool:
    found = _TERM.fullmatch(term)
    if not found:
        raise ApiError(400, f"the local server does not know this filter: {term}")
    name, sign, value = found.groups()
    if name == "timestamp":
        wanted = dt.datetime.fromisoformat(value)
        return {">": entry.timestamp > wanted, ">=": entry.timestamp >= wanted, "<": entry.timestamp < wanted}[sign]
    if name == "insertId":
        return entry.insert_id > value if sign == ">" else entry.insert_id == value
    known = {"resource.type": entry.resource.type} | {
        f"resource.labels.{key}": held for key, held in entry.resource.labels.items()
    }
    if sign != "=":
        raise ApiError(400, f"the local server does not know this filter: {term}")
    return known.get(name) == value
