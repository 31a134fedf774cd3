"""What a training's machine is busy with, in Cloud Monitoring, where the training is a job of Vertex AI.

Vertex AI writes CPU, memory and GPU there by itself, a minute or more late and by job alone; what a step takes and how
long it waits for input only the training knows.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainer.tuning import trial

log = logging.getLogger(__name__)

PREFIX = "custom.googleapis.com/parcours/training"
_EVERY_S = 60.0  # a series takes a point every five seconds at most, and is read by the minute
_TIMEOUT_S = 10.0  # of a call: a training that ends must not wait for it longer


class Monitoring:
    """Writes the values of trainer.watch, `PREFIX`/cpu, …/step_ms and so on, as gauges of one machine.

    The resource is a generic_task: of the project and region, `job` the job's number, task_id the machine's host name,
    with the trial before it. What cannot be written is said once, and training goes on.
    """

    def __init__(self, project: str, location: str, job: str, task: str, clock: Callable[[], float] = time.time):
        """project: its id or number; clock: seconds since 1970."""
        self._name, self._clock, self._last = f"projects/{project}", clock, -_EVERY_S
        self._resource = {
            "type": "generic_task",
            "labels": {
                "project_id": project,
                "location": location,
                "namespace": "parcours",
                "job": job,
                "task_id": task,
            },
        }
        self._client: Any = None
        self._failed = False

    def __call__(self, values: Mapping[str, float]) -> None:
        """Writes one point of each, unless there was one within the last minute."""
        now = self._clock()
        if not values or now - self._last < _EVERY_S:
            return
        self._last = now
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            self._write(values, now)
        except (GoogleAPIError, GoogleAuthError, OSError, RuntimeError, TypeError, ValueError) as error:
            if not self._failed:
                said = str(error).splitlines() or [type(error).__name__]
                log.warning("warning: Cloud Monitoring was not written: %s; training goes on", said[0])
            self._failed = True

    def _write(self, values: Mapping[str, float], now: float) -> None:
        from google.cloud import monitoring_v3

        if self._client is None:
            self._client = monitoring_v3.MetricServiceClient()
        end = {"seconds": int(now), "nanos": int(now % 1 * 1e9)}
        series = [
            monitoring_v3.TimeSeries(
                metric={"type": f"{PREFIX}/{name}"},
                resource=self._resource,
                points=[{"interval": {"end_time": end}, "value": {"double_value": value}}],
            )
            for name, value in values.items()
        ]
        self._client.create_time_series(name=self._name, time_series=series, timeout=_TIMEOUT_S)


def job_monitoring() -> Monitoring | None:
    """For the job of Vertex AI that this process is of, as its environment says; None outside."""
    project, job = os.environ.get("CLOUD_ML_PROJECT_ID"), os.environ.get("CLOUD_ML_JOB_ID")
    if not (project and job):
        return None
    task = "-".join(part for part in (trial(), socket.gethostname()) if part)
    return Monitoring(project, os.environ.get("CLOUD_ML_REGION", "global"), job, task)
