"""Bars of a benchmark: what was measured, against which limit, and the Markdown table of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError
from tests.bench.steps import ROOT

MISSED = "**missed**"  # in a section's text: a bar that was not kept


@dataclass(frozen=True)
class Bar:
    """A measured ratio (or number) and its limit; `found`: the measurements that it comes from, in words."""

    what: str
    value: float
    limit: float
    at_most: bool
    found: str = ""

    @property
    def kept(self) -> bool:
        """Whether the limit holds."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def table(bars: list[Bar]) -> str:
    """A Markdown table, a row a bar."""
    lines = ["| measure | value | bar | | from |", "|---|---|---|---|---|"]
    for bar in bars:
        limit = f"{'at most' if bar.at_most else 'at least'} {bar.limit:g}"
        lines.append(f"| {bar.what} | {bar.value:.2f} | {limit} | {'kept' if bar.kept else MISSED} | {bar.found} |")
    return "\n".join(lines)


def measured(python: str | Path, script: str, *flags: object) -> dict[str, Any]:
    """The last line, JSON, that a measuring process prints. Raises UserError with what it said where it fails.

    script: a module's name, run with -m, or the path of a file. TensorFlow's logs are kept out.
    """
    words = [str(python), *(["-m", script] if not script.endswith(".py") else [script]), *map(str, flags)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"{' '.join(words[1:3])} ended with {done.returncode}: {said[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ours(module: str, *flags: object) -> dict[str, Any]:
    """`measured`, by this Python."""
    return measured(sys.executable, module, *flags)
