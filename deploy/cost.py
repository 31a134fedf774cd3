"""`python -m deploy.cost --job FILE`: what a job, or making journeys, costs at most, and what is to be expected.

The most is known from the files alone: prices, machines and time limits. What is to be expected is not, and is told
only where there is something to go by: hours that the user states, or a former run's measured ones.

    python -m deploy.cost --job job_configs/gpu_job.yaml --env integration --like runs/demo
    python -m deploy.cost --maximum_bytes_billed 2000000000000 --max_num_workers 8 --machine_type n1-standard-4 \
        --pipeline_hours 2
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run
from preprocessing.flags import number
from preprocessing.warehouse import PRICES

if TYPE_CHECKING:
    from deploy.ceiling import Estimate
    from deploy.prices import Prices

_WHOLE, _POSITIVE = number(int, above=0), number(float, above=0)
_MAKING = (
    *("maximum_bytes_billed", "scanned_bytes", "max_num_workers", "machine_type", "disk_size_gb"),
    *("pipeline_hours", "worker_hours"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.cost",
        description="Tells what a job costs at most, and what is to be expected, line by line. It asks nobody and "
        "submits nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("--job", metavar="FILE", help="a job file: custom job, tuning or batch prediction")
    parser.add_argument("--env", metavar="NAME", help="compare with the cost_cap of this environment")
    parser.add_argument(
        "--prices", default=PRICES, type=Path, metavar="FILE", help="the price file (default: %(default)s)"
    )
    parser.add_argument(
        "--old_months",
        type=_WHOLE,
        metavar="N",
        help="warn where the prices were noted more months ago (default: 6)",
    )
    basis = parser.add_mutually_exclusive_group()
    basis.add_argument(
        "--expected_hours", type=_POSITIVE, metavar="H", help="how long the job, or each trial, is expected to run"
    )
    basis.add_argument(
        "--like", metavar="RUN_DIR", help="expect the hours that were measured in this run, on whatever ran it"
    )
    parser.add_argument(
        "--max_hours", type=_POSITIVE, metavar="H", help="deploy.submit's, for a batch prediction: it is cancelled then"
    )
    making = parser.add_argument_group("making journeys, by preprocessing.task's and Beam's own flags")
    making.add_argument("--maximum_bytes_billed", type=_WHOLE, metavar="N", help="what BigQuery may bill at most")
    making.add_argument("--scanned_bytes", type=_WHOLE, metavar="N", help="what a dry run says that is scanned")
    making.add_argument("--max_num_workers", type=_WHOLE, metavar="N", help="Dataflow's workers at most")
    making.add_argument("--machine_type", metavar="TYPE", help="their machines")
    making.add_argument("--disk_size_gb", type=_WHOLE, metavar="GB", help="a worker's disk (default: 25)")
    making.add_argument(
        "--pipeline_hours",
        type=_POSITIVE,
        metavar="H",
        help="its time limit: --dataflow_service_options=max_workflow_runtime_walltime_seconds=…",
    )
    making.add_argument(
        "--worker_hours", type=_POSITIVE, metavar="H", help="workers times hours that are expected, or were used before"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Prints both costs. Raises UserError for what cannot be priced."""
    from deploy.prices import OLD_MONTHS, load_prices

    args = _parser().parse_args(argv)
    making = any(getattr(args, name) is not None for name in _MAKING)
    if args.job is None and not making:
        raise UserError("nothing to price: expected --job FILE, or flags for making journeys (see --help)")
    if args.job is None and (args.like or args.expected_hours or args.max_hours):
        raise UserError("--expected_hours, --like, --max_hours: they are a job's; expected --job FILE with them")
    prices = load_prices(args.prices)
    print(f"list prices of {prices.region}, noted {prices.noted} ({args.prices}), before tax and discounts")
    today = dt.datetime.now(dt.UTC).date()
    if told := prices.told_old(args.prices, args.old_months or OLD_MONTHS, today):
        print(told)
    most: list[Estimate | str] = []
    expected: list[Estimate | str] = []
    if args.job is not None:
        message = _message(args.job)
        most.append(_at_most(message, prices, args))
        expected.append(_expected(message, prices, args))
    if making:
        found = _journeys(prices, args)
        most += found[0]
        expected += found[1]
    _tell("at most", most, prices)
    _tell("expected", expected, prices)
    if args.env is not None:
        _compare(most, prices, args)


def _message(path: str) -> Any:
    from deploy.jobs import load_job, parse_job

    job = load_job(path)
    if job.kind == "schedule":
        raise UserError(
            f"{path}: a schedule's steps have no time limit, so no largest cost; price a job file, or flags"
        )
    return parse_job(job, job.content)  # what ${NAME} stands for costs nothing


