"""`python -m tests.bench.records`: events to records beside Beam's usual way and a program by hand, as whole processes.

Each is a process from its start to its exit, imports included: seconds by the clock, seconds of CPU, and the peak of
what its processes held in memory. On a busy machine the clock means nothing, and CPU means something.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.cli import UserError, run

if TYPE_CHECKING:
    from tests.bench.steps import Steps

# customers: 20 events each; the tiny table's time is what the graph and imports cost whatever the events
SIZES = {"tiny": 1_000, "1M": 50_000, "4M": 200_000, "16M": 800_000}
BEAM_AT_LEAST, HAND_AT_MOST, MEMORY_AT_MOST = 5.0, 3.0, 1.3
SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Spent:
    """What one process and its children took."""

    seconds: float
    cpu: float
    megabytes: float  # peak resident memory of all its processes together, sampled


def measured(words: list[str], log: Path) -> Spent:
    """Runs a command to its end. Raises UserError, with where its output lies, if that is not 0."""
    import resource

    import psutil

    from tests.bench.steps import ROOT

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before, peak = time.monotonic(), cpu(), 0
    with log.open("ab") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end between poll and here
                root = psutil.Process(process.pid)
                held = [one.memory_info().rss for one in (root, *root.children(recursive=True))]
                peak = max(peak, sum(held))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise UserError(f"{shlex.join(words[1:])} ended with {process.returncode}; see {log}")
    return Spent(time.monotonic() - began, cpu() - before, peak / 1e6)


def commands(data: Path, output: Path) -> dict[str, list[str]]:
    """The three ways from the tables in `data`."""
    ours = ["--spec", f"{data}/spec.yaml", "--events", str(data), "--run_dir", str(output)]
    ours += ["--key_file", f"{data}/customer.key"]
    peer = ["--data", str(data), "--output", str(output)]
    return {
        "Parcours": [sys.executable, "-m", "preprocessing.task", *ours],
        "Beam, row by row": [sys.executable, "-m", "tests.bench.records_peer_beam", *peer],
        "by hand": [sys.executable, "-m", "tests.bench.records_peer_arrow", *peer],
    }


def tables(steps: Steps, size: str) -> tuple[Path, str]:
    """The tables of a size (records_data.make), kept between runs, and their digest."""
    from tests.bench import records_data
    from tests.bench.steps import code

    simulator = [path for path in code("preprocessing") if "simula" in path.name]
    ingredients = [SIZES[size], *simulator, Path(records_data.__file__)]
    return steps.done(f"tables-{size}", ingredients, lambda at: records_data.make(at, SIZES[size], steps))


def figures(place: Path, sizes: list[str], beam: str | None) -> dict[tuple[str, str], Spent]:
    """What each way took at each size; Beam's at the size `beam` alone, which takes long, or not at all."""
    from tests.bench.steps import Steps, say

    steps = Steps(place)
    found = {}
    for size in sizes:
        data, _ = tables(steps, size)
        for name, words in commands(data, place / "made").items():
            if name == "Beam, row by row" and size not in (beam, "tiny"):
                continue
            shutil.rmtree(place / "made", ignore_errors=True)
            found[name, size] = measured(words, place / "records.log")
            say(f"{size}, {name}: {found[name, size]}")
    shutil.rmtree(place / "made", ignore_errors=True)
    return found


def table(found: dict[tuple[str, str], Spent]) -> str:
    """The Markdown table of figures, and the ratios that there are bars for."""
    lines = ["| events | way | seconds | CPU seconds | peak memory, MB |", "|---|---|---|---|---|"]
    for (name, size), spent in found.items():
        lines.append(f"| {size} | {name} | {spent.seconds:.1f} | {spent.cpu:.1f} | {spent.megabytes:,.0f} |")
    lines.append("")

    def bar(what: str, value: float, limit: float, most: bool) -> None:
        reached = value <= limit if most else value >= limit
        word = "at most" if most else "at least"
        lines.append(f"- {what}: {value:.2f} ({word} {limit:g}){'' if reached else ' **missed**'}")

    def both(what: str, over: tuple[str, str], under: tuple[str, str], limit: float, most: bool) -> None:
        if over in found and under in found:
            bar(f"{what}, by the clock", found[over].seconds / found[under].seconds, limit, most)
            lines.append(f"  - the same in CPU seconds: {found[over].cpu / found[under].cpu:.2f}")

    ours, hand = "Parcours", "by hand"
    both("Beam, row by row / Parcours", ("Beam, row by row", "4M"), (ours, "4M"), BEAM_AT_LEAST, False)
    if {(ours, "4M"), (ours, "tiny"), (hand, "4M")} <= found.keys():
        own, tiny, theirs = found[ours, "4M"], found[ours, "tiny"], found[hand, "4M"]
        value = (own.seconds - tiny.seconds) / theirs.seconds
        bar("(Parcours - Parcours on the tiny table) / by hand, by the clock", value, HAND_AT_MOST, True)
        lines.append(f"  - the same in CPU seconds: {(own.cpu - tiny.cpu) / theirs.cpu:.2f}")
    both("Parcours, 4M / 1M events", (ours, "4M"), (ours, "1M"), 4.0, True)
    both("Parcours, 16M / 4M events", (ours, "16M"), (ours, "4M"), 4.0, True)
    if {(ours, "16M"), (ours, "4M")} <= found.keys():
        value = found[ours, "16M"].megabytes / found[ours, "4M"].megabytes
        bar("Parcours' peak memory, 16M / 4M events", value, MEMORY_AT_MOST, True)
    return "\n".join(lines) + "\n"


def section(place: Path, sizes: list[str] | None = None, beam: str | None = "4M") -> str:
    """The section of docs/speed.md, measured now; `place` keeps the simulated tables between runs."""
    found = figures(place, sizes or list(SIZES), beam)
    return (
        "Simulated customers with 20 events each, one journey a customer, up to 64 events long; Parquet in, gzip "
        "TFRecords and the transform graph out. Whole processes, imports included. The two peers leave out checks of "
        "rows, rare values, the customer rows' validity and statistics, and make the same features. The program by "
        "hand makes no graph, so serving would need its features a second time.\n\n" + table(found)
    )


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, measures, writes the section."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.records", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="where the section goes, Markdown")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="events (default: all)")
    parser.add_argument("--beam", choices=SIZES, default="4M", help="Beam's way at this size (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench/records"), help="kept between runs (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    from tests.bench.quality import versions

    begun = os.getloadavg()[0]
    text = section(args.work.absolute(), args.sizes, args.beam)
    command = "python -m tests.bench.records " + shlex.join(sys.argv[1:] if argv is None else argv)
    made = (
        f"\nMade on {dt.date.today().isoformat()} by `{command}` on {len(os.sched_getaffinity(0))} cores, "
        f"{platform.system()} {platform.machine()}, load {begun:.1f} at the begin; "
        f"{', '.join(f'{name} {version}' for name, version in versions().items())}.\n"
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + made, encoding="utf-8")
    print(text + made)


if __name__ == "__main__":
    run(main)
