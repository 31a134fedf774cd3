"""The HTTP side of the local servers: one loopback port, each request led to its service by host, then by path."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.cloud.service import ApiError, Request, Response, Service


def serves(service: Service, host: str) -> bool:
    """Whether one of the service's hosts, in which * stands for part of a label, is this one."""
    return any(re.fullmatch(re.escape(h).replace(r"\*", "[^.]+"), host) for h in service.hosts)


class Listener:
    """Serves HTTP/1.1 on 127.0.0.1. `allows(request)` raises ApiError where credentials are wrong."""

    def __init__(self, services: Sequence[Service], allows: Callable[[Request], None]) -> None:
        self._services, self._allows = services, allows
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.respond))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="local cloud, HTTP", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def respond(self, request: Request) -> Response:
        named = [s for s in self._services if serves(s, request.host)]
        local = request.host in ("127.0.0.1", "localhost")
        for service in named or (self._services if local else ()):
            if service.knows(request):
                try:
                    self._allows(request)
                except ApiError as error:
                    service.requests.append(request)
                    request.status = error.code
                    return error.response()
                return service.respond(request)
        if named:
            return named[0].respond(request)
        return ApiError(404, f"no local server for {request.host}{request.path}").response()


def _handler(respond: Callable[[Request], Response]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            response = respond(Request.of(self.command, self.path, self.headers.items(), self._content()))
            cut = response.cut_after is not None and response.cut_after < len(response.body)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.status not in (204, 304):
                self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body[: response.cut_after] if cut else response.body)
            if cut:
                self.close_connection = True

        def _content(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = bytearray()
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                pass  # trailers
            return bytes(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            """Silent: `Service.requests` is the log."""

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                self.close_connection = True  # a client that waits no longer

    return Handler
