"""A web server that goes in good order: it says so first, answers what comes meanwhile, and ends with exit 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

import uvicorn


class DrainingServer(uvicorn.Server):
    """uvicorn's, which by itself closes at once on SIGTERM, while a load balancer still sends requests here."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], drain_s: float) -> None:
        """drain: called at the first signal, to make the health answer 503; drain_s: from SIGTERM to the closing."""
        super().__init__(config)
        self._drain, self._drain_s = drain, drain_s
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains. Ctrl-C or a second signal closes: what is under way is answered; a third gives that up."""
        if sig != signal.SIGTERM or self._exit_at is not None:
            self.force_exit = self.should_exit
            self.should_exit = True
        if self._exit_at is None:
            self._exit_at = time.monotonic() + self._drain_s
            self._drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)
