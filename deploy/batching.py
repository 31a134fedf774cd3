"""Requests that wait together for the model: one thread runs it, on everything that has come in the meantime.

A journey alone is scored at once. While the model is busy, requests queue up and go into the next batch together, which
costs little more than one of them. The queue is bounded, and a request whose time is up leaves it unscored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
_CELLS = 1 << 20  # rows by steps of one batch: what its padding may cost
_PADDING: dict[str, Any] = {"O": "", "i": 0, "f": 0.0}


class QueueFullError(Exception):
    """No room for so many journeys now."""


class TooLateError(Exception):
    """The answer was not there within the time."""


@dataclass(eq=False)
class _Job:
    """arrays to be scored, or `work` that is run alone; `rows` weighs it in the queue."""

    rows: int
    deadline: float
    arrays: Arrays | None = None
    work: Callable[[], Any] | None = None
    answer: Future[Any] = field(default_factory=Future)


class Batcher:
    """Scores arrays in batches on a thread of its own.

    score: arrays to [rows, …]; at most `max_batch` rows a call, unless one request alone brings more. max_queue: rows
    that may wait, besides those that the model is at. delay_s: how long a batch waits for more, where the one before
    it held more than one request. seen: called with the rows of each batch.
    """

    def __init__(
        self,
        score: Callable[[Arrays], np.ndarray],
        *,
        max_batch: int = 256,
        max_queue: int = 4096,
        delay_s: float = 0.0,
        seen: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._score, self._seen = score, seen
        self._max_batch, self._max_queue, self._delay_s = max_batch, max_queue, delay_s
        self._waiting: deque[_Job] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    async def score(self, arrays: Arrays, timeout_s: float) -> np.ndarray:
        """The scores of some rows, in their order. Raises QueueFullError at once, TooLateError after timeout_s."""
        answer: np.ndarray = await self._submit(
            _Job(len(arrays["length"]), time.monotonic() + timeout_s, arrays=arrays)
        )
        return answer

    async def run(self, work: Callable[[], Any], timeout_s: float, rows: int = 1) -> Any:
        """What `work` returns, run alone on the model's thread. Raises as `score` does."""
        return await self._submit(_Job(rows, time.monotonic() + timeout_s, work=work))

    def close(self, timeout_s: float | None = None) -> None:
        """Lets the thread finish what waits, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    async def _submit(self, job: _Job) -> Any:
        with self._changed:
            # a request larger than the whole queue is taken while nothing else waits: limits on it stand elsewhere
            if self._closing or (self._waiting and self._rows + job.rows > self._max_queue):
                raise QueueFullError
            self._waiting.append(job)
            self._rows += job.rows
            self._changed.notify()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.answer), job.deadline - time.monotonic())
        except TimeoutError:
            raise TooLateError from None
        finally:
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        """Whoever gave up, or whose caller went away, makes room at once."""
        if not job.answer.done() or job.answer.cancelled():
            with self._changed:
                if job in self._waiting:
                    self._waiting.remove(job)
                    self._rows -= job.rows

    def _serve(self) -> None:
        crowded = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                if crowded and self._delay_s and not self._closing:
                    self._changed.wait_for(lambda: self._rows >= self._max_batch or self._closing, self._delay_s)
                jobs = self._take()
            crowded = len(jobs) > 1
            if jobs:
                self._answer(jobs)

    def _take(self) -> list[_Job]:
        """The next jobs that go together: one piece of work, or arrays up to the largest batch."""
        jobs: list[_Job] = []
        rows, steps = 0, 0
        while self._waiting:
            job = self._waiting[0]
            wide = max(steps, job.arrays["event_time"].shape[1]) if job.arrays is not None else 0
            fits = rows + job.rows <= self._max_batch and (rows + job.rows) * wide <= _CELLS
            if jobs and (job.work is not None or not fits):
                break
            self._waiting.popleft()
            self._rows -= job.rows
            # a caller who has gone, or is about to, costs the others nothing
            if job.deadline <= time.monotonic() or not job.answer.set_running_or_notify_cancel():
                continue
            jobs.append(job)
            rows, steps = rows + job.rows, wide
            if job.work is not None:
                break
        return jobs

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            if jobs[0].work is not None:
                jobs[0].answer.set_result(jobs[0].work())
                return
            batch = together([job.arrays for job in jobs if job.arrays is not None])
            scores = self._score(batch)
            self._seen(len(scores))
            ends = np.cumsum([job.rows for job in jobs])
            for job, end in zip(jobs, ends, strict=True):
                job.answer.set_result(scores[end - job.rows : end])
        except Exception as error:  # noqa: BLE001 - the thread outlives what one batch meets, and the caller is told
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
                return
            for job in jobs:  # what one of them brought must not be answered to the others
                self._answer([job])


def together(parts: Sequence[Arrays]) -> Arrays:
    """Padded arrays of several requests as one: rows below each other, steps of the longest."""
    if len(parts) == 1:
        return parts[0]
    rows = np.cumsum([0, *(len(part["length"]) for part in parts)])
    steps = max(part["event_time"].shape[1] for part in parts)
    joined = {}
    for name, first in parts[0].items():
        if first.ndim == 1:
            joined[name] = np.concatenate([part[name] for part in parts])
            continue
        joined[name] = np.full((rows[-1], steps), _PADDING[first.dtype.kind], first.dtype)
        for start, part in zip(rows, parts, strict=False):
            joined[name][start : start + len(part[name]), : part[name].shape[1]] = part[name]
    return joined
