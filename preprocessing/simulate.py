"""python -m preprocessing.simulate: omnichannel customers whose true probabilities are known.

Beside the events it writes customers.parquet, assignments.parquet (who was planned for which campaign wave, treated or
held out), truth.parquet (each customer's true probability to buy, at each as_of and horizon, given the events so far)
and campaign_effects.parquet (what each wave truly changes, by customer). hazard.py describes the process, truth.py
solves it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run
from preprocessing.flags import number

if TYPE_CHECKING:
    import pyarrow as pa

    from preprocessing.hazard import Process

CHUNK = 25_000  # customers drawn at a time; part of what a seed means, so it is no flag
HORIZONS = (7, 14, 30)
BASE_HORIZON = 30
HISTORY_DAYS = 90  # the truth begins when a lookback is full
STRONG_CAMPAIGN = "spring_sale_email"
TABLES = ("customers", "assignments", "truth", "campaign_effects")


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a date such as 2025-10-01, got {text!r}") from None


def _flags(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m preprocessing.simulate", description=__doc__.splitlines()[0])

    def add(flag: str, convert: Callable[[str], Any], text: str, **options: Any) -> None:
        def named(value: str) -> Any:
            try:
                return convert(value)
            except argparse.ArgumentTypeError as error:  # argparse would print its usage, too; one line says it better
                raise UserError(f"{flag}: {error}") from None

        parser.add_argument(flag, type=named, help=text + " (default: %(default)s)", **options)

    add("--customers", number(int, 1, 10**9), "how many customers", default=20_000)
    add("--seed", number(int, 0, 2**63), "the same seed and versions give the same bytes", default=7)
    parser.add_argument("--output", type=Path, required=True, help="the events; the other tables are written beside it")
    add("--base_rate", number(float, 1e-5, 0.2), "mean true probability to buy within 30 days", default=0.02)
    add("--first", _date, "first day of events", default=dt.date(2025, 10, 1))
    add("--last", _date, "first day without events, as data_until in the journey spec", default=dt.date(2026, 7, 31))
    add("--every_days", number(int, 1, 365), "days between the as_ofs of truth.parquet", default=7)
    add("--strong_effect", number(float, 0, 5), "what the strong campaign adds to the log odds of buying", default=1.0)
    parser.add_argument(
        "--homogeneous", action="store_true", help="a campaign adds the same daily probability to every customer"
    )
    return parser.parse_args(argv)


def truth_days(first: dt.date, last: dt.date, every_days: int) -> list[int]:
    """The as_ofs of the truth, in days from `first`: from the first Monday after a full lookback on, while the shortest
    horizon lies within the data. Raises UserError where not even one has the longest horizon."""
    start = HISTORY_DAYS + -(first + dt.timedelta(days=HISTORY_DAYS)).weekday() % 7
    if start + max(HORIZONS) > (last - first).days:
        until = first + dt.timedelta(days=start + max(HORIZONS))
        raise UserError(f"--last: expected {until} or later ({HISTORY_DAYS} days of history and a horizon), got {last}")
    return list(range(start, (last - first).days - min(HORIZONS) + 1, every_days))


def make_process(flags: argparse.Namespace, as_ofs: list[int]) -> Process:
    """The process that the flags ask for, its intercept set so that --base_rate is the mean over the as_ofs."""
    from preprocessing.hazard import Process
    from preprocessing.truth import calibrated
    from preprocessing.waves import CAMPAIGNS

    campaigns = tuple(
        dataclasses.replace(c, log_odds=tuple(flags.strong_effect * effect for effect in c.log_odds))
        if c.name == STRONG_CAMPAIGN
        else c
        for c in CAMPAIGNS
    )
    # a fresh touch of log odds 1 multiplies an average customer's daily probability by e
    lift = flags.base_rate / BASE_HORIZON * (math.e - 1) if flags.homogeneous else None
    process = Process(flags.first, flags.last, campaigns=campaigns, homogeneous_lift=lift)
    process = process.with_intercept(process.intercept + math.log(flags.base_rate / 0.02))
    return calibrated(process, flags.base_rate, [day for day in as_ofs if day + BASE_HORIZON <= process.days])


@contextlib.contextmanager
def _written_aside(paths: list[Path]) -> Iterator[list[Path]]:
    """Names to write to; they become `paths` only after all went well, and vanish otherwise."""
    aside = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    try:
        yield aside
        for part, path in reversed(list(zip(aside, paths, strict=True))):  # the events last: they vouch for the rest
            part.replace(path)
    finally:
        for part in aside:
            part.unlink(missing_ok=True)


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise UserError(f"--output {output}: is a directory; expected a file such as {output / 'events.parquet'}")
    if output.suffix != ".parquet" or output.stem in TABLES:
        raise UserError(f"--output {output}: expected a .parquet file not called {', '.join(TABLES)}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot make its directory: {error.strerror}") from None
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {output}: cannot write into {output.parent}")


def simulate(flags: argparse.Namespace) -> str:
    """Draws the customers chunk by chunk and writes the five tables. Returns the line that sums them up."""
    began = time.monotonic()
    _check_output(flags.output)
    if flags.first >= flags.last:
        raise UserError(f"--last: expected a date after --first, {flags.first}, got {flags.last}")
    as_ofs = truth_days(flags.first, flags.last, flags.every_days)

    import numpy as np
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from preprocessing import population, simulated, truth

    process = make_process(flags, as_ofs)
    wanted = [(day, h) for day in as_ofs for h in HORIZONS if day + h <= process.days]
    probabilities, effects = truth.purchase_probabilities(process, wanted, process.waves.values())
    draws = population.Draws(process)
    chunks = -(-flags.customers // CHUNK)
    seeds = np.random.SeedSequence(flags.seed).spawn(chunks)
    counted = {"events": 0, "rate": 0.0}
    paths = [flags.output, *(flags.output.with_name(f"{name}.parquet") for name in TABLES)]
    with (
        _written_aside(paths) as aside,
        contextlib.ExitStack() as stack,
        tqdm(total=chunks * process.days, desc="simulating", unit=" days", leave=False, disable=None) as progress,
    ):
        writers: list[pq.ParquetWriter] = []
        for chunk, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            start = chunk * CHUNK
            people = population.draw(draws, min(CHUNK, flags.customers - start), rng, as_ofs, progress.update)
            events = population.events_of(process, people, rng)
            ids = simulated.customer_ids(start, people.size, flags.customers)
            truths, rate = simulated.truth_table(process, people, ids, as_ofs, probabilities)
            batches: list[pa.Table] = [
                simulated.events_table(events, ids),
                simulated.customers_table(people, ids),
                simulated.assignments_table(process, people, ids),
                truths,
                simulated.effects_table(process, people, ids, effects),
            ]
            if not writers:
                # without the Arrow schema the dictionary columns are plain strings to every reader
                writers = [
                    stack.enter_context(pq.ParquetWriter(path, batch.schema, store_schema=False, compression="zstd"))
                    for path, batch in zip(aside, batches, strict=True)
                ]
            for writer, batch in zip(writers, batches, strict=True):
                writer.write_table(batch)
            counted["events"] += events.time.size
            counted["rate"] += rate * people.size / flags.customers
        for writer in writers:
            writer.close()
    return (
        f"{flags.output}: {counted['events']:,} events of {flags.customers:,} customers, base rate "
        f"{counted['rate']:.4%} within {BASE_HORIZON} days, {time.monotonic() - began:.1f} s"
    )


def main(argv: list[str] | None = None) -> None:
    print(simulate(_flags(argv)))


if __name__ == "__main__":
    run(main)
