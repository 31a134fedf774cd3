"""A model's serving container as a process of this machine, asked as Vertex AI asks it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.cloud.service import ApiError
from tests.cloud.vertex_runs import OURS, ROOT


class Served:
    """One container, ready once made; `log` is told its lines. Raises ApiError where it does not get ready."""

    def __init__(
        self, model: Any, environment: dict[str, str], log: Callable[[str], None], ready_s: float = 300, **extra: str
    ) -> None:
        spec = model.container_spec
        if not OURS.fullmatch(spec.image_uri):
            raise ApiError(400, f"Failed to pull image {spec.image_uri}: image not found, or no permission to read it.")
        if not spec.command:
            raise ApiError(400, "the local server runs no ENTRYPOINT: give containerSpec a command")
        port = _free_port()
        self.predict_url = f"http://127.0.0.1:{port}{spec.predict_route}"
        health = f"http://127.0.0.1:{port}{spec.health_route}"
        contract = {
            "AIP_HTTP_PORT": str(port),
            "AIP_HEALTH_ROUTE": spec.health_route,
            "AIP_PREDICT_ROUTE": spec.predict_route,
            "AIP_STORAGE_URI": model.artifact_uri,
            "AIP_MODE": "PREDICTION",
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        }
        command = [*spec.command, *spec.args]
        command = [sys.executable, *command[1:]] if command[0] in ("python", "python3") else command
        own = {variable.name: variable.value for variable in spec.env}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)} | contract | extra | own,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_lines, args=(log,), daemon=True)
        self._reader.start()
        self._client = httpx.Client(timeout=60, trust_env=False)
        until = time.monotonic() + ready_s
        while not self._healthy(health):
            if self.process.poll() is not None or time.monotonic() > until:
                self.end()
                raise ApiError(
                    400, "Model server exited unexpectedly, or never became ready; see the container's logs."
                )
            time.sleep(0.1)

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the container answers. Raises ApiError with its status and words where that is an error."""
        answer = self._client.post(self.predict_url, json=body)
        if answer.status_code != 200:
            raise ApiError(answer.status_code, answer.text)
        return dict(answer.json())

    def end(self) -> None:
        self._client.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _read_lines(self, log: Callable[[str], None]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            log(line.rstrip("\n"))
        self.process.stdout.close()

    def _healthy(self, url: str) -> bool:
        try:
            return self._client.get(url).status_code == 200
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
