"""Candidates that answer, and that fail in every way a server can: `python -m tests.deploy.candidate` prints its port.

Over uvicorn: /predict answers, /hang never does, /error is a 500, /garbage no JSON, /fewer one prediction too few,
/other_key another journey's, /outside a probability of 2, /partial an error for the first instance.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response

VERSION = "candidate-1"


def probabilities(key: str) -> dict[str, float]:
    """What the candidate answers, for keys such as j12."""
    return {"7": int(key[1:]) % 100 / 200, "30": int(key[1:]) % 100 / 100}


def prediction(instance: dict[str, Any]) -> dict[str, Any]:
    key = instance.get("key")
    return {"key": key, "model_version": VERSION, "probabilities": probabilities(key or "j50")}


def app() -> FastAPI:
    made = FastAPI()

    async def predictions(request: Request) -> list[dict[str, Any]]:
        return [prediction(instance) for instance in (await request.json())["instances"]]

    @made.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return {"predictions": await predictions(request)}

    @made.post("/hang")
    async def hang() -> None:
        await asyncio.sleep(3600)

    @made.post("/error")
    async def error() -> Response:
        return Response("broken", 500)

    @made.post("/garbage")
    async def garbage() -> Response:
        return Response(b"\x00<html>", 200)

    @made.post("/fewer")
    async def fewer(request: Request) -> dict[str, Any]:
        return {"predictions": (await predictions(request))[1:]}

    @made.post("/other_key")
    async def other_key(request: Request) -> dict[str, Any]:
        return {"predictions": [one | {"key": "j0"} for one in await predictions(request)]}

    @made.post("/outside")
    async def outside(request: Request) -> dict[str, Any]:
        return {"predictions": [one | {"probabilities": {"7": 2, "30": 0.5}} for one in await predictions(request)]}

    @made.post("/partial")
    async def partial(request: Request) -> dict[str, Any]:
        first, *others = await predictions(request)
        return {"predictions": [{"key": first["key"], "error": "instance 0: as_of: expected …"}, *others]}

    return made


@contextmanager
def sockets(behave: str) -> Iterator[str]:
    """The address of a server below HTTP: "reset" resets every connection, "drip" sends a byte of header now and then
    for ever, "silent" accepts and reads nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            if behave == "reset":
                connection.recv(64)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
                continue
            held.append(connection)
            if behave == "drip":
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                connection.sendall(b"X-More: more\r\n")
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/predict"
    finally:
        ended.set()
        for one in (listening, *held):
            one.close()


def main() -> None:
    import uvicorn

    bound = socket.create_server(("127.0.0.1", 0))
    print(bound.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app(), log_level="warning")).run(sockets=[bound])


if __name__ == "__main__":
    main()
