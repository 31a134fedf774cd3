"""A trial of a tuning study, a process of its own: `python -m trainer.task`, told its number as Vertex AI tells it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

_NOTICE_S = 30.0  # between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SAID = 300  # characters of what a failed trial said last


class TrialProcess:
    """One trial under way.

    number: from 1, as Vertex AI counts; place: the study's directory, where NUMBER.metrics and NUMBER.log are kept;
    flags: for trainer.task; again: whether an earlier attempt was cut off, which this one takes up where it stood.
    """

    def __init__(self, number: int, place: Path, flags: Sequence[str], metric: str, *, again: bool = False) -> None:
        self.number, self.metric = number, metric
        self._file, self._log = place / f"{number}.metrics", place / f"{number}.log"
        if not again:
            self._file.unlink(missing_ok=True)
            self._log.unlink(missing_ok=True)
            flags = [*flags, "--restart"]
        self._began = time.monotonic()
        environment = os.environ | {
            "CLOUD_ML_TRIAL_ID": str(number),
            "CLOUD_ML_HP_METRIC_FILE": str(self._file),
        }
        with self._log.open("ab") as log:
            self._process = _started([sys.executable, "-m", "trainer.task", *flags], environment, log)

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def measurements(self) -> list[float]:
        """The metric as reported so far, an epoch each, and at the end that of the epoch which was kept."""
        try:
            lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]  # the last one may be half written
        except FileNotFoundError:
            return []
        return [float(found[self.metric]) for found in map(json.loads, lines) if self.metric in found]

    def last_words(self) -> str:
        """Why it failed, as far as its log says."""
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["nothing"])[-1].removeprefix("error: ")[:_SAID]

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self._process.terminate()
        try:
            self._process.wait(_NOTICE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _started(command: list[str], environment: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
    """A process that ends when this one does, by whatever: its run directory must be free for the next attempt."""
    libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def with_the_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=None if libc is None else with_the_parent,  # noqa: PLW1509 - one system call, nothing that locks
    )
