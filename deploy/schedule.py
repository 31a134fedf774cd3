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
    from deploy.jobs import load_job, to_message

    args = _parser().parse_args(argv)
    environment, job = load_environment(args.env), load_job(args.job)
    if job.kind != "schedule":
        raise UserError(f"{args.job}: expected a schedule (createPipelineJobRequest at its top); see deploy.submit")
    given = dict(_pair(text) for text in args.set)
    schedule = to_message(job, job.render(environment.variables() | given), environment, f"parcours-{job.name}")
    if args.dry_run:
        from google.protobuf import json_format

        print(json_format.MessageToJson(schedule, indent=1))
        return
    print(_created(schedule, environment))


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.isupper():
        raise UserError(f"--set {text}: expected NAME=VALUE, NAME in capitals")
    return name, value


def _created(schedule: Any, environment: Environment) -> str:
    """Creates the schedule, or updates the one of its display name: running the command twice makes one schedule."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.api_core.retry import Retry
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import aiplatform_v1 as api

    try:
        client = api.ScheduleServiceClient(
            client_options={"api_endpoint": f"{environment.region}-aiplatform.googleapis.com"}
        )
        patience: dict[str, Any] = {"retry": Retry(timeout=120.0), "timeout": 60.0}
        wanted = api.Schedule(schedule)
        asked = api.ListSchedulesRequest(parent=environment.parent, filter=f'display_name="{wanted.display_name}"')
        for found in client.list_schedules(request=asked, **patience):
            wanted.name = found.name
            fields = {"paths": ["cron", "max_concurrent_run_count", "allow_queueing", "create_pipeline_job_request"]}
            made = client.update_schedule(schedule=wanted, update_mask=fields, **patience)
            return f"replaced schedule {made.name}: {made.cron}"
        made = client.create_schedule(parent=environment.parent, schedule=wanted, **patience)
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise UserError(f"the schedule was not made: {' '.join(str(error).split())[:400]}") from None
    return f"created schedule {made.name}: {made.cron}"


if __name__ == "__main__":
    run(main)
