"""`python -m preprocessing.explore`: one page of what events and journeys hold, before any training."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from preprocessing.bigquery_client import SCHEME
from preprocessing.cli import UserError, run
from preprocessing.spec import AnySpec, EventsSpec, load_spec
from preprocessing.tolerance import DEFAULT, HELP, Tolerance, tolerance
from preprocessing.warehouse import RUNNER, Warehouse, add_flags, warehouse_of

if TYPE_CHECKING:
    from preprocessing.event_findings import Events
    from preprocessing.findings import Journeys, Rate

log = logging.getLogger(__name__)
SHOWN = 12  # features in the table
DRIFT = 0.25  # of the train rate, beyond which eval or test is told apart
RARE = 0.05


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.explore",
        description="Builds journeys from an events table and writes one HTML page of what they hold; trains nothing.",
    )
    parser.add_argument("--spec", required=True, help="the journey spec, a YAML file")
    parser.add_argument(
        "--events",
        required=True,
        help="a Parquet, CSV or JSONL file, a glob, a directory of tables, a DuckDB database; or "
        "bigquery://project.dataset[.table]",
    )
    parser.add_argument("--output", default="explore.html", help="the page to write (default: %(default)s)")
    parser.add_argument("--max_bad_rows", default="1%", help=HELP)
    add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Writes the page, whole or not at all."""
    args = _parser().parse_args(argv)
    bad_rows = tolerance(args.max_bad_rows)
    spec = load_spec(args.spec)
    output = Path(args.output)
    if output.is_dir():
        raise UserError(f"--output {output}: expected a file, found a directory")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such directory; expected one to write {output.name} into")
    started = time.monotonic()
    # beside the output: the disk that takes the page takes what it is made of
    with tempfile.TemporaryDirectory(prefix=".explore-", dir=output.parent) as place:
        log.info("1/3 events to journeys: %s", args.events)
        warehouse = warehouse_of(args, [f"--runner={RUNNER}"]) if args.events.startswith(SCHEME) else None
        with explored(spec, args.events, Path(place), max_bad_rows=bad_rows, warehouse=warehouse) as found:
            kept, dropped = found.built["journeys"]["kept"], found.built["journeys"]["dropped"]
            if not kept.get("train"):
                raise UserError(
                    f"{args.spec}: no journey falls into the train split (kept {kept}, dropped {dropped}); check "
                    "snapshots, split, eligible and data_until against the events"
                )
            log.info("2/3 journeys to counts")
            text = _page(args, found.spec, found.events, found.journeys, found.built)
        whole = Path(place, output.name)
        whole.write_text(text, "utf-8")
        whole.replace(output)
    log.info("done in %.0f s", time.monotonic() - started)
    print(f"{output}: {found.events.total['events']:,} events of {found.events.total['customers']:,} customers")


class Explored(NamedTuple):
    """What events and journeys hold: of `events` the counts, of `journeys` what is asked of them while they are there.

    spec: the spec with every journey at a snapshot; built: the summary of build_journeys.
    """

    spec: AnySpec
    events: Events
    journeys: Journeys
    built: dict[str, Any]


@contextmanager
def explored(
    spec: AnySpec,
    source: str,
    place: Path,
    *,
    max_bad_rows: Tolerance = DEFAULT,
    progress: bool = True,
    warehouse: Warehouse | None = None,
) -> Iterator[Explored]:
    """Builds the journeys of `source` (as --events) in the directory `place` and counts; trains nothing.

    warehouse: for events in BigQuery; without it the key of the customers is this call's own and ends with it. Raises
    UserError.
    """
    from preprocessing import bigquery_journeys, engine
    from preprocessing.event_findings import Events
    from preprocessing.findings import Journeys
    from preprocessing.journeys import build_journeys

    spec = _plain(spec)
    events = Events(spec)
    directory, spill = place / "journeys", place / "database"
    directory.mkdir()
    spill.mkdir()
    if warehouse is not None:
        built = bigquery_journeys.build(
            spec,
            source,
            directory,
            warehouse,
            predict=False,
            predict_as_of=None,
            max_bad_rows=max_bad_rows,
            look=events.look_in_bigquery,
        )
    else:
        key = secrets.token_bytes(32)  # keys of customers serve to count them alone
        look = events.look
        built = build_journeys(spec, source, directory, key, max_bad_rows=max_bad_rows, progress=progress, look=look)
    with engine.opened(spill) as connection:
        yield Explored(spec, events, Journeys(connection, directory, spec), built)


def _plain(spec: AnySpec) -> AnySpec:
    """The spec with every journey at a snapshot: nothing thinned, none at assignments beside them."""
    from preprocessing.spec import Sampling

    change: dict[str, Any] = {"sampling": Sampling()}
    if isinstance(spec, EventsSpec) and spec.assignments is not None and not spec.snapshots.assignments:
        change["campaigns"] = None
    return spec.model_copy(update=change)


