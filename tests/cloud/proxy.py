"""A CONNECT proxy on loopback: ends TLS for the hosts that have a local server, and refuses all else.

What is inside the TLS goes as it is to the local HTTP server, or to the gRPC server where the client's ALPN asks for
h2, so that every client is tested unmodified, its TLS and its proxy handling too.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


@dataclass(frozen=True)
class Target:
    """The ports that serve a host; grpc is 0 where it has no gRPC API."""

    http: int
    grpc: int = 0


class Proxy:
    """find(host) gives where a host is served, None where nowhere; `refused` lists what was asked for in vain."""

    def __init__(self, certificate: Callable[[ssl.SSLContext], None], find: Callable[[str], Target | None]) -> None:
        self.refused: list[str] = []
        self.find = find
        self.contexts = {True: _context(certificate, "h2", "http/1.1"), False: _context(certificate, "http/1.1")}
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.set_exception_handler(lambda *_: None)  # a client that broke off in the middle of TLS
            server = self._loop.run_until_complete(self._loop.create_server(lambda: _Asked(self), "127.0.0.1", 0))
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            self._loop.run_forever()
            server.close()

        self._thread = threading.Thread(target=run, name="local cloud, proxy", daemon=True)
        self._thread.start()
        started.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _context(certificate: Callable[[ssl.SSLContext], None], *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(context)
    context.set_alpn_protocols(list(protocols))
    return context


class _Asked(asyncio.Protocol):
    """A connection before its CONNECT is understood."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._head = proxy, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        method, address, *_ = self._head.decode("latin-1").split()
        host, _, port = address.rpartition(":")
        target = self._proxy.find(host) if method == "CONNECT" and port == "443" else None
        if target is None:
            self._proxy.refused.append(address)
            said = f"{address}: no local server for this host, and the local proxy leads nowhere else\n".encode()
            self._transport.write(_REFUSED % (len(said), said))
            self._transport.close()
            return
        self._transport.pause_reading()
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._task = asyncio.ensure_future(self._tunnel(target))

    async def _tunnel(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        client = _Pipe()
        context = self._proxy.contexts[bool(target.grpc)]
        try:
            inside = await loop.start_tls(self._transport, client, context, server_side=True)
        except (OSError, ssl.SSLError):
            self._transport.close()  # a client that does not trust the CA, or went away
            return
        client.own = inside
        inside.pause_reading()
        spoken = inside.get_extra_info("ssl_object").selected_alpn_protocol()
        port = target.grpc if spoken == "h2" else target.http
        _, server = await loop.create_connection(_Pipe, "127.0.0.1", port)
        server.other, client.other = client.own, server.own
        for data in client.early:
            server.own.write(data)
        inside.resume_reading()


class _Pipe(asyncio.Protocol):
    """One end of a tunnel; what it receives the other end writes, no faster than that end takes it."""

    def __init__(self) -> None:
        self.own: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.own = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.write(data)

    def eof_received(self) -> bool:
        if self.other is not None:
            self.other.close()
        return False

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            self.other.close()
