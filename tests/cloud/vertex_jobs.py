"""Vertex AI's JobService: custom jobs, tuning jobs and batch predictions, run on this machine."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.types import JobState, job_service
from google.protobuf import empty_pb2

from tests.cloud.service import ApiError, Service
from tests.cloud.transcoding import rpc
from tests.cloud.vertex_batch import predict_files
from tests.cloud.vertex_runs import Outcome, Run

SERVICE = "google.cloud.aiplatform.v1.JobService"
ENDED = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Jobs(Service):
    """`jobs`: every job by its name; `held`: while set, jobs stay pending; `started`: what runs, by job name."""

    jobs: dict[str, Any]

    def reset_jobs(self) -> None:
        self.jobs = {}
        self.held = threading.Event()
        self.started: dict[str, list[Run]] = {}
        self._threads: list[threading.Thread] = []

    def close_jobs(self) -> None:
        for name in list(getattr(self, "jobs", ())):
            self._cancel(name)
        for run in [run for runs in getattr(self, "started", {}).values() for run in runs]:
            run.end()
        for thread in getattr(self, "_threads", ()):
            thread.join(20)

    @rpc(SERVICE)
    def CreateCustomJob(self, request: job_service.CreateCustomJobRequest) -> types.CustomJob:
        self._require(request.custom_job.display_name, "custom_job.display_name")
        self._require(request.custom_job.job_spec.worker_pool_specs, "custom_job.job_spec.worker_pool_specs")
        return self._begin(request.parent, "customJobs", request.custom_job, self._run_custom)

    @rpc(SERVICE)
    def GetCustomJob(self, request: job_service.GetCustomJobRequest) -> types.CustomJob:
        return self._job(request.name)

    @rpc(SERVICE)
    def ListCustomJobs(self, request: job_service.ListCustomJobsRequest) -> job_service.ListCustomJobsResponse:
        return job_service.ListCustomJobsResponse(custom_jobs=self._listed(request, "customJobs"))

    @rpc(SERVICE)
    def CancelCustomJob(self, request: job_service.CancelCustomJobRequest) -> empty_pb2.Empty:
        return self._cancel(request.name)

    @rpc(SERVICE)
    def CreateHyperparameterTuningJob(
        self, request: job_service.CreateHyperparameterTuningJobRequest
    ) -> types.HyperparameterTuningJob:
        job = request.hyperparameter_tuning_job
        self._require(job.display_name, "display_name")
        self._require(job.study_spec.metrics, "study_spec.metrics")
        self._require(job.max_trial_count and job.parallel_trial_count, "max_trial_count and parallel_trial_count")
        return self._begin(request.parent, "hyperparameterTuningJobs", job, self._run_tuning)

    @rpc(SERVICE)
    def GetHyperparameterTuningJob(
        self, request: job_service.GetHyperparameterTuningJobRequest
    ) -> types.HyperparameterTuningJob:
        return self._job(request.name)

    @rpc(SERVICE)
    def ListHyperparameterTuningJobs(
        self, request: job_service.ListHyperparameterTuningJobsRequest
    ) -> job_service.ListHyperparameterTuningJobsResponse:
        found = self._listed(request, "hyperparameterTuningJobs")
        return job_service.ListHyperparameterTuningJobsResponse(hyperparameter_tuning_jobs=found)

    @rpc(SERVICE)
    def CancelHyperparameterTuningJob(
        self, request: job_service.CancelHyperparameterTuningJobRequest
    ) -> empty_pb2.Empty:
        return self._cancel(request.name)

    @rpc(SERVICE)
    def CreateBatchPredictionJob(
        self, request: job_service.CreateBatchPredictionJobRequest
    ) -> types.BatchPredictionJob:
        job = request.batch_prediction_job
        self._require(job.display_name, "display_name")
        self.model(job.model)  # type: ignore[attr-defined]
        return self._begin(request.parent, "batchPredictionJobs", job, self._run_batch)

    @rpc(SERVICE)
    def GetBatchPredictionJob(self, request: job_service.GetBatchPredictionJobRequest) -> types.BatchPredictionJob:
        return self._job(request.name)

    @rpc(SERVICE)
    def ListBatchPredictionJobs(
        self, request: job_service.ListBatchPredictionJobsRequest
    ) -> job_service.ListBatchPredictionJobsResponse:
        found = self._listed(request, "batchPredictionJobs")
        return job_service.ListBatchPredictionJobsResponse(batch_prediction_jobs=found)

    @rpc(SERVICE)
    def CancelBatchPredictionJob(self, request: job_service.CancelBatchPredictionJobRequest) -> empty_pb2.Empty:
        return self._cancel(request.name)

    def wait(self, name: str, timeout_s: float = 300) -> Any:
        """The job once it has ended, for tests."""
        thread = next(thread for thread in self._threads if thread.name == name)
        thread.join(timeout_s)
        assert not thread.is_alive(), f"{name} still runs after {timeout_s:g} s"
        return self._job(name)

    def _require(self, value: Any, name: str) -> None:
        if not value:
            raise ApiError(400, f"Required field is not set: {name}")

    def _job(self, name: str) -> Any:
        with self.lock:
            if name not in self.jobs:
                raise ApiError(404, f"{name} is not found.")
            return type(self.jobs[name]).deserialize(type(self.jobs[name]).serialize(self.jobs[name]))  # as it is now

    def _listed(self, request: Any, kind: str) -> list[Any]:
        """The filter knows display_name="…" alone; anything else is refused rather than passed over."""
        wanted = re.fullmatch(r'(?:display_name="([^"]*)")?', request.filter)
        if not wanted:
            raise ApiError(400, f"the local server does not know this filter: {request.filter}")
        with self.lock:
            found = [job for name, job in self.jobs.items() if name.startswith(f"{request.parent}/{kind}/")]
        return [job for job in found if wanted[1] is None or job.display_name == wanted[1]]

    def _begin(self, parent: str, kind: str, job: Any, run: Callable[[Any], Outcome]) -> Any:
        job.name = f"{parent}/{kind}/{self.number()}"  # type: ignore[attr-defined]
        job.state, job.create_time, job.update_time = JobState.JOB_STATE_PENDING, now(), now()
        with self.lock:
            self.jobs[job.name] = job
            self.started[job.name] = []
        thread = threading.Thread(target=self._live, args=(job, run), name=job.name, daemon=True)
        self._threads.append(thread)
        answer = self._job(job.name)
        thread.start()
        return answer

    def _live(self, job: Any, run: Callable[[Any], Outcome]) -> None:
        while self.held.is_set() and job.state == JobState.JOB_STATE_PENDING:
            threading.Event().wait(0.02)
        with self.lock:
            if job.state == JobState.JOB_STATE_CANCELLING:
                self._end(job, JobState.JOB_STATE_CANCELLED)
                return
            job.state, job.start_time = JobState.JOB_STATE_RUNNING, now()
        try:
            outcome = run(job)
        except Exception as error:  # noqa: BLE001, a fault of the server itself must not leave the job running for ever
            outcome = Outcome(13, f"internal error of the local server: {error!r}")
        with self.lock:
            if job.state == JobState.JOB_STATE_CANCELLING:
                self._end(job, JobState.JOB_STATE_CANCELLED)
            elif outcome.code:
                job.error = {"code": outcome.code, "message": outcome.message}
                self._end(job, JobState.JOB_STATE_FAILED)
            else:
                self._end(job, JobState.JOB_STATE_SUCCEEDED)

    def _end(self, job: Any, state: JobState) -> None:
        job.state, job.end_time, job.update_time = state, now(), now()

    def _cancel(self, name: str) -> empty_pb2.Empty:
        self._job(name)
        with self.lock:
            if self.jobs[name].state not in ENDED:
                self.jobs[name].state = JobState.JOB_STATE_CANCELLING
            runs = list(self.started[name])
        for run in runs:
            run.end()
        return empty_pb2.Empty()

    def _run_custom(self, job: types.CustomJob) -> Outcome:
        return self._run(job, job.job_spec)

    def _run(self, job: Any, spec: Any, trial: str = "", metric_file: Path | None = None) -> Outcome:
        """One custom job or trial, ended after scheduling.timeout (7 days where none is set)."""
        _, project, _, region, _, job_id = job.name.split("/")
        house = self.house
        run = Run(
            job_id if not trial else f"{job_id}_{trial}",
            spec,
            spec.base_output_directory.output_uri_prefix,
            project,
            region,
            self.read_object,  # type: ignore[attr-defined]
            lambda task, line: self.write_log(job_id, task, line, trial),  # type: ignore[attr-defined]
            house.environment,
            trial,
            metric_file,
        )
        with self.lock:
            self.started[job.name].append(run)
        limit = spec.scheduling.timeout.total_seconds() if spec.scheduling.timeout else 7 * 86_400
        late = threading.Event()

        def too_long() -> None:
            late.set()
            run.end()

        timer = threading.Timer(limit, too_long)
        timer.start()
        try:
            outcome = run.run()
        finally:
            timer.cancel()
        return Outcome(4, f"The job ran for longer than its timeout of {limit:g}s.") if late.is_set() else outcome

    def _run_tuning(self, job: types.HyperparameterTuningJob) -> Outcome:
        """Trials one after the other; parameters by a seeded random search, the first at the ranges' middle."""
        metric, failed, generator = job.study_spec.metrics[0], 0, random.Random(0)
        for number in range(1, job.max_trial_count + 1):
            if job.state == JobState.JOB_STATE_CANCELLING:
                break
            chosen = {p.parameter_id: _chosen(p, generator, number == 1) for p in job.study_spec.parameters}
            spec = types.CustomJobSpec.deserialize(types.CustomJobSpec.serialize(job.trial_job_spec))
            for pool in spec.worker_pool_specs:
                part = pool.container_spec if pool.container_spec.image_uri else pool.python_package_spec
                part.args.extend(f"--{name}={value}" for name, value in chosen.items())
            trial = types.Trial(
                id=str(number),
                state=types.Trial.State.ACTIVE,
                parameters=[{"parameter_id": name, "value": value} for name, value in chosen.items()],
                start_time=now(),
            )
            with self.lock:
                job.trials.append(trial)
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "output.metrics"
                outcome = self._run(job, spec, str(number), path)
                measured = _measurements(path, metric.metric_id)
            with self.lock:
                trial = job.trials[-1]
                trial.end_time, trial.measurements = now(), measured
                good = not outcome.code and measured
                trial.state = types.Trial.State.SUCCEEDED if good else types.Trial.State.INFEASIBLE
                if good:
                    trial.final_measurement = measured[-1]
                else:
                    trial.infeasible_reason = outcome.message or f"no measurement of {metric.metric_id}"
            failed += not good
            if failed > max(job.max_failed_trial_count, 0):
                return Outcome(3, f"too many trials failed; the last one: {trial.infeasible_reason}")
        return Outcome()

    def _run_batch(self, job: types.BatchPredictionJob) -> Outcome:
        return predict_files(self, job)


def _chosen(parameter: Any, generator: random.Random, middle: bool) -> float | int:
    kind = type(parameter).pb(parameter).WhichOneof("parameter_value_spec")
    found = getattr(parameter, kind)
    share = 0.5 if middle else generator.random()
    value = found.min_value + share * (found.max_value - found.min_value)
    return round(value) if kind == "integer_value_spec" else value


def _measurements(path: Path, metric_id: str) -> list[types.Measurement]:
    """What the trial wrote for cloudml-hypertune's reader: JSON lines with a metric's id as a key."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        types.Measurement(
            step_count=int(line["global_step"]),
            metrics=[{"metric_id": metric_id, "value": float(line[metric_id])}],
        )
        for line in lines
        if metric_id in line
    ]
