"""`python -m tests.bench.influence`: is a campaign's effect told right, where the simulator knows it?

Two populations of 100,000 simulated customers, one whose segments differ threefold in what the strong campaign does to
them, one where a campaign adds the same to everyone. Each is cut into 40 tables of 2,500 customers, drawn independently
of one another: what an analysis says of each table is held against that table's true effects. Assignments are scored by
two networks a population, each trained without the customers that it scores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, import_quietly, run

if TYPE_CHECKING:
    from preprocessing.rundir import RunDir
    from tests.bench.steps import Steps

TABLES, CUSTOMERS = 40, 2_500
TARGETED_TABLES = 20
BASE_RATE, STRONG_EFFECT = 0.15, 2.0
FIRST, LAST = dt.date(2026, 1, 26), dt.date(2026, 6, 15)
ASSIGNED_FROM, ASSIGNED_UNTIL = dt.date(2026, 3, 23), dt.date(2026, 5, 16)  # history before, 30 days after
LOOKBACK_DAYS, MAX_EVENTS = 45, 24
TARGETED, STRONG, INERT = "vip_offer", "spring_sale_email", "brand_display"
NO_OVERLAP = "vip_no_overlap"  # the targeted campaign with everyone taken out who was treated against the odds
SIMULATOR = ("simulate", "simulated", "population", "hazard", "waves", "truth", "bundles")
SETTINGS = {"epochs": 3, "lstm_units": 32, "dense_units": 32, "embedding_dim": 8, "learning_rate": 0.01, "members": 1}
POPULATIONS: dict[str, tuple[object, ...]] = {"segments": (), "homogeneous": ("--homogeneous",)}


def spec_text(randomised: list[str]) -> str:
    """A journey spec with predictions at assignments alone, a short lookback, everyone eligible."""
    from tests.bench.tasks import derived

    return derived(
        "demo.yaml",
        {
            "eligible": None,
            "sequence.max_events": MAX_EVENTS,
            "customer": {
                "table": "customers",
                "valid_from": "updated_at",
                "categorical": ["segment", "activity"],
            },
            "snapshots": {"assignments": True, "lookback_days": LOOKBACK_DAYS},
            "data_until": LAST,
            "split": {"test_from": ASSIGNED_UNTIL - dt.timedelta(days=7), "eval_customers": 0.1, "salt": "v1"},
            "campaigns.assignments.randomised": randomised,
            "campaigns.assignments.share": 1.0,  # the demo takes a tenth
        },
    )


def tables(steps: Steps, name: str, customers: int) -> tuple[Path, str]:
    """The simulated tables of a population, its assignments cut to the dates and with NO_OVERLAP added."""
    from tests.bench.steps import ROOT
    from tests.bench.tasks import key_file

    key = key_file(steps)
    flags = ("--customers", customers, "--base_rate", BASE_RATE, "--strong_effect", STRONG_EFFECT)
    flags += ("--first", FIRST, "--last", LAST, "--every_days", 28, "--seed", 5, *POPULATIONS[name])

    def make(place: Path) -> None:
        steps.command("preprocessing.simulate", "--output", place / "events.parquet", *flags)
        _cut_assignments(place)
        effects = ("--ids", place / "campaign_effects.parquet", "--column", "customer_id")
        target = place / "effects_by_key.parquet"
        steps.command("preprocessing.keys", "--key_file", key, *effects, "--output", target)
        _with_customer(place, target)
        (place / "truth.parquet").unlink()

    sources = [ROOT / "preprocessing" / f"{module}.py" for module in SIMULATOR]
    return steps.done(f"influence/{name}/tables", [*map(str, flags), key, *sources], make)


def _cut_assignments(place: Path) -> None:
    """Keeps the assignments of the dates; adds the targeted ones who got what their propensity made likelier."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(place / "assignments.parquet")
    day = table["assigned_at"].cast(pa.timestamp("us")).cast(pa.date32())
    table = table.filter(pc.and_(pc.greater_equal(day, ASSIGNED_FROM), pc.less_equal(day, ASSIGNED_UNTIL)))
    targeted = table.filter(pc.equal(table["campaign"], TARGETED))
    likely = pc.greater(targeted["propensity"], 0.35)
    certain = targeted.filter(pc.equal(targeted["treated"], likely))
    names = pa.array([NO_OVERLAP] * len(certain), table.schema.field("campaign").type)
    certain = certain.set_column(certain.column_names.index("campaign"), "campaign", names)
    pq.write_table(pa.concat_tables([table, certain]), place / "assignments.parquet")


