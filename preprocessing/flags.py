"""Parsers of flags' values for argparse: each raises ArgumentTypeError with what was expected and what came."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any


def number(
    kind: type, low: float | None = None, high: float | None = None, above: float | None = None
) -> Callable[[str], Any]:
    """A parser of a number, of which `low` and `high` are allowed themselves and `above` is not."""
    name = "a whole number" if kind is int else "a number"
    limits = [f"above {above:g}" if above is not None else "", f"from {low:g}" if low is not None else ""]
    limits.append(f"up to {high:,.15g}" if high is not None else "")
    expected = " ".join([name, *filter(None, limits)])

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None
        wrong = not math.isfinite(value)
        wrong = wrong or (low is not None and value < low) or (high is not None and value > high)
        if wrong or (above is not None and value <= above):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}, got {text!r}")
        return text

    return parse
