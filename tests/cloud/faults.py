"""Faults that tests inject into a local server: answers that fail, streams that break."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """status: what to answer, 0 for a break `after` so many bytes or messages; left: how often still; late: the request
    takes effect before that."""

    match: str
    left: int
    status: int = 0
    message: str = ""
    reason: str = ""
    after: int = 0
    late: bool = False

    @property
    def kind(self) -> str:
        return "cut" if self.status == 0 else "loss" if self.late else "failure"


class Faults:
    """What is to go wrong next, for whom; each fault wears off after its number of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.struck: list[str] = []  # what met a fault, so that a test knows that its fault happened

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self.struck.clear()

    def fail(self, status: int, *, times: int, match: str, message: str, reason: str) -> None:
        with self._lock:
            self._faults.append(Fault(match, times, status, message, reason))

    def lose(self, status: int, *, times: int, match: str) -> None:
        with self._lock:
            self._faults.append(Fault(match, times, status, late=True))

    def cut(self, *, after: int, times: int, match: str) -> None:
        with self._lock:
            self._faults.append(Fault(match, times, after=after))

    def next_failure(self, call: str) -> Fault | None:
        """The failure that strikes this call ("METHOD /path", or a gRPC method's full name), if one does."""
        return self._next(call, "failure")

    def next_cut(self, call: str) -> int | None:
        """After how many bytes or messages this call's answer breaks off; None: it does not."""
        fault = self._next(call, "cut")
        return None if fault is None else fault.after

    def next_loss(self, call: str) -> Fault | None:
        """What is answered in place of this call's answer, once the call has taken effect."""
        return self._next(call, "loss")

    def _next(self, call: str, kind: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.left and fault.kind == kind and re.search(fault.match, call):
                    fault.left -= 1
                    self.struck.append(call)
                    return fault
        return None
