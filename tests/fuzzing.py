"""How much is tried (little in `make test`, thousands in the soaks, whole or in pieces), and that nothing hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

SOAK = "PARCOURS_SOAK"
CASES = "PARCOURS_CASES"


def tried(quick: int, soak: int) -> settings:
    """`quick` examples; where PARCOURS_SOAK=1 asks for it `soak`, and 0.1 for a tenth of that.

    Deadlines are ours: a busy machine is no mistake.
    """
    share = float(os.environ.get(SOAK, "0"))
    return settings(
        max_examples=max(quick, int(share * soak)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


def cases(default: int) -> range:
    """Which random cases are tried: the first `default`, or what PARCOURS_CASES says, a number or `first:last`.

    `last` is not among them. A case is the same in every piece.
    """
    first, colon, last = os.environ.get(CASES, str(default)).partition(":")
    return range(int(first), int(last)) if colon else range(int(first))


@contextmanager
def in_time(seconds: int = 60) -> Iterator[None]:
    """Fails, instead of waiting, where what is inside takes longer."""

    def late(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
