"""The real server as a process, and metadata and a scorer by hand for what needs no model."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

ROOT = Path(__file__).parent.parent.parent
ABOUT: dict[str, Any] = {
    "model_version": "0123456789ab",
    "journeys": "dated",
    "horizons_days": [7, 30],
    "gap_days": 0,
    "primary_horizon": 30,
    "conversion": "event_type = 'purchase'",
    "max_events": 8,
    "sequence": {"event_type": "categorical", "amount": "numeric"},
    "customer": {"segment": "categorical", "age": "numeric"},
    "campaigns": None,
    "vocabulary": {"event_type": ["view", "purchase"], "segment": ["regular"]},
}


@dataclass
class HandScorer:
    """Probabilities that tell a journey by its length, a hundredth an event; `before` runs first, to block or fail."""

    about: dict[str, Any] = field(default_factory=lambda: ABOUT)
    before: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None
    has_influence = has_evolution = False

    def score(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        self.before(arrays)
        return np.stack([arrays["length"] / 100, arrays["length"] / 50], axis=1).astype(np.float32)


@dataclass
class Running:
    """A server's address, its process and the JSON lines that it has written so far."""

    url: str
    process: subprocess.Popen[str]
    lines: list[dict[str, Any]]

    def end(self, timeout_s: float = 60) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def running(*flags: object, warm: bool = True, **env: str) -> Iterator[Running]:
    """`python -m deploy.serve --port 0 flags`, killed at the end where it has not ended by then."""
    command = [sys.executable, "-m", "deploy.serve", *map(str, flags)]
    command += [] if "AIP_HTTP_PORT" in env else ["--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: [lines.append(_parsed(line)) for line in process.stdout], daemon=True)
    reader.start()
    try:
        listening = _wait(process, lambda: next((x for x in list(lines) if x.get("message") == "listening"), None))
        server = Running(f"http://127.0.0.1:{listening['port']}", process, lines)
        if warm:
            health = env.get("AIP_HEALTH_ROUTE", "/health")
            _wait(process, lambda: _healthy(server.url + health))
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        process.stdout.close()


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        return {"text": line}


def _healthy(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=30).status_code == 200
    return False


def _wait(process: subprocess.Popen[str], what: Callable[[], Any], timeout_s: float = 180) -> Any:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        assert process.poll() is None, f"the server ended with {process.returncode}"
        time.sleep(0.05)
    raise AssertionError("the server took too long")
