"""The gRPC side of the local servers: credentials, faults and the log of calls, the same as over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from tests.cloud.oauth import OAuth
from tests.cloud.service import ApiError, Request, Service

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _code(error: ApiError) -> grpc.StatusCode:
    return getattr(grpc.StatusCode, error.status, CODES[error.code])  # 409 is ALREADY_EXISTS or ABORTED


class Interceptor(grpc.ServerInterceptor):
    """Wraps every unary and server-streaming method; an ApiError that a servicer raises becomes its status.

    A call is logged as Request("GRPC", "/package.Service/Method"), and faults match "GRPC /package.Service/Method".
    """

    def __init__(self, services: Sequence[Service], oauth: OAuth) -> None:
        self._services, self._oauth = services, oauth

    def intercept_service(self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        full_name = details.method.strip("/").partition("/")[0]
        service = next((s for s in self._services if full_name in s.grpc_services), None)
        if handler is None or service is None:
            return handler
        request = Request("GRPC", details.method, headers=dict(details.invocation_metadata))
        made = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, service, request), **made)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, service, request), **made)

    def _begin(self, service: Service, request: Request) -> None:
        service.requests.append(request)
        if "authorization" in request.headers:
            self._oauth.check(request.headers["authorization"])
        if fault := service.faults.next_failure(f"GRPC {request.path}"):
            raise ApiError(fault.status, fault.message or CODES[fault.status].value[1], reason=fault.reason or None)

    def _unary(
        self, function: Callable[[Any, Any], Any], service: Service, request: Request
    ) -> Callable[[Any, Any], Any]:
        def call(message: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._begin(service, request)
                made = function(message, context)
                if fault := service.faults.next_loss(f"GRPC {request.path}"):
                    raise ApiError(fault.status, "the answer got lost")
            except ApiError as error:
                request.status = error.code
                context.abort(_code(error), error.message)
            request.status = 200
            return made

        return call

    def _stream(
        self, function: Callable[[Any, Any], Iterator[Any]], service: Service, request: Request
    ) -> Callable[[Any, Any], Iterator[Any]]:
        def call(message: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                self._begin(service, request)
                cut = service.faults.next_cut(f"GRPC {request.path}")
                for number, made in enumerate(function(message, context)):
                    if number == cut:
                        raise ApiError(503, "Connection reset by peer")
                    yield made
            except ApiError as error:
                request.status = error.code
                context.abort(_code(error), error.message)
            request.status = 200

        return call
