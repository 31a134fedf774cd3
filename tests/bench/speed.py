"""`python -m tests.bench.speed --output docs/speed.md`: how fast each part is, in ratios of one run.

Every item is a section of its own; one that cannot be measured says why on the page, the others go on. Wants the
machine for itself. Tables and a short training are kept below --place, and made again only where the code changed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from preprocessing.cli import UserError, run
from tests.bench.bars import MISSED
from tests.bench.steps import say

TITLES = {
    "records": "Events to records",
    "training": "Training",
    "scoring": "Scoring",
    "startup": "Start-up",
    "sizes": "Size",
}


def main() -> None:
    """Measures, writes the page; exit 1 where a bar is missed or an item could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speed", description="Measures how fast each part is.")
    parser.add_argument("--output", type=Path, required=True, help="the Markdown page, such as docs/speed.md")
    parser.add_argument(
        "--place", type=Path, default=Path("runs/bench/speed"), help="for tables and a model (default: %(default)s)"
    )
    parser.add_argument(
        "--items", default=",".join(TITLES), help="which of them, with commas between (default: %(default)s)"
    )
    args = parser.parse_args()
    items = args.items.split(",")
    if unknown := sorted(set(items) - set(TITLES)):
        raise UserError(f"--items: expected some of {', '.join(TITLES)}, got {unknown[0]!r}")
    started, load = time.monotonic(), os.getloadavg()[0]
    if load > 1:
        say(f"the machine is busy (load {load:.1f}): the figures will say so")
    place = args.place.absolute()
    whole, parts = True, []
    for item in items:
        say(f"{item}: begins")
        try:
            text = _section(item)(place)
            whole &= MISSED not in text
        except UserError as error:
            text, whole = f"**Not measured**: {error}", False
            say(f"{item}: not measured: {error}")
        parts.append(f"## {TITLES[item]}\n\n{text.strip()}\n")
    head = _head(" ".join(sys.argv[1:]), load, time.monotonic() - started)
    args.output.write_text("\n".join([head, *parts]), encoding="utf-8")
    print(f"{args.output}: {'every bar kept' if whole else 'some bars missed, or not measured'}")
    if not whole:
        sys.exit(1)


def _section(item: str) -> Callable[[Path], str]:
    """What measures an item, in the module of its name: called with the place, it returns Markdown."""
    return importlib.import_module(f"tests.bench.{item}").section  # type: ignore[no-any-return]


def _head(flags: str, load: float, seconds: float) -> str:
    """What was measured on what."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras", "pyarrow"))
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in told if "model name" in line), platform.machine())
    return "\n".join(
        [
            "# Speed",
            "",
            "Ratios of one run on one machine; what they come from stands beside them.",
            "",
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of {cpu}, Python"
            f" {platform.python_version()}, {versions}; load {load:.1f} when it began; {seconds:.0f} s by",
            "",
            f"    python -m tests.bench.speed {flags}",
            "",
        ]
    )


if __name__ == "__main__":
    run(main)
