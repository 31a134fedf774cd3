"""What Vertex AI's machines would do: a job's containers and python packages as processes of this machine.

Environment variables are those of the documentation ("Environment variables for special Cloud Storage directories",
"Distributed training", "Hyperparameter tuning"). No image is pulled: an image of this repository is the repository
itself and this Python; a ready-made one is this Python with the sdist installed into a directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
READY_MADE = re.compile(r"(us|europe|asia)-docker\.pkg\.dev/vertex-ai/(training|prediction)/[\w.-]+:latest")
OURS = re.compile(r".+/parcours/(trainer|serving|pipeline)(:[\w.-]+|@sha256:[0-9a-f]{64})")
_ROLES = ("chief", "worker", "ps", "evaluator")  # of the four worker pools, in TF_CONFIG's words


@dataclass
class Outcome:
    """code: of google.rpc.Code, 0 for success; message: what Vertex AI would say."""

    code: int = 0
    message: str = ""


@dataclass
class Run:
    """The processes of one custom job or one trial. `log(task, line)` is told each line that they write.

    read: gives an object's bytes by its gs:// name. environment: what every process gets on top of this one's.
    """

    job_id: str
    spec: Any
    base: str  # of AIP_*_DIR, '' where the job has no baseOutputDirectory
    project: str
    region: str
    read: Callable[[str], bytes]
    log: Callable[[str, str], None]
    environment: dict[str, str]
    trial: str = ""
    metric_file: Path | None = None
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Outcome:
        """Starts every replica and waits for the primary one, as Vertex AI does; then the others are ended."""
        refused = self._refused_image()
        if refused:
            return Outcome(5, refused)
        place = Path(tempfile.mkdtemp(prefix="vertex-"))
        try:
            for task, pool, environment in self._replicas():
                self._start(task, pool, environment, place)
            return self._wait()
        except _Failed as error:
            return Outcome(3, str(error))
        finally:
            self.end()
            shutil.rmtree(place, ignore_errors=True)

    def end(self) -> None:
        """Ends all processes, whole groups of them."""
        self._over.set()
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for reader in self._readers:
            reader.join(10)

    def _refused_image(self) -> str | None:
        for pool in self.spec.worker_pool_specs:
            if not pool.replica_count:
                continue
            package = pool.python_package_spec
            image = pool.container_spec.image_uri or package.executor_image_uri
            if not (READY_MADE if package.executor_image_uri else OURS).fullmatch(image):
                return (
                    f"Failed to pull image {image}: image not found, or the service agent lacks "
                    "artifactregistry.repositories.downloadArtifacts on its repository."
                )
        return None

    def _replicas(self) -> Iterator[tuple[str, Any, dict[str, str]]]:
        pools = [(n, pool) for n, pool in enumerate(self.spec.worker_pool_specs) if pool.replica_count]
        ports = {n: [_free_port() for _ in range(pool.replica_count)] for n, pool in pools}
        cluster = {f"workerpool{n}": [f"127.0.0.1:{port}" for port in ports[n]] for n, _ in pools}
        roles = {_ROLES[n]: cluster[f"workerpool{n}"] for n, _ in pools}
        several = sum(len(found) for found in ports.values()) > 1
        for number, pool in pools:
            for index in range(pool.replica_count):
                task = {"type": f"workerpool{number}", "index": index} | ({"trial": self.trial} if self.trial else {})
                environment = self._shared() | {
                    "CLUSTER_SPEC": json.dumps({"cluster": cluster, "environment": "cloud", "task": task}),
                }
                if several:
                    role = {"type": _ROLES[number], "index": index}
                    environment["TF_CONFIG"] = json.dumps({"cluster": roles, "environment": "cloud", "task": role})
                yield f"workerpool{number}-{index}", pool, environment

    def _shared(self) -> dict[str, str]:
        found = {
            "CLOUD_ML_JOB_ID": self.job_id,
            "CLOUD_ML_PROJECT_ID": self.project,
            "CLOUD_ML_REGION": self.region,
        }
        if self.base:
            base = self.base.rstrip("/") + (f"/{self.trial}" if self.trial else "")
            found |= {
                "AIP_MODEL_DIR": f"{base}/model/",
                "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
                "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
            }
        if self.trial:
            found |= {"CLOUD_ML_TRIAL_ID": self.trial, "CLOUD_ML_HP_METRIC_FILE": str(self.metric_file)}
        return found

    def _start(self, task: str, pool: Any, environment: dict[str, str], place: Path) -> None:
        own = {variable.name: variable.value for variable in pool.container_spec.env}
        own |= {variable.name: variable.value for variable in pool.python_package_spec.env}
        everything = os.environ | self.environment | environment | own
        if pool.container_spec.image_uri:
            command = [*pool.container_spec.command, *pool.container_spec.args]
            if not command:
                raise _Failed("the local server runs no ENTRYPOINT: give containerSpec a command")
            command = [sys.executable, *command[1:]] if command[0] in ("python", "python3") else command
            everything["PYTHONPATH"], cwd = str(ROOT), ROOT
        else:
            package = pool.python_package_spec
            installed = self._install(list(package.package_uris), place)
            command = [sys.executable, "-m", package.python_module, *package.args]
            everything["PYTHONPATH"], cwd = str(installed), place
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=everything,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        self._readers.append(threading.Thread(target=self._read_lines, args=(task, process), daemon=True))
        self._readers[-1].start()

    def _install(self, uris: list[str], place: Path) -> Path:
        target = place / "installed"
        if target.exists():
            return target
        files = []
        for uri in uris:
            files.append(place / uri.rpartition("/")[2])
            try:
                files[-1].write_bytes(self.read(uri))
            except FileNotFoundError:
                raise _Failed(f"Failed to download the python package {uri}: no such object") from None
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
        done = subprocess.run([*pip, target, *files], capture_output=True, text=True, check=False)
        if done.returncode:
            raise _Failed(f"pip install failed: {done.stderr[-500:]}")
        return target

    def _read_lines(self, task: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log(task, line.rstrip("\n"))
        process.stdout.close()

    def _wait(self) -> Outcome:
        """The primary replica's end is the job's; another's failure is the job's failure, too."""
        names = [
            f"workerpool{n}-{i}" for n, p in enumerate(self.spec.worker_pool_specs) for i in range(p.replica_count)
        ]
        while not self._over.wait(0.05):
            for name, process in zip(names, self.processes, strict=True):
                code = process.poll()
                if code:
                    return Outcome(3, f"The replica {name} exited with a non-zero status of {code}.")
            if self.processes[0].poll() == 0:
                return Outcome()
        return Outcome(1, "ended from outside")


class _Failed(Exception):
    """The job cannot start."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
