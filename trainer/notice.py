"""The notice that this machine will be taken away: SIGTERM, as Vertex AI, Kubernetes and Spot machines send it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # as a shell counts it, and no success: what restarts jobs starts this one again


class Notice:
    """`given` once SIGTERM has come."""

    def __init__(self) -> None:
        self.given = False


@contextmanager
def noticed(wanted: bool = True) -> Iterator[Notice]:
    """Within, SIGTERM ends nothing and is noted; one that came and was not acted on does its work on leaving.

    Where it is not wanted, and outside the main thread, where no signal arrives, it is as before.
    """
    notice = Notice()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def note(number: int, frame: FrameType | None) -> None:
        notice.given = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)
    if notice.given:
        signal.raise_signal(signal.SIGTERM)
