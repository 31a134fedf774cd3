"""What every local server is: routes that answer HTTP requests, state that tests inspect, faults that tests inject."""

from __future__ import annotations

import gzip
import http
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.cloud.faults import Faults

if TYPE_CHECKING:
    from tests.cloud.house import House

# google.rpc.Code's names for what the JSON APIs answer (cloud.google.com/apis/design/errors)
STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    503: "backendError",
}


@dataclass
class Request:
    """One HTTP request. path is as sent (still quoted); query and (lower-case) headers have one value a name."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 0  # what was answered, for tests that look back

    @classmethod
    def of(cls, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> Request:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(method, parts.path, query, {k.lower(): v for k, v in headers}, body)

    @property
    def host(self) -> str:
        return self.headers.get("host", "").rpartition(":")[0] or self.headers.get("host", "")

    def json(self) -> Any:
        """The body as JSON, {} where it is empty. Raises ApiError 400 where it is none."""
        raw = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        try:
            return json.loads(raw or b"{}")
        except ValueError:
            raise ApiError(400, "Parse Error", reason="parseError") from None


@dataclass
class Response:
    """status, headers and body; cut_after: the connection breaks after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None


class ApiError(Exception):
    """An error in the form that Google's JSON APIs give it."""

    def __init__(self, code: int, message: str, *, reason: str | None = None, status: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or REASONS.get(code, "backendError")
        self.status = status or STATUS_NAMES.get(code, "UNKNOWN")

    def response(self) -> Response:
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        error = {"code": self.code, "message": self.message, "errors": [detail], "status": self.status}
        return answer({"error": error}, self.code)


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer."""
    named = {"Content-Type": "application/json; charset=UTF-8"}
    named |= {k.replace("_", "-"): v for k, v in headers.items()}
    return Response(status, json.dumps(content).encode(), named)


def route(method: str, path: str) -> Callable[[Any], Any]:
    """Marks a method of a Service as answering `method path`; {name} is one segment, {name:path} any number.

    The method gets the Request and the path's parts, unquoted, by name; it returns a Response, or what becomes JSON.
    """
    return lambda function: function.__dict__.setdefault("routes", []).append((method, _pattern(path))) or function


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)(:path)?\}", path)
    text = re.escape(pieces[0])
    for name, many, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if many else '[^/]+?'})" + re.escape(literal)
    return re.compile(text)


class Service:
    """A base for one API: `name`, the `hosts` it answers for (* stands for one label's part), routes, state, faults.

    `requests` keeps what came, in order, with the status that was answered. Subclasses set their state in `reset`,
    and add their gRPC servicers in `add_to`. `lock` is held by nobody but the subclass.
    """

    name = ""
    hosts: tuple[str, ...] = ()
    grpc_services: tuple[str, ...] = ()  # full names, such as google.cloud.aiplatform.v1.JobService

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.faults = Faults()
        self.requests: list[Request] = []
        self.url = ""  # http://127.0.0.1:port, and
        self.house: House | None = None  # the other servers, both set when the house opens
        self._routes = [
            (method, pattern, function)
            for function in (getattr(self, name) for name in dir(type(self)) if not name.startswith("__"))
            for method, pattern in getattr(function, "routes", ())
        ]
        self._routes.sort(key=lambda found: found[1].pattern.count(".+"))  # what takes any path comes last
        self.reset()

    def reset(self) -> None:
        """Forgets everything; subclasses call super().reset() and set their own state anew."""
        self.faults.clear()
        self.requests.clear()

    def add_to(self, server: Any) -> None:
        """Adds the service's gRPC servicers to a grpc.Server; none by default."""

    def close(self) -> None:
        """Ends what the service started (processes, connections)."""

    def knows(self, request: Request) -> bool:
        """Whether this service has a route for the request."""
        return any(method == request.method and pattern.fullmatch(request.path) for method, pattern, _ in self._routes)

    def fail(self, status: int, *, times: int = 1, match: str = "", message: str = "", reason: str = "") -> None:
        """The next `times` requests whose "METHOD /path" (or gRPC method) matches the regex answer `status`."""
        self.faults.fail(status, times=times, match=match, message=message, reason=reason)

    def cut(self, *, after: int, times: int = 1, match: str = "") -> None:
        """The next `times` matching answers break off after so many bytes (HTTP) or messages (a gRPC stream)."""
        self.faults.cut(after=after, times=times, match=match)

    def lose(self, status: int, *, times: int = 1, match: str = "") -> None:
        """The next `times` matching requests take effect, and `status` is what the client hears of them."""
        self.faults.lose(status, times=times, match=match)

    def seen(self, match: str) -> list[Request]:
        """The requests whose "METHOD /path" matches the regex somewhere."""
        return [r for r in self.requests if re.search(match, f"{r.method} {r.path}")]

    def respond(self, request: Request) -> Response:
        """The answer to one request, faults and errors included."""
        self.requests.append(request)
        try:
            if fault := self.faults.next_failure(f"{request.method} {request.path}"):
                message = fault.message or http.HTTPStatus(fault.status).phrase
                raise ApiError(fault.status, message, reason=fault.reason or None)
            response = self._dispatch(request)
            if fault := self.faults.next_loss(f"{request.method} {request.path}"):
                raise ApiError(fault.status, "the answer got lost")
        except ApiError as error:
            response = error.response()
        if response.cut_after is None and response.status < 300:
            response.cut_after = self.faults.next_cut(f"{request.method} {request.path}")
        request.status = response.status
        return response

    def _dispatch(self, request: Request) -> Response:
        for method, pattern, function in self._routes:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                made = function(request, **{k: unquote(v) for k, v in found.groupdict().items()})
                return made if isinstance(made, Response) else answer(made)
        raise ApiError(404, f"no such method here: {request.method} {request.path}")