def _with_customer(place: Path, target: Path) -> None:
    """Puts each row's number of its customer beside the keys, which the tables are cut by."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids = pq.read_table(place / "campaign_effects.parquet", columns=["customer_id"])["customer_id"]
    number = pc.utf8_slice_codeunits(ids.cast(pa.string()), 1).cast(pa.int64())
    pq.write_table(pq.read_table(target).append_column("customer", number), target)


def scored(steps: Steps, name: str, made: tuple[Path, str], quick: bool) -> tuple[Path, str]:
    """The population's assignments, scored out of fold, as assigned.pickle."""
    from tests.bench.steps import code
    from tests.bench.tasks import prepared

    randomised = [STRONG, "newsletter_tip", INERT]
    place, digest = made
    of = prepared(
        steps,
        f"influence/{name}/records",
        spec=spec_text(randomised),
        events=place / "events.parquet",
        ingredients=[digest],
        seeds=(0,),
    )
    settings = SETTINGS | ({"epochs": 1, "max_steps": 20, "lstm_units": 8} if quick else {})

    def make(target: Path) -> None:
        _cross_fit(of.run_dir, target / "assigned.pickle", settings)

    modules = ("crossfit", "folds", "fit", "model", "dataset", "hazard", "calibration", "next_event", "settings")
    sources = [path for path in code("trainer") if path.stem in modules]
    return steps.done(f"influence/{name}/scored", [of.digest, settings, *sources], make)


def _cross_fit(place: Path, target: Path, settings: dict[str, Any]) -> None:
    import pickle

    import_quietly("tensorflow", "keras")
    from preprocessing.rundir import RunDir
    from preprocessing.spec import EventsSpec, load_spec
    from trainer.crossfit import cross_fit
    from trainer.settings import Settings

    run_dir: RunDir = RunDir(place)
    spec = load_spec(run_dir.transform / "spec.yaml")
    assert isinstance(spec, EventsSpec)
    with run_dir.lock():
        fitted = cross_fit(run_dir, spec, Settings(**settings), 2)
    with target.open("wb") as file:
        pickle.dump(fitted.assigned, file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.influence", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="the figures, Markdown; a .json is written beside it"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench"), help="kept between runs (default: %(default)s)"
    )
    parser.add_argument("--tables", type=int, default=TABLES, help="tables a population (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: small tables, no training; means nothing")
    parser.add_argument("--only", choices=POPULATIONS, help="one population alone; no document is written")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, makes what is not yet there, judges each table, writes the document."""
    args = _parser().parse_args(argv)
    if not 1 <= args.tables <= TABLES:
        raise UserError(f"--tables: expected 1 to {TABLES}, got {args.tables}")
    if args.output.suffix != ".md":
        raise UserError(f"--output {args.output}: expected a file that ends in .md")

    from tests.bench import influence_bars
    from tests.bench.quality import versions
    from tests.bench.steps import Steps

    steps = Steps(args.work)
    size = 400 if args.quick else CUSTOMERS
    found: dict[str, Any] = {}
    for name in POPULATIONS if args.only is None else (args.only,):
        made = tables(steps, name, size * args.tables)
        place, digest = scored(steps, name, made, args.quick)
        found[name] = influence_bars.judged(steps, name, (made[0], place), digest, tables=args.tables, customers=size)
    if args.only is not None:
        return
    results = influence_bars.bars(found)
    results["made"] = {
        "date": dt.date.today().isoformat(),
        "command": "python -m tests.bench.influence " + shlex.join(sys.argv[1:] if argv is None else argv),
        "minutes": steps.seconds / 60,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}",
        "versions": versions(),
        "quick": args.quick,
        "tables": args.tables,
        "customers": size,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results | {"tables": found}, indent=1, allow_nan=False) + "\n"
    args.output.with_suffix(".json").write_text(text, encoding="utf-8")
    args.output.write_text(influence_bars.document(results), encoding="utf-8")
    print(args.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run(main)
