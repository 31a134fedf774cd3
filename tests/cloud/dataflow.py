"""Dataflow: takes jobs from Beam's DataflowRunner, checks them, and runs the staged pipeline as a process.

Speaks gRPC and REST v1b3 of JobsV1Beta3, MessagesV1Beta3, MetricsV1Beta3 and FlexTemplatesService. It proves what is
submitted and staged; it spreads no work and pulls no image.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from google.cloud import dataflow_v1beta3 as api
from google.protobuf import json_format

from tests.cloud.dataflow_run import Run
from tests.cloud.service import ApiError
from tests.cloud.storage import Storage
from tests.cloud.transcoding import TranscodingService, rpc

if TYPE_CHECKING:
    from apache_beam.portability.api import beam_runner_api_pb2

V1B3 = "google.dataflow.v1beta3"
_TRANSPORTS = "google.cloud.dataflow_v1beta3.services.{}.transports.rest_base"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # the Job resource's documentation
_URL_ARTIFACT = "beam:artifact:type:url:v1"


class Dataflow(TranscodingService):
    """`jobs`: what was submitted, by id, with its present state; `pipelines`: the staged pipeline's proto, by job id;
    `launches`: flex template requests. Where `runs` is False a job is done without being run.
    """

    name = "dataflow"
    hosts = ("dataflow.googleapis.com",)
    grpc_services = tuple(
        f"{V1B3}.{name}" for name in ("JobsV1Beta3", "MessagesV1Beta3", "MetricsV1Beta3", "FlexTemplatesService")
    )
    transports: ClassVar[dict[str, str]] = {
        f"{V1B3}.JobsV1Beta3": _TRANSPORTS.format("jobs_v1_beta3"),
        f"{V1B3}.MessagesV1Beta3": _TRANSPORTS.format("messages_v1_beta3"),
        f"{V1B3}.MetricsV1Beta3": _TRANSPORTS.format("metrics_v1_beta3"),
        f"{V1B3}.FlexTemplatesService": _TRANSPORTS.format("flex_templates_service"),
    }

    def reset(self) -> None:
        super().reset()
        self.close()
        self.regions = {"us-central1", "europe-west4"}
        self.runs = True
        self.jobs: dict[str, api.Job] = {}
        self.pipelines: dict[str, beam_runner_api_pb2.Pipeline] = {}
        self.launches: list[api.LaunchFlexTemplateRequest] = []
        self._running: dict[str, Run] = {}

    def close(self) -> None:
        for run in getattr(self, "_running", {}).values():
            run.cancel()

    @rpc(f"{V1B3}.JobsV1Beta3")
    def CreateJob(self, request: api.CreateJobRequest) -> api.Job:
        job = self._accepted(request.project_id, request.location, request.job)
        pipeline = self._staged_pipeline(job)
        if self.runs:
            job.current_state = api.JobState.JOB_STATE_RUNNING
            packages = [p.name for pool in job.environment.worker_pools for p in pool.packages]
            options = json_format.MessageToDict(api.Job.pb(job).environment.sdk_pipeline_options).get("options", {})
            self._running[job.id] = Run(self.house, options, [n for n in packages if n.endswith((".tar.gz", ".whl"))])
        else:
            job.current_state = api.JobState.JOB_STATE_DONE
        self.jobs[job.id], self.pipelines[job.id] = job, pipeline
        return job

    @rpc(f"{V1B3}.JobsV1Beta3")
    def GetJob(self, request: api.GetJobRequest) -> api.Job:
        job = self._known(request.job_id)
        if (run := self._running.get(job.id)) and job.current_state == api.JobState.JOB_STATE_RUNNING:
            code = run.returncode
            if code is not None:
                job.current_state = api.JobState.JOB_STATE_FAILED if code else api.JobState.JOB_STATE_DONE
                job.current_state_time = dt.datetime.now(dt.UTC)
        return job

    @rpc(f"{V1B3}.JobsV1Beta3")
    def UpdateJob(self, request: api.UpdateJobRequest) -> api.Job:
        job = self._known(request.job_id)
        if request.job.requested_state != api.JobState.JOB_STATE_CANCELLED:
            raise ApiError(400, f"The local server cannot bring a job to {request.job.requested_state.name}.")
        if job.id in self._running:
            self._running[job.id].cancel()
        job.current_state = api.JobState.JOB_STATE_CANCELLED
        return job

    @rpc(f"{V1B3}.JobsV1Beta3")
    def ListJobs(self, request: api.ListJobsRequest) -> api.ListJobsResponse:
        found = [j for j in self.jobs.values() if (j.project_id, j.location) == (request.project_id, request.location)]
        return api.ListJobsResponse(jobs=[self.GetJob(api.GetJobRequest(job_id=j.id)) for j in found])

    @rpc(f"{V1B3}.MessagesV1Beta3")
    def ListJobMessages(self, request: api.ListJobMessagesRequest) -> api.ListJobMessagesResponse:
        """What the run said: its last lines as an error where it failed."""
        run = self._running.get(self._known(request.job_id).id)
        importance = api.JobMessageImportance
        messages = [] if run is None else run.messages(importance.JOB_MESSAGE_BASIC, importance.JOB_MESSAGE_ERROR)
        return api.ListJobMessagesResponse(
            job_messages=[
                api.JobMessage(id=f"{n:09d}", time=when, message_text=text, message_importance=kind)
                for n, (when, kind, text) in enumerate(messages)
                if kind >= request.minimum_importance and (not request.start_time or when >= request.start_time)
            ]
        )

    @rpc(f"{V1B3}.MetricsV1Beta3")
    def GetJobMetrics(self, request: api.GetJobMetricsRequest) -> api.JobMetrics:
        """None: no counter of ours is read from Dataflow."""
        self._known(request.job_id)
        return api.JobMetrics(metric_time=dt.datetime.now(dt.UTC))

    @rpc(f"{V1B3}.FlexTemplatesService")
    def LaunchFlexTemplate(self, request: api.LaunchFlexTemplateRequest) -> api.LaunchFlexTemplateResponse:
        """Checks the launch against the template's metadata on gs://, and records it; the image is not run."""
        wanted = request.launch_parameter
        spec = json.loads(self._object(wanted.container_spec_gcs_path))
        for field in ("image", "sdkInfo", "metadata"):
            if field not in spec:
                raise ApiError(400, f"Template file {wanted.container_spec_gcs_path}: {field} is missing.")
        check_parameters(spec["metadata"].get("parameters", []), dict(wanted.parameters))
        job = self._accepted(request.project_id, request.location, api.Job(name=wanted.job_name))
        if not request.validate_only:
            self.launches.append(request)
            job.current_state = api.JobState.JOB_STATE_DONE
            self.jobs[job.id] = job
        return api.LaunchFlexTemplateResponse(job=job)

    def _accepted(self, project: str, region: str, wanted: api.Job) -> api.Job:
        if not _NAME.fullmatch(wanted.name):
            raise ApiError(400, f"(local): The workflow could not be created. Invalid job name: {wanted.name!r}.")
        if region not in self.regions:
            raise ApiError(400, f"Unexpected location: {region}. Valid ones: {sorted(self.regions)}")
        jobs = [self.GetJob(api.GetJobRequest(job_id=i)) for i, job in self.jobs.items() if job.name == wanted.name]
        if any(job.current_state == api.JobState.JOB_STATE_RUNNING for job in jobs):
            raise ApiError(409, f"The workflow could not be created. {wanted.name} is already active.")
        job = api.Job(wanted)
        job.id = f"{dt.datetime.now(dt.UTC):%Y-%m-%d_%H_%M_%S}-{len(self.jobs) + 1}"
        job.project_id, job.location = project, region
        job.create_time = job.current_state_time = dt.datetime.now(dt.UTC)
        return job

    def _staged_pipeline(self, job: api.Job) -> beam_runner_api_pb2.Pipeline:
        """The pipeline that the job names; every package and artifact that it needs must lie where it says, whole."""
        from apache_beam.portability.api import beam_runner_api_pb2  # all of Beam: only for whoever submits to it

        options = json_format.MessageToDict(api.Job.pb(job).environment.sdk_pipeline_options).get("options", {})
        pipeline = beam_runner_api_pb2.Pipeline.FromString(self._object(options["pipelineUrl"]))
        for pool in job.environment.worker_pools:
            for package in pool.packages:
                self._object("gs://" + package.location.removeprefix("storage.googleapis.com/"))
        for environment in pipeline.components.environments.values():
            for artifact in environment.dependencies:
                if artifact.type_urn != _URL_ARTIFACT:
                    raise ApiError(400, f"artifact {artifact.type_urn} is not on Cloud Storage")
                where = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload)
                if hashlib.sha256(self._object(where.url)).hexdigest() != where.sha256:
                    raise ApiError(400, f"{where.url}: not the file that was to be staged")
        return pipeline

    def _object(self, url: str) -> bytes:
        bucket, _, name = url.removeprefix("gs://").partition("/")
        found = self.house.service(Storage).buckets.get(bucket)
        if found is None or name not in found.objects:
            raise ApiError(400, f"Unable to open file: {url}.")
        return found.objects[name].data

    def _known(self, identity: str) -> api.Job:
        if identity not in self.jobs:
            raise ApiError(404, f"Information about job {identity} could not be found in our system.")
        return self.jobs[identity]


def check_parameters(known: list[dict[str, Any]], given: dict[str, str]) -> None:
    """Flex template parameters against the metadata: none unknown, none missing, each as its regexes say."""
    by_name = {parameter["name"]: parameter for parameter in known}
    problems = [f"{name}: unknown parameter" for name in given if name not in by_name]
    problems += [f"{n}: missing" for n, p in by_name.items() if not p.get("isOptional") and n not in given]
    problems += [
        f"{name}: {value!r} does not match {regex}"
        for name, value in given.items()
        for regex in by_name.get(name, {}).get("regexes", ())
        if not re.fullmatch(regex, value)
    ]
    if problems:
        raise ApiError(400, f"The template parameters are invalid. Details: {'; '.join(problems)}")
