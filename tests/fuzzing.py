"""How often Hypothesis tries (little in `make test`, thousands in `make soak-inputs`), and that nothing hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

SOAK = "PARCOURS_SOAK"


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
