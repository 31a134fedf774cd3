"""The notice that a training is to end: SIGTERM, as Vertex AI, Kubernetes and Spot machines send it, or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Notice:
    """`number`: the signal that has come; None: none yet."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def given(self) -> bool:
        return self.number is not None


def exit_code(number: int) -> int:
    """That of a process which a signal ended, as a shell counts it, and no success: what restarts jobs starts this one
    again."""
    return 128 + number


@contextmanager
def noticed() -> Iterator[Notice]:
    """Within, the signals end nothing and are noted; one that came and was not acted on does its work on leaving. A
    second Ctrl-C does so at once.

    Outside the main thread, where no signal arrives, all is as before.
    """
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and notice.number == signal.SIGINT:
            raise KeyboardInterrupt
        notice.number = number

    # What a shell has told to be ignored, Ctrl-C of what it runs in its background, stays so.
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if notice.number is not None:
        signal.raise_signal(notice.number)
