"""A trace of some training steps for TensorBoard's Profile page: which ops took the time, on which device."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

import tensorflow as tf

log = logging.getLogger(__name__)


class Profiler:
    """Traces the steps `first` to `last`, counted from 1 over the whole training, into logs/plugins/profile.

    A context manager, so that a trace that is under way when training ends, well or not, is written. steps: None for
    no trace. A training that is taken up after `last` traces nothing, and says so.
    """

    def __init__(self, logs: str, steps: tuple[int, int] | None) -> None:
        self._logs, self._steps, self._runs = logs, steps, False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runs:
            self._stop()

    def at(self, step: int) -> int:
        """Starts or ends the trace where that is due after `step` steps; returns after how many more to call again."""
        if self._steps is None:
            return sys.maxsize
        first, last = self._steps
        if step < first - 1:
            return first - 1 - step
        if step < last:
            if not self._runs:
                tf.profiler.experimental.start(self._logs)
                self._runs = True
            return last - step
        if self._runs:
            self._stop()
        else:
            log.warning("warning: --profile_steps %d,%d: training is past them, at step %d", first, last, step)
        self._steps = None
        return sys.maxsize

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._runs = False
        log.info("profile: written to %s; see it with: tensorboard --logdir %s", self._logs, self._logs)
