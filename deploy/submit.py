"""`python -m deploy.submit --job FILE --env NAME --run_dir gs://…`: a job on Vertex AI, from its price to its end."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run
from preprocessing.warehouse import PRICES

if TYPE_CHECKING:
    from deploy.environment import Environment
    from deploy.jobs import JobFile
    from deploy.prices import Prices

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.submit",
        description="Fills a job file from an environment, tells what the job costs at most, submits it to Vertex AI "
        "and follows it to its end. Ctrl-C stops following, not the job.",
        allow_abbrev=False,
    )
    parser.add_argument("--job", required=True, metavar="FILE", help="a job file, job_configs/gpu_job.yaml say")
    parser.add_argument(
        "--env", required=True, metavar="NAME", help="integration, production, or the path of an environment file"
    )
    parser.add_argument(
        "--run_dir", required=True, metavar="gs://…", help="the run directory, in the environment's bucket"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value for ${NAME} in the job file"
    )
    parser.add_argument("--dry_run", action="store_true", help="show cost, job and gcloud command, and submit nothing")
    parser.add_argument(
        "--above_cap", action="store_true", help="submit although the job may cost more than the environment's cost_cap"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="N",
        help="the most that a training may spend, in the price file's currency; it stops in time for evaluation and "
        "export. The trials of a tuning job share it evenly",
    )
    parser.add_argument(
        "--max_hours", type=float, metavar="H", help="cancel a batch prediction after so long; required for one"
    )
    parser.add_argument(
        "--prices", default=PRICES, type=Path, metavar="FILE", help="the price file (default: %(default)s)"
    )
    parser.add_argument(
        "--rendered", type=Path, metavar="FILE", help="where the filled job file goes (default: build/jobs/…)"
    )
    parser.add_argument("--detach", action="store_true", help="do not wait for the job's end")
    parser.add_argument(
        "--poll_s",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds between looks at the job (default: %(default)g)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Renders, prices, submits, follows. Raises UserError where the job is refused or does not succeed."""
    from deploy.ceiling import guard
    from deploy.environment import load_environment
    from deploy.gcloud import create_command, shown, write_config
    from deploy.jobs import given, load_job, to_message
    from deploy.package import build_sdist, sdist_name, upload_sdist
    from deploy.prices import load_prices

    args = _parser().parse_args(argv)
    environment, job = load_environment(args.env), load_job(args.job)
    _check(args, environment, job)
    name = f"{job.name}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    variables = environment.variables() | {"RUN_DIR": args.run_dir.rstrip("/")} | given(args.set)
    with tempfile.TemporaryDirectory() as place:
        archive = None
        if "PACKAGE" in job.variables - variables.keys():
            archive = build_sdist(Path(place))
            variables["PACKAGE"] = sdist_name(environment, archive)
        message = to_message(job, job.render(variables), environment, name, args.run_dir)
        prices = load_prices(args.prices)
        _tell(message, variables, args, environment, prices)
        if job.kind != "batch":
            guard(message, prices, args.budget)
        config = args.rendered or Path("build/jobs") / f"{name}.{'json' if job.kind == 'batch' else 'yaml'}"
        write_config(job.kind, message, config)
        print(f"the same by hand:\n  {shown(create_command(job.kind, environment, name, config, message.labels))}")
        if args.dry_run:
            print("dry run: nothing was submitted")
            return
        if archive is not None:
            upload_sdist(environment, archive)
    _run(job, message, args, environment)


def _run(job: JobFile, message: Any, args: argparse.Namespace, environment: Environment) -> None:
    from google.cloud.aiplatform_v1 import JobServiceClient

    from deploy.following import SUCCEEDED, follow, state_of, unfollowed
    from deploy.vertex_client import client

    jobs = client(JobServiceClient, environment)
    made = create(jobs, job.kind, message, environment)
    print(f"submitted {made.name}")
    if args.detach:
        return
    try:
        ended = follow(jobs, job.kind, made.name, environment, poll_s=args.poll_s, max_hours=args.max_hours)
    except KeyboardInterrupt:
        raise UserError(unfollowed(made.name, args.max_hours)) from None
    how = "succeeded" if state_of(ended) == SUCCEEDED else "succeeded in part"
    print(f"{how}: {_outcome(ended, job.kind, args.run_dir)}")


