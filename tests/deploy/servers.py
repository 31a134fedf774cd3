"""Real servers for tests, each on a port that the system gives."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.job import ROOT


def until(what: Callable[[], Any], seconds: float = 20) -> Any:
    """What `what` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come that far in time"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of an application that runs in a thread of this process."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def deployed(model: Path, *flags: object) -> Iterator[str]:
    """The address of `python -m deploy.serve`, warm; it must end by itself after SIGTERM."""
    command = [sys.executable, "-m", "deploy.serve", "--model", model, "--port", 0, "--drain_s", 0, *flags]
    with subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        lines: list[str] = []
        ports: list[int] = []

        def listen() -> None:
            assert server.stdout is not None
            for line in server.stdout:
                lines.append(line)
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if said.get("message") == "listening":
                        ports.append(said["port"])

        reader = threading.Thread(target=listen, daemon=True)
        reader.start()

        def healthy() -> bool:
            assert server.poll() is None, "".join(lines)
            if not ports:
                return False
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{ports[0]}/health", trust_env=False).status_code == 200
            return False

        try:
            until(healthy, 120)
            yield f"http://127.0.0.1:{ports[0]}/"
            server.terminate()
            assert server.wait(40) in (0, -15), "".join(lines)
        finally:
            server.kill()
