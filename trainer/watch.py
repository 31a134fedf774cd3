"""Watches a training: samples of CPU, memory and GPU, what a step takes and how long it waits for input; and what to
change where one of them is short."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from trainer.gauges import Reading, gauges, memory_limit

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_MOST = 400  # samples that are kept: with more, every second one is dropped, and half as many are taken from then on
_WARM_UP_S = 30.0  # tracing, and the first look at a GPU
_IDLE_S, _IDLE = 60.0, 0.2  # a GPU is idle where its share stays below on the mean of so many seconds
_FULL = 0.9  # of the memory's limit
_STARVED, _STARVED_STEPS = 0.3, 50  # share of a step that waits for input, over at least so many steps

ADVICE = {
    "idle": "the GPU idles ({0:.0%} of the time a kernel runs): raise --batch_size, or take a smaller GPU or none",
    "memory": "memory is {0:.0%} full ({1:.1f} of {2:.1f} GB): take a machine with more, or lower --batch_size or "
    "--length_window",
    "input": "a step waits {0:.0%} of its time for input: take a machine with more vCPUs, lower --length_window, or "
    "lay the records on a faster disk, near the machine",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """seconds: since watching began; step_seconds and input_wait (a share): of the steps since the sample before; None
    where there were none."""

    seconds: float
    reading: Reading
    step_seconds: float | None
    input_wait: float | None


class Watch:
    """Samples in a thread of its own, within `with`; `steps` is told of the steps. After that `summary` holds it all.

    A sample that fails there is passed over, which is said once: whatever it is, it ends no training.
    read: the gauges; limit: bytes that memory may fill; clock: seconds; tell: told of every sample's
    values by name. Without `every_s` it samples at `sample` alone.
    """

    def __init__(
        self,
        every_s: float | None = _EVERY_S,
        *,
        read: Callable[[], Reading] | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self._every_s, self._clock, self._began, self._tell = every_s, clock, clock(), tell
        self._read = gauges() if read is None else read
        self._limit = memory_limit() if limit is None else limit
        self._lock, self._over = threading.Lock(), threading.Event()
        self._since = [0, 0.0, 0.0]  # steps, their seconds and their wait, since the last sample
        self._total = [0, 0.0, 0.0]
        self._stride, self._count = 1, 0
        self._samples: list[Sample] = []
        self._highest: dict[str, float] = {}
        self.warnings: dict[str, str] = {}
        self._failed = False

    def __enter__(self) -> Watch:
        if self._every_s is not None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._every_s is not None:
            self._thread.join()
        self._try()  # so that the shortest training has one

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._try()

    def _try(self) -> None:
        """A sample, if there can be one."""
        try:
            self.sample()
        except Exception as error:  # noqa: BLE001 - drivers and services fail in ways of their own
            if not self._failed:
                why = (str(error).splitlines() or [""])[0]
                log.warning("warning: a look at the machine failed: %s: %s", type(error).__name__, why)
            self._failed = True

    def steps(self, count: int, seconds: float, waited: float) -> None:
        """Told of `count` steps that took `seconds` together, of which `waited` passed until their input was there."""
        with self._lock:
            for sums in (self._since, self._total):
                sums[0] += count
                sums[1] += seconds
                sums[2] += waited

    def sample(self) -> None:
        """Takes a sample, and warns where there is something to change."""
        reading, now = self._read(), self._clock() - self._began
        with self._lock:
            count, seconds, waited = self._since
            self._since = [0, 0.0, 0.0]
            own = (seconds / count, waited / seconds) if count and seconds else (None, None)
            one = Sample(now, reading, *own)
            self._count += 1
            for name in ("cpu", "memory", "gpu", "gpu_memory"):
                value = getattr(reading, name)
                if value is not None:
                    self._highest[name] = max(self._highest.get(name, 0.0), value)
            if self._count % self._stride == 0:
                self._samples.append(one)
            if len(self._samples) >= _MOST:
                self._samples, self._stride = self._samples[1::2], self._stride * 2
        self._advise(one)
        if self._tell is not None:
            self._tell(_named(one))

    def _advise(self, one: Sample) -> None:
        if one.reading.memory >= _FULL * self._limit:
            gb = one.reading.memory / 1e9, self._limit / 1e9
            self._warn("memory", one.reading.memory / self._limit, *gb)
        if one.seconds >= _WARM_UP_S + _IDLE_S:
            since = max(_WARM_UP_S, one.seconds - _IDLE_S)
            recent = [s.reading.gpu for s in self._samples if s.seconds > since and s.reading.gpu is not None]
            if recent and sum(recent) / len(recent) < _IDLE:
                self._warn("idle", sum(recent) / len(recent))
        steps, seconds, waited = self._total
        if one.seconds >= _WARM_UP_S and steps >= _STARVED_STEPS and waited > _STARVED * seconds:
            self._warn("input", waited / seconds)

    def _warn(self, what: str, *values: float) -> None:
        if what not in self.warnings:  # once: a log that repeats itself is not read
            self.warnings[what] = ADVICE[what].format(*values)
            log.warning("warning: %s", self.warnings[what])

    def latest(self) -> dict[str, float]:
        """The last sample's values by name, for TensorBoard; empty before the first."""
        with self._lock:
            one = self._samples[-1] if self._samples else None
        return {} if one is None else _named(one)

    def summary(self) -> dict[str, Any]:
        """What resources.json holds: means and highest values, the series, and the warnings.

        Shares are of 1, means over the samples that knew them. step_seconds and input_wait: over all steps of this
        attempt, with the first calls, in which graphs are traced; None where there were none.
        """
        steps, seconds, waited = self._total
        series = [
            [round(s.seconds, 1), s.reading.cpu, s.reading.memory, s.reading.gpu, s.step_seconds, s.input_wait]
            for s in self._samples
        ]
        shares: dict[str, dict[str, float | None] | None] = {}
        for name in ("cpu", "gpu", "gpu_memory"):
            told = [value for s in self._samples if (value := getattr(s.reading, name)) is not None]
            highest = _rounded(self._highest.get(name))
            shares[name] = {"mean": _rounded(sum(told) / len(told)), "highest": highest} if told else None
        return {
            "samples": self._count,
            "steps": steps,
            "step_seconds": _rounded(seconds / steps) if steps else None,
            "input_wait": _rounded(waited / seconds) if seconds else None,
            **shares,
            "memory": {"highest": int(self._highest.get("memory", 0)), "limit": self._limit},
            "warnings": list(self.warnings.values()),
            "columns": ["seconds", "cpu", "memory", "gpu", "step_seconds", "input_wait"],
            "series": [[value if isinstance(value, int) else _rounded(value) for value in row] for row in series],
        }


def _named(one: Sample) -> dict[str, float]:
    """What is known of a sample, by name: shares of 1, gigabytes, milliseconds."""
    found = {
        "cpu": one.reading.cpu,
        "memory_gb": one.reading.memory / 1e9,
        "gpu": one.reading.gpu,
        "gpu_memory": one.reading.gpu_memory,
        "step_ms": None if one.step_seconds is None else 1e3 * one.step_seconds,
        "input_wait": one.input_wait,
    }
    return {name: value for name, value in found.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
