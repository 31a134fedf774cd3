"""The web application: routes, limits and errors around a Service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.explanation import sample
from deploy.openapi import document
from deploy.requests import DEFAULT_ROUTES, RequestError, Routes, read_body
from deploy.service import Service
from deploy.telemetry import MEDIA_TYPE

if TYPE_CHECKING:
    from deploy.shadow import Shadow

log = logging.getLogger(__name__)

_QUIET = ("health", "metrics")  # asked every few seconds: told of only when the answer is not 200


def create_app(
    service: Service,
    *,
    routes: Routes = DEFAULT_ROUTES,
    shadow: Shadow | None = None,
    page: APIRouter | None = None,
    failed: Callable[[BaseException], None] | None = None,
    secured: bool = False,
) -> FastAPI:
    """The application; it warms up once it is started.

    page: what stands at /. shadow: is told of each answered prediction. failed: called where the model does not load.
    secured: whether the OpenAPI page tells of a token.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if shadow is not None:
            await shadow.start()
        warming = asyncio.create_task(service.warm())
        warming.add_done_callback(lambda task: _tell_failure(task, failed))
        yield
        warming.cancel()
        if shadow is not None:
            await shadow.stop()
        await asyncio.to_thread(service.batcher.close, service.limits.timeout_s)

    app = FastAPI(title="Parcours", lifespan=lifespan, redirect_slashes=False)
    described = document(service.about, service.limits, routes, secured)
    # FastAPI's own way to replace what it would make up
    app.openapi = lambda: described  # type: ignore[method-assign]
    if shadow is not None:
        service.metrics.add_shadow(shadow.counters)

    async def predict(request: Request) -> Response:
        start = time.monotonic()
        body = await _body(request, service)
        answer, instances = await service.predict(body, start + service.limits.timeout_s)
        request.state.instances = len(instances)
        if shadow is not None:
            shadow.mirror(body, instances, answer["predictions"], time.monotonic() - start)
        return _json(answer)

    async def explain(request: Request) -> Response:
        start = time.monotonic()
        body = await _body(request, service)
        request.state.instances = 1
        return _json(await service.explain(body, start + service.limits.timeout_s))

    async def health(request: Request) -> Response:
        if service.state == "ready":
            return _json({"status": "ready"})
        return _json({"error": {"message": service.state}}, 503)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.page(), media_type=MEDIA_TYPE)

    async def model(request: Request) -> Response:
        return _json({**service.about, "sample": sample(service.about)})

    for handler, method in ((predict, "POST"), (explain, "POST"), (health, "GET"), (metrics, "GET"), (model, "GET")):
        app.add_route(getattr(routes, handler.__name__), handler, methods=[method], include_in_schema=False)
    if page is not None:
        app.include_router(page)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)
    names = {getattr(routes, name): name for name in ("predict", "explain", "health", "metrics", "model")}
    app.add_middleware(Observer, service=service, names=names | {"/": "page"})
    return app


class Observer:
    """Counts, times and logs each request; sheds those beyond the limit; turns what went wrong inside into a 500.

    Plain ASGI: Starlette's own base class would put a task and a stream between each request and its answer.
    """

    def __init__(self, app: ASGIApp, service: Service, names: dict[str, str]) -> None:
        """names: paths to what they are called in metrics and logs; all others are `other`, whatever they hold."""
        self._app, self._service, self._names = app, service, names
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._names.get(scope["path"], "other")
        metrics, start, code = self._service.metrics, time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        self._under_way += 1
        metrics.in_flight.set(self._under_way)
        scope.setdefault("state", {})["instances"] = 0
        try:
            if self._under_way > self._service.limits.max_requests and route in ("predict", "explain"):
                many = RequestError(429, "too many requests at a time", {"Retry-After": "1", "Connection": "close"})
                await _answer_error(many)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        except ClientDisconnect:
            code = 499
        except Exception:
            log.exception("failed inside", extra={"route": route})
            if code:
                raise
            await _json({"error": {"message": "failed inside; the server's log tells where"}}, 500)(
                scope, receive, noting
            )
        finally:
            self._under_way -= 1
            seconds = time.perf_counter() - start
            metrics.in_flight.set(self._under_way)
            metrics.requests.labels(route, code).inc()
            metrics.seconds.labels(route).observe(seconds)
            if code != 200 or route not in _QUIET:
                told = {"route": route, "code": code, "instances": scope["state"]["instances"]}
                log.info("request", extra=told | {"ms": round(seconds * 1e3, 3)})


async def _body(request: Request, service: Service) -> bytes:
    service.check_caller(request.headers.get("authorization"))
    if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise RequestError(415, "expected a body without Content-Encoding", {"Connection": "close"})
    return await read_body(request.headers.get("content-length"), request.stream(), service.limits)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _answer_error(error: RequestError) -> Response:
    response = _json(error.content, error.status)
    response.headers.update(error.headers)
    return response


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError), "registered for it"
    return _answer_error(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself says: no such path, no such method."""
    assert isinstance(error, HTTPException), "registered for it"
    return _answer_error(RequestError(error.status_code, error.detail, dict(error.headers or {})))


def _tell_failure(task: asyncio.Task[None], failed: Callable[[BaseException], None] | None) -> None:
    error = None if task.cancelled() else task.exception()
    if error is None:
        return
    log.error("the model does not load", exc_info=error)
    if failed is not None:
        failed(error)