def _page(args: argparse.Namespace, spec: AnySpec, events: Events, journeys: Journeys, built: dict[str, Any]) -> str:
    from preprocessing import explore_plots as plots
    from preprocessing import page
    from preprocessing.findings import touch_field
    from preprocessing.suspects import suspects

    field = touch_field(spec)
    parts = journeys.by_split()
    train = parts[0]["rates"][spec.horizons_days.index(spec.primary_horizon)]
    by_snapshot = journeys.by_snapshot()
    features = journeys.single_features()
    flows = journeys.flows() if field else []
    paths = journeys.paths() if field else []
    what = f"within {spec.primary_horizon} days" if isinstance(spec, EventsSpec) else "by its label"
    label = f"Share that converts {what}"
    log.info("3/3 plots")
    touched = []
    if field:
        cells = (
            ("first", f"First {field} of the journey", journeys.first_touch()),
            ("last", f"Last {field} of the journey", journeys.last_touch()),
            ("touches", f"Number of events that name a value of {field}", journeys.number_of_touches()),
        )
        touched = [
            (caption, plots.rates(name, f"{caption}: conversion rates with intervals.", found, label, train["rate"]))
            for name, caption, found in cells
            if found
        ]
    starts = []
    if isinstance(spec, EventsSpec):
        starts = [(name, at) for name, at in (("eval", spec.split.eval_from), ("test", spec.split.test_from)) if at]
    return page.render(
        "explore.html.j2",
        title="Before training",
        version="",
        source=args.events,
        spec_name=args.spec,
        spec=spec,
        dated=isinstance(spec, EventsSpec),
        field=field,
        k=spec.privacy.min_customers,
        total=events.total,
        first=_day(events.total["first_us"]),
        last=_day(events.total["last_us"]),
        set_aside=built["events"],
        dropped={name: n for name, n in built["journeys"]["dropped"].items() if n},
        parts=parts,
        train=train,
        imbalance=_imbalance(train),
        what=what,
        over_time=plots.over_time(events.over_time, events.step_days, field) if events.over_time else "",
        lengths=plots.lengths(journeys.lengths(), spec.sequence.max_events),
        gaps=plots.gaps(events.gaps) if events.gaps else "",
        touched=touched,
        flows=plots.flows(flows, train["rate"]) if flows else "",
        paths=paths,
        snapshots=plots.by_snapshot(by_snapshot, starts, label) if by_snapshot else "",
        by_snapshot=by_snapshot,
        drift=_drift(by_snapshot, parts, spec),
        columns=events.columns,
        suspects=suspects(events.columns, features, events.total["events"]),
        features=features[:SHOWN],
    )


def _imbalance(train: dict[str, Any]) -> str:
    """How many journeys there are to a conversion, and what follows."""
    if not train["converted"]:
        return "No train journey converts: nothing can be learnt. Look at conversion.where and the dates."
    rest = f"One train journey in {1 / train['rate']:,.0f} converts ({train['converted']:,} conversions). "
    if train["converted"] < 200:
        return rest + "So few conversions carry a simple model at best: add history, customers, or a longer horizon."
    if train["rate"] < RARE:
        return rest + (
            "Rare, but no cause to balance by hand: the model's probabilities stay honest. Where training takes too "
            "long, sampling.negative_rate leaves out known negatives, and the model corrects for it."
        )
    return rest + "No correction is needed."


def _drift(by_snapshot: list[Rate], parts: list[dict[str, Any]], spec: AnySpec) -> list[str]:
    """In words: how the label rate moves over the as_ofs, and from train to eval and test."""
    said = []
    if len(by_snapshot) > 1:
        least = min(by_snapshot, key=lambda one: one.rate)
        most = max(by_snapshot, key=lambda one: one.rate)
        apart = "their intervals lie apart" if least.high < most.low else "their intervals overlap"
        said.append(
            f"The label rate lies between {100 * least.rate:.2f} % ({least.name}) and {100 * most.rate:.2f} % "
            f"({most.name}); {apart}."
        )
    at = spec.horizons_days.index(spec.primary_horizon)
    base = parts[0]["rates"][at]["rate"]
    for part in parts[1:]:
        one = part["rates"][at]
        if not one["known"] or not base:
            continue
        change = one["rate"] / base - 1
        word = "more than a quarter: is it the season, or did the table change?" if abs(change) > DRIFT else "little."
        said.append(f"{part['split']}: {100 * one['rate']:.2f} %, {100 * change:+.0f} % against train, {word}")
    return said


def _day(micros: int) -> str:
    return f"{dt.datetime.fromtimestamp(micros / 1e6, dt.UTC):%Y-%m-%d}"


if __name__ == "__main__":
    run(main)
