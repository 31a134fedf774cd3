"""`python -m tests.bench.quality`: the LSTM beside LightGBM and logistic regression, on published tables and simulated
customers.

Every run directory is built and every LSTM trained by the commands that a user would give. What is finished is kept in
--work and not repeated until code, spec or tables change; stopped in the middle, the same command goes on.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError, run

LIBRARIES = ("parcours", "tensorflow", "keras", "lightgbm", "scikit-learn", "numpy")
DRAWS = 1000


def _parser() -> argparse.ArgumentParser:
    from tests.bench.tasks import TASKS

    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the directory with the published tables; not for the simulator")
    parser.add_argument("--output", type=Path, required=True, help="the table, Markdown; a .json is written beside it")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="seeds (or official splits) a task; the simulator: 1")
    parser.add_argument("--customers", type=int, default=100_000, help="of the simulator (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench"), help="kept between runs (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: one seed, a few steps; its figures mean nothing"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, runs what is not yet there, writes the tables."""
    args = _parser().parse_args(argv)
    for flag, low in (("seeds", 1), ("customers", 100)):
        if getattr(args, flag) < low:
            raise UserError(f"--{flag}: expected {low} or more, got {getattr(args, flag)}")
    if args.output.suffix != ".md":
        raise UserError(f"--output {args.output}: expected a file that ends in .md")

    from tests.bench import quality_table, tasks
    from tests.bench.steps import Steps, say

    chosen = [tasks.TASKS[name] for name in dict.fromkeys(args.tasks)]
    data = args.data.absolute() if args.data else None
    tasks.check_tables(chosen, data)
    steps = Steps(args.work)
    results: dict[str, Any] = {"tasks": {}}
    for task in chosen:
        say(f"{task.name}: {task.title}")
        found = tasks.prepare(task, steps, data, seeds=args.seeds, customers=args.customers, quick=args.quick)
        scored = [one for of in found for one in _runs(task, of, steps, args.quick)]
        results["tasks"][task.name] = _result(task, found, scored, 20 if args.quick else DRAWS)
        _say_result(task, results["tasks"][task.name])
    results["made"] = {
        "date": dt.date.today().isoformat(),
        "command": "python -m tests.bench.quality " + shlex.join(sys.argv[1:] if argv is None else argv),
        "minutes": steps.seconds / 60,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}",
        "versions": versions(),
        "quick": args.quick,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    beside = args.output.with_suffix(".json")
    beside.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    args.output.write_text(quality_table.document(results, chosen), encoding="utf-8")
    print(f"{args.output} and {beside.name}: {len(chosen)} tasks in {results['made']['minutes']:.0f} minutes")


def versions() -> dict[str, str]:
    """The versions of what decides figures."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _runs(task: Any, of: Any, steps: Any, quick: bool) -> list[Any]:
    """The test predictions of every seed in one run directory."""
    from tests.bench.tasks import QUICK_TRAINING, trained

    peers = _peers(of, steps, quick)
    flags = QUICK_TRAINING if quick else ()
    return [_scored(peers, trained(task, of, seed, steps, *flags)) for seed in of.seeds]


def _scored(peers: Path, model: Any) -> Any:
    """LSTM and peers beside one another on the test journeys of a run."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from preprocessing.spec import load_spec
    from tests.bench.quality_table import Scored

    chosen = json.loads((peers / "chosen.json").read_text())
    table = pq.read_table(peers / "test.parquet").combine_chunks()
    horizon = load_spec(model.run_dir / "transform/spec.yaml").primary_horizon
    lstm = pq.read_table(model.run_dir / "evaluation/predictions.parquet").combine_chunks()
    place = pc.index_in(table["journey_id"], value_set=lstm["journey_id"].combine_chunks())
    if place.null_count:
        raise UserError(f"{model.run_dir}: {place.null_count:,} test journeys have no prediction")
    names = {"lightgbm": f"lightgbm_{model.seed}", "logistic_regression": "logistic_regression"}
    models = {
        "lstm": lstm[f"p_{horizon}d"].to_numpy()[place.to_numpy()].astype(float),
        **{name: table[column].to_numpy() for name, column in names.items()},
    }
    if "oracle" in table.column_names:
        models["oracle"] = table["oracle"].to_numpy()
    return Scored(
        model.name,
        table["customer_key"].combine_chunks(),
        table["as_of"].to_numpy(),
        table["converted"].to_numpy(),
        models,
        {name: chosen[column]["eval_log_loss"] for name, column in names.items()},
    )


def _peers(of: Any, steps: Any, quick: bool) -> Path:
    """Fits and chooses the peers; only then are the test journeys read, and their probabilities written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from preprocessing.spec import load_spec
    from tests.bench import peers
    from tests.bench.steps import ROOT
    from trainer.joins import true_probabilities
    from trainer.outcomes import read_outcomes

    def make(place: Path) -> None:
        spec = load_spec(of.run_dir / "transform/spec.yaml")
        journeys = of.run_dir / "journeys"
        inputs = peers.learn_inputs(journeys, spec)
        train, evaluation = (peers.read_part(journeys, split, inputs) for split in ("train", "eval"))
        fitted = peers.fit_peers(train, evaluation, inputs, of.seeds, quick)
        del train, evaluation
        test = peers.read_part(journeys, "test", inputs)
        columns: dict[str, Any] = {
            "journey_id": test.journey_id,
            "customer_key": test.customer_key,
            "as_of": test.as_of,
            "converted": test.converted,
            **{peer.name: peer.predict(test.matrix) for peer in fitted},
        }
        if of.truth is not None:
            notes: list[str] = []
            outcomes = read_outcomes(journeys, "test")
            known = outcomes.take(outcomes.known(spec.primary_horizon, spec.gap_days).nonzero()[0])
            columns["oracle"] = true_probabilities(of.truth, known, spec.horizons_days, notes)[spec.primary_horizon]
        pq.write_table(pa.table(columns), place / "test.parquet")
        chosen = {peer.name: {"eval_log_loss": peer.eval_log_loss, **peer.chosen} for peer in fitted}
        (place / "chosen.json").write_text(json.dumps(chosen, indent=1) + "\n")

    needed = [ROOT / "tests/bench/peers.py", *(ROOT / f"trainer/{name}.py" for name in ("aggregates", "outcomes"))]
    place, _ = steps.done(f"{of.name}-peers", [of.digest, list(of.seeds), quick, *needed], make)
    return Path(place)


def _result(task: Any, found: list[Any], scored: list[Any], draws: int) -> dict[str, Any]:
    import numpy as np

    from tests.bench.quality_table import better_peer, judged, measure
    from tests.bench.tasks import counts, utc_day

    groups = {"test": [np.ones(len(one.as_of), bool) for one in scored]}
    if task.by_as_of:
        groups = {
            utc_day(as_of): [one.as_of == as_of for one in scored] for as_of in np.unique(scored[0].as_of).tolist()
        }
    tables = {name: measure(scored, rows, draws) for name, rows in groups.items()}
    better = better_peer(scored)
    return {
        "runs": [one.name.partition("/")[2] for one in scored],
        "counts": counts(found[0]),
        "better_peer": better,
        "eval_log_loss": [one.eval_log_loss for one in scored],
        "groups": tables,
        "goals": [judged(goal, tables, better) for goal in task.goals],
    }


def _say_result(task: Any, result: dict[str, Any]) -> None:
    from tests.bench.quality_table import task_lines

    print("\n".join(task_lines(task, result)), flush=True)


if __name__ == "__main__":
    run(main)
