"""`python -m deploy.schedule --job FILE --env NAME`: a schedule on Vertex AI: nightly scoring, monthly retraining."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run

if TYPE_CHECKING:
    from deploy.environment import Environment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.schedule",
        description="Fills a schedule's job file from an environment and creates the schedule, or replaces the one of "
        "the same name.",
        allow_abbrev=False,
    )
    parser.add_argument("--job", required=True, metavar="FILE", help="job_configs/schedule_scoring.yaml, say")
    parser.add_argument("--env", required=True, metavar="NAME", help="integration, production, or an environment file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value for ${NAME} in the job file"
    )
    parser.add_argument("--dry_run", action="store_true", help="show the schedule, and create none")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Renders, parses strictly, creates or updates. Raises UserError where the file or the service refuses."""
    from deploy.environment import load_environment
    from deploy.jobs import given, load_job, to_message

    args = _parser().parse_args(argv)
    environment, job = load_environment(args.env), load_job(args.job)
    if job.kind != "schedule":
        raise UserError(f"{args.job}: expected a schedule (createPipelineJobRequest at its top); see deploy.submit")
    variables = environment.variables() | given(args.set)
    schedule = to_message(job, job.render(variables), environment, f"parcours-{job.name}")
    if args.dry_run:
        from google.protobuf import json_format

        print(json_format.MessageToJson(schedule, indent=1))
        return
    print(_created(schedule, environment))


def _created(schedule: Any, environment: Environment) -> str:
    """Creates the schedule, or updates the one of its display name: running the command twice makes one schedule, and
    so does an answer that gets lost."""
    from google.cloud import aiplatform_v1 as api

    from deploy.vertex_client import call, client, create_once, told

    schedules, wanted = client(api.ScheduleServiceClient, environment), api.Schedule(schedule)
    named = {"parent": environment.parent, "filter": f'display_name="{wanted.display_name}"'}

    def find() -> Any | None:
        return next(iter(call(schedules.list_schedules, named)), None)

    with told(f"schedule {wanted.display_name}: not made", environment):
        found = find()
        if found is not None:
            wanted.name = found.name
            fields = {"paths": ["cron", "max_concurrent_run_count", "allow_queueing", "create_pipeline_job_request"]}
            made = call(schedules.update_schedule, {"schedule": wanted, "update_mask": fields})
            return f"replaced schedule {made.name}: {made.cron}"
        request = {"parent": environment.parent, "schedule": wanted}
        made = create_once(lambda: schedules.create_schedule(request=request, timeout=60.0, retry=None), find)
    return f"created schedule {made.name}: {made.cron}"


if __name__ == "__main__":
    run(main)
