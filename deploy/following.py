"""A job followed to its end: its states, its log lines, and what it ended with."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deploy.jobs import Kind, custom_job_spec
from deploy.vertex_client import call, told
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from deploy.environment import Environment

log = logging.getLogger(__name__)

SUCCEEDED, PARTLY = "SUCCEEDED", "PARTIALLY_SUCCEEDED"
ENDED = (SUCCEEDED, PARTLY, "FAILED", "CANCELLED", "EXPIRED")
_GET = {
    "custom": "get_custom_job",
    "tuning": "get_hyperparameter_tuning_job",
    "batch": "get_batch_prediction_job",
}
_CANCEL = {kind: name.replace("get_", "cancel_") for kind, name in _GET.items()}
_DEADLINE = 4  # google.rpc.Code.DEADLINE_EXCEEDED
_NOT_FOUND = 5


def follow(
    jobs: Any, kind: Kind, name: str, environment: Environment, *, poll_s: float, max_hours: float | None = None
) -> Any:
    """Prints states and log lines until the job has ended; returns the job as it ended.

    max_hours: after which a batch prediction, which has no time limit of its own, is cancelled. Raises UserError where
    it did not succeed, with the reason and what to do.
    """
    logs = Logs(environment, name.rpartition("/")[2])
    get = getattr(jobs, _GET[kind])
    state, started, cancelled = "", time.monotonic(), False
    while True:
        with told(name if max_hours is None else unfollowed(name, max_hours), environment):
            job = call(get, {"name": name})
        if (found := state_of(job)) != state:
            state = found
            log.info("%s  %s", dt.datetime.now().strftime("%H:%M:%S"), state.lower().replace("_", " "))
        for line in logs.new():
            log.info("    %s", line)
        if state in ENDED:
            break
        if max_hours is not None and not cancelled and time.monotonic() - started > max_hours * 3600:
            cancelled = True
            with told(name, environment):
                call(getattr(jobs, _CANCEL[kind]), {"name": name})
        time.sleep(poll_s)
    for line in logs.rest(poll_s):
        log.info("    %s", line)
    if state not in (SUCCEEDED, PARTLY):
        raise UserError(f"{name}: {_why(job, kind, state, max_hours if cancelled else None)}")
    return job


class Logs:
    """The lines that a job's containers wrote, each once, in their order; what cannot be read is told once."""

    def __init__(self, environment: Environment, job_id: str) -> None:
        self._environment, self._job_id = environment, job_id
        self._client: Any = None
        self._seen: set[str] = set()
        self._since: dt.datetime | None = None
        self._off = False

    def new(self) -> Iterator[str]:
        """Lines that came since the last call."""
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError

        if self._off:
            return
        try:
            yield from self._read()
        except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
            self._off = True  # the job goes on, and so does following its state
            log.warning("warning: its log lines cannot be read (%s); the state is followed all the same", error)

    def rest(self, wait_s: float) -> Iterator[str]:
        """Lines that arrive after the job's end, until none came for `wait_s`: logging is a little late."""
        while True:
            time.sleep(wait_s)
            found = list(self.new())
            if not found:
                return
            yield from found

    def _read(self) -> Iterator[str]:
        from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

        if self._client is None:
            self._client = LoggingServiceV2Client()
        terms = ['resource.type="ml_job"', f'resource.labels.job_id="{self._job_id}"']
        if self._since is not None:  # a little is read twice, since entries may arrive out of order
            terms.append(f'timestamp>="{(self._since - dt.timedelta(seconds=30)).isoformat()}"')
        request = {
            "resource_names": [f"projects/{self._environment.project}"],
            "filter": " AND ".join(terms),
            "order_by": "timestamp asc",
            "page_size": 1000,
        }
        for entry in call(self._client.list_log_entries, request):
            if entry.insert_id in self._seen:
                continue
            self._seen.add(entry.insert_id)
            self._since = max(self._since or entry.timestamp, entry.timestamp)
            payload = entry.json_payload
            text = str(payload["message"]) if payload and "message" in payload else entry.text_payload
            labels = entry.resource.labels
            task = "/".join(labels[key] for key in ("trial_id", "task_name") if key in labels)
            yield from (f"{task}  {line}" for line in text.splitlines())


def unfollowed(name: str, max_hours: float | None) -> str:
    """What is so once nobody follows a job that goes on; max_hours: of a batch prediction, which nothing else ends."""
    if max_hours is None:
        return f"no longer followed; the job goes on: {name}"
    return (
        f"{name}: no longer followed; the job goes on, and nothing cancels it after --max_hours {max_hours:g}; cancel "
        "it in the Cloud console, under Vertex AI, batch predictions"
    )


def state_of(job: Any) -> str:
    """The state of a Vertex AI job, such as SUCCEEDED."""
    name: str = job.state.name
    return name.removeprefix("JOB_STATE_")


def _why(job: Any, kind: Kind, state: str, cancelled_after: float | None) -> str:
    """Why a job did not succeed, and what to do."""
    said = " ".join(job.error.message.split())
    if cancelled_after is not None:
        return f"cancelled after --max_hours {cancelled_after:g}; give it more, or more machines (maxReplicaCount)"
    if state == "CANCELLED":
        return "it was cancelled"
    if "image" in said and (job.error.code == _NOT_FOUND or "pull" in said):
        return f"{said} Push the image, or mend trainer_image or serving_image in the environment file"
    limit = None if kind == "batch" else custom_job_spec(job).scheduling.timeout
    ran = (job.end_time - job.start_time) if job.end_time and job.start_time else None
    if job.error.code == _DEADLINE or state == "EXPIRED" or (limit and ran and ran >= limit):
        hours = limit.total_seconds() / 3600 if limit else 0
        return (
            f"stopped at its time limit of {hours:g} h; raise scheduling.timeout in the job file. The same command "
            "goes on from the last checkpoint"
        )
    return f"{said or 'no reason was given'}. The lines above, or the job's log, say more"
