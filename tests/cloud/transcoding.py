"""One server for an API's gRPC and REST: the calls are methods over Google's own message types.

REST paths and bodies come from the HTTP annotations that the API's published clients carry (google.api.http); requests
are parsed strictly: a field that the type has not is refused with 400, as Google's servers do.
"""

from __future__ import annotations

import importlib
import re
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import grpc
from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from tests.cloud.service import ApiError, Request, Response, Service

_SYSTEM = ("$alt", "alt", "prettyPrint", "key", "$.xgafv", "quotaUser")  # cloud.google.com/apis/docs/system-parameters


def rpc(service: str) -> Callable[[Any], Any]:
    """Marks a method as the call of that name of `service` (in full); request and answer types are annotations."""
    return lambda function: function.__dict__.update(rpc_service=service) or function


class Call:
    """One call of an API: full gRPC name, message types, the function that answers."""

    def __init__(self, function: Any) -> None:
        hints = typing.get_type_hints(function)
        self.service, self.name, self.function = function.rpc_service, function.__name__, function
        self.request, self.answer = hints["request"], hints["return"]

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    def new_request(self) -> Message:
        return _message(self.request())

    def __call__(self, message: Message) -> Message:
        given = self.request.wrap(message) if hasattr(self.request, "wrap") else message
        return _message(self.function(given))


def _message(value: Any) -> Message:
    """A protobuf message, taken out of proto-plus' wrapping."""
    return type(value).pb(value) if hasattr(type(value), "pb") else value


class TranscodingService(Service):
    """A service whose @rpc methods are served over gRPC, and over REST where the API has HTTP annotations for them.

    transports: by the API's service, the module of its client's REST transport, which holds the annotations.
    """

    transports: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        found = [getattr(self, name) for name in dir(type(self)) if not name.startswith("__")]
        self.calls = [Call(function) for function in found if hasattr(function, "rpc_service")]
        self._http = [bound for call in self.calls for bound in self._bindings(call)]
        super().__init__()

    def _bindings(self, call: Call) -> list[tuple[str, re.Pattern[str], str | None, Call]]:
        """(method, path, the field that is the body, call) of each HTTP annotation."""
        if call.service not in self.transports:
            return []
        short = call.service.rpartition(".")[2]
        base = getattr(importlib.import_module(self.transports[call.service]), f"_Base{short}RestTransport")
        options = getattr(base, f"_Base{call.name}")._get_http_options()
        return [(o["method"].upper(), _template(o["uri"]), o.get("body"), call) for o in options]

    def knows(self, request: Request) -> bool:
        return super().knows(request) or any(pattern.fullmatch(request.path) for _, pattern, _, _ in self._http)

    def _dispatch(self, request: Request) -> Response:
        for method, pattern, body, call in self._http:
            found = pattern.fullmatch(request.path) if method == request.method else None
            if found:
                message = call.new_request()
                _fill(message, request, body, _places(found))
                self.check(request.host, message)
                enum_ints = "enum-encoding=int" in request.query.get("$alt", "")
                text = json_format.MessageToJson(call(message), use_integers_for_enums=enum_ints, indent=None)
                return Response(200, text.encode(), {"Content-Type": "application/json; charset=UTF-8"})
        return super()._dispatch(request)

    def check(self, host: str, message: Message) -> None:
        """Whether `host` answers for this request; subclasses raise ApiError. host is '' for gRPC."""

    def add_to(self, server: grpc.Server) -> None:
        for service in {call.service for call in self.calls}:
            handlers = {call.name: self._handler(call) for call in self.calls if call.service == service}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _handler(self, call: Call) -> grpc.RpcMethodHandler:
        def behave(message: Message, context: grpc.ServicerContext) -> Message:
            self.check("", message)
            return call(message)

        return grpc.unary_unary_rpc_method_handler(
            behave,
            request_deserializer=type(call.new_request()).FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )


def operation(name: str, answer: Any = None, metadata: Any = None) -> operations_pb2.Operation:
    """A long-running operation: done where there is an answer."""
    made = operations_pb2.Operation(name=name, done=answer is not None)
    if answer is not None:
        made.response.Pack(_message(answer))
    if metadata is not None:
        made.metadata.Pack(_message(metadata))
    return made


def _template(uri: str) -> re.Pattern[str]:
    """/v1/{name=projects/*/models/*}:x as a pattern, whose groups are numbered by the variables' order."""
    pieces = re.split(r"\{([\w.]+)(?:=([^}]*))?\}", uri)
    text = re.escape(pieces[0])
    for name, value, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        inner = re.escape(value or "*").replace(r"\*\*", ".+").replace(r"\*", "[^/:]+")
        text += f"(?P<{name.replace('.', '__')}>{inner})" + re.escape(literal)
    return re.compile(text)


def _places(found: re.Match[str]) -> dict[str, str]:
    return {name.replace("__", "."): value for name, value in found.groupdict().items()}


def _fill(message: Message, request: Request, body: str | None, places: dict[str, str]) -> None:
    """Puts path, query and body into the message. Raises ApiError 400 where they do not fit its type."""
    given: dict[str, Any] = {}
    for name, value in request.query.items():
        if name not in _SYSTEM:
            _put(given, name, {"true": True, "false": False}.get(value, value))
    if body == "*":
        given |= request.json()
    elif body:
        given[body] = request.json()
    for name, value in places.items():
        _put(given, name, value)
    try:
        json_format.ParseDict(given, message)
    except json_format.ParseError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from None


def _put(given: dict[str, Any], dotted: str, value: Any) -> None:
    *above, last = dotted.split(".")
    for name in above:
        given = given.setdefault(name, {})
    given[last] = value
