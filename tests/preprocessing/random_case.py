"""One random case a seed, of either form of the spec."""

import random

from preprocessing.cli import UserError
from tests.preprocessing.cases import Case, dated_case
from tests.preprocessing.ready_cases import ready_case


def random_case(seed: int) -> Case:
    """The case of a seed; every seed gives one."""
    for attempt in range(1000):
        draw = random.Random(seed * 1000 + attempt)
        try:
            return ready_case(draw) if draw.random() < 0.2 else dated_case(draw)
        except UserError:
            continue  # windows drawn so that no snapshot trains: the spec refuses them, rightly
    raise AssertionError(f"no case for seed {seed}")