def create(jobs: Any, kind: str, message: Any, environment: Environment) -> Any:
    """Creates the job once: where the answer got lost on its way, the job is found by its display name, which no other
    has."""
    from deploy.vertex_client import create_once, told

    singular, plural = {
        "custom": ("custom_job", "custom_jobs"),
        "tuning": ("hyperparameter_tuning_job", "hyperparameter_tuning_jobs"),
        "batch": ("batch_prediction_job", "batch_prediction_jobs"),
    }[kind]
    making, listing = getattr(jobs, f"create_{singular}"), getattr(jobs, f"list_{plural}")
    named = {"parent": environment.parent, "filter": f'display_name="{message.display_name}"'}
    with told(f"{message.display_name}: not submitted", environment):
        return create_once(
            lambda: making(request={"parent": environment.parent, singular: message}, timeout=60.0, retry=None),
            lambda: next(iter(listing(request=named, timeout=60.0, retry=None)), None),
        )


def _check(args: argparse.Namespace, environment: Environment, job: JobFile) -> None:
    if not args.run_dir.startswith(f"gs://{environment.bucket}/"):
        raise UserError(
            f"--run_dir {args.run_dir}: expected gs://{environment.bucket}/…, the bucket of --env {args.env}"
        )
    if (args.max_hours is None) == (job.kind == "batch"):
        wanted = "expected, since a batch prediction has no time limit of its own" if job.kind == "batch" else (
            "for batch predictions only; this job has scheduling.timeout"
        )  # fmt: skip
        raise UserError(f"--max_hours: {wanted}")
    if args.max_hours is not None and not 0 < args.max_hours <= 168:
        raise UserError(f"--max_hours: expected hours above 0, at most 168, got {args.max_hours:g}")
    if args.detach and job.kind == "batch":
        raise UserError("--detach: a batch prediction is cancelled after --max_hours by this command; let it follow")
    if args.budget is not None and job.kind == "batch":
        raise UserError("--budget: for trainings; a batch prediction has --max_hours")
    if args.budget is not None and not 0 < args.budget < 1e12:
        raise UserError(f"--budget: expected a sum above 0, got {args.budget:g}")
    if not 0 < args.poll_s <= 600:
        raise UserError(f"--poll_s: expected seconds above 0, at most 600, got {args.poll_s:g}")


def _tell(
    message: Any, variables: dict[str, str], args: argparse.Namespace, environment: Environment, prices: Prices
) -> None:
    """Says what runs and what it costs at most. Raises UserError above the environment's cap."""
    from deploy.ceiling import ceiling
    from deploy.prices import OLD_MONTHS

    most = ceiling(message, prices, args.max_hours)
    text = str(message)
    for name in ("PACKAGE", "TRAINER_IMAGE", "MODEL"):
        if name in variables and f'"{variables[name]}"' in text:
            print(f"{name.lower().replace('_', ' ')}: {variables[name]}")
    if told := prices.told_old(args.prices, OLD_MONTHS, dt.datetime.now(dt.UTC).date()):
        print(told)
    print(f"costs at most {most.cents} {most.currency} (list prices of {prices.region}, {prices.noted}):")
    for line in most.worked:
        print(f"  {line}")
    if prices.region != environment.region:
        print(f"  these are the prices of {prices.region}; the job runs in {environment.region}")
    if most.amount > environment.cost_cap and not args.above_cap:
        raise UserError(
            f"{args.job}: may cost {most.cents} {most.currency}, above the {environment.cost_cap:g} of --env "
            f"{args.env}; lower scheduling.timeout or the machines, or add --above_cap"
        )


def _outcome(job: Any, kind: str, run_dir: str) -> str:
    if kind == "batch":
        counts = job.completion_stats
        return (
            f"{counts.successful_count:,} predictions, {counts.failed_count:,} errors in "
            f"{job.output_info.gcs_output_directory}"
        )
    if kind == "custom":
        return f"{run_dir.rstrip('/')}/model, evaluation/report.html beside it"
    metric = job.study_spec.metrics[0]
    done = [trial for trial in job.trials if trial.final_measurement.metrics]
    if not done:
        return f"no trial reported {metric.metric_id}"
    sign = 1 if metric.goal.name == "MAXIMIZE" else -1
    best = max(done, key=lambda trial: sign * trial.final_measurement.metrics[0].value)
    chosen = ", ".join(f"--{parameter.parameter_id}={parameter.value:g}" for parameter in best.parameters)
    value = best.final_measurement.metrics[0].value
    return f"{len(done)} trials; the best is {best.id}, {metric.metric_id} {value:.4f} with {chosen}"


if __name__ == "__main__":
    run(main)