def _at_most(message: Any, prices: Prices, args: argparse.Namespace) -> Estimate:
    from deploy.ceiling import ceiling

    if args.max_hours is not None and message.DESCRIPTOR.name != "BatchPredictionJob":
        raise UserError("--max_hours: for batch predictions only; this job has scheduling.timeout")
    return ceiling(message, prices, args.max_hours)


def _expected(message: Any, prices: Prices, args: argparse.Namespace) -> Estimate | str:
    """The expected cost; or why there is none: it is never made up."""
    from deploy.ceiling import cost, custom_job_spec, trials_of

    if args.expected_hours is None and args.like is None:
        return "the job: not known without --expected_hours or --like RUN_DIR; only the ceiling is"
    if args.like is not None:
        if message.DESCRIPTOR.name == "BatchPredictionJob":
            raise UserError("--like: a training's hours tell nothing of a batch prediction's; give --expected_hours")
        seconds = measured_seconds(args.like)
        hours, origin = seconds / 3600, f"as measured in {args.like}: {seconds:,.0f} s, on the machine that ran it"
    else:
        hours, origin = args.expected_hours, "as given by --expected_hours"
    limit = args.max_hours
    if message.DESCRIPTOR.name != "BatchPredictionJob":
        limit = custom_job_spec(message).scheduling.timeout.seconds / 3600
    if hours > limit:
        raise UserError(f"{hours:.3g} hours, {origin}, are more than the {limit:g} of the time limit: it would not end")
    found = cost(message, prices, hours)
    each = "each trial " if trials_of(message) > 1 else ""
    return type(found)(found.amount, found.currency, (*found.worked, f"  {each}{hours:.3g} h: {origin}"))


def measured_seconds(run_dir: str) -> float:
    """How long the run's training job took, with what earlier attempts trained, from evaluation/run.json.

    Raises UserError where nothing was measured.
    """
    import json

    from preprocessing.rundir import RunDir

    run = RunDir(run_dir)
    run.fetch("evaluation")
    path = run.evaluation / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: missing or damaged; evaluate anew with: python -m trainer.task") from None
    seconds = found.get("seconds")
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise UserError(f"--like {run_dir}: its run.json holds no measured seconds; give --expected_hours H")
    return float(seconds)


def _journeys(prices: Prices, args: argparse.Namespace) -> tuple[list[Estimate | str], list[Estimate | str]]:
    from deploy.journeys_cost import WORKER_DISK, Workers, bigquery, dataflow

    most: list[Estimate | str] = []
    expected: list[Estimate | str] = []
    cap, scanned = args.maximum_bytes_billed, args.scanned_bytes
    if cap or scanned:
        most.append(bigquery(prices, cap) if cap else "BigQuery: no limit without --maximum_bytes_billed")
        expected.append(bigquery(prices, scanned) if scanned else "BigQuery: not known without --scanned_bytes")
    if args.machine_type is None:
        if args.max_num_workers or args.pipeline_hours or args.worker_hours or args.disk_size_gb:
            raise UserError("--machine_type: expected, the Dataflow workers' machines")
        return most, expected
    workers = Workers(args.max_num_workers or 0, args.machine_type, args.disk_size_gb or WORKER_DISK)
    if args.max_num_workers and args.pipeline_hours:
        most.append(dataflow(prices, workers, args.max_num_workers * args.pipeline_hours))
    else:
        most.append("Dataflow: no limit without --max_num_workers and --pipeline_hours")
    if args.worker_hours:
        expected.append(dataflow(prices, workers, args.worker_hours))
    else:
        expected.append("Dataflow: not known without --worker_hours")
    return most, expected


def _tell(what: str, found: list[Estimate | str], prices: Prices) -> None:
    """A line with the sum, or with what is known of it, and below it how each part was worked out."""
    known = [one for one in found if not isinstance(one, str)]
    cents = math.ceil(round(sum(one.amount for one in known) * 100, 6)) / 100
    if not known:
        print(f"{what}: not known")
    elif len(known) < len(found):
        print(f"{what}: {cents:.2f} {prices.currency} and what is not known:")
    else:
        print(f"{what}: {cents:.2f} {prices.currency}")
    for one in found:
        for line in (one,) if isinstance(one, str) else one.worked:
            print(f"  {line}")


def _compare(most: list[Estimate | str], prices: Prices, args: argparse.Namespace) -> None:
    from deploy.environment import load_environment

    environment = load_environment(args.env)
    if prices.region != environment.region:
        print(f"these are the prices of {prices.region}; --env {args.env} runs in {environment.region}")
    cap = f"the cost_cap of --env {args.env}, {environment.cost_cap:g} {prices.currency}"
    amounts = [one.amount for one in most if not isinstance(one, str)]
    if sum(amounts) > environment.cost_cap:
        print(f"above {cap}" + (": deploy.submit asks for --above_cap" if args.job else ""))
    elif len(amounts) < len(most):
        print(f"not known whether it stays within {cap}: a part has no limit")
    else:
        print(f"within {cap}")


if __name__ == "__main__":
    run(main)
