"""Vertex AI: jobs that run as processes, a model registry, endpoints whose models are served by our own server.

Speaks gRPC and REST v1 of JobService, ModelService, EndpointService, PredictionService and MetadataService. It proves
what clients send and how they take the answers; it knows no IAM, no quota, no image and no machine but this one.
"""

from __future__ import annotations

import re
import threading
from typing import Any, ClassVar

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from tests.cloud.cloud_logging import Logging
from tests.cloud.service import ApiError, Request, route
from tests.cloud.transcoding import TranscodingService, rpc
from tests.cloud.vertex_endpoints import Endpoints
from tests.cloud.vertex_jobs import Jobs
from tests.cloud.vertex_metadata import Metadata
from tests.cloud.vertex_models import Models

V1 = "google.cloud.aiplatform.v1"
_TRANSPORTS = "google.cloud.aiplatform_v1.services.{}.transports.rest_base"
_LOCATION = re.compile(r"projects/[\w-]+/locations/([\w-]+)")


class Vertex(Jobs, Models, Endpoints, Metadata, TranscodingService):
    """State: `jobs` (any kind, by name), `models` (versions by model name), `endpoints`, `evaluations`, `operations`,
    `stores` and `contexts`.

    regions: where there is such a service; a request for another is refused, as is one at another region's host.
    """

    name = "vertex"
    hosts = ("*-aiplatform.googleapis.com", "aiplatform.googleapis.com")
    grpc_services = (
        f"{V1}.JobService",
        f"{V1}.ModelService",
        f"{V1}.EndpointService",
        f"{V1}.PredictionService",
        f"{V1}.MetadataService",
        "google.longrunning.Operations",
    )
    transports: ClassVar[dict[str, str]] = {
        f"{V1}.{name}": _TRANSPORTS.format(module)
        for name, module in (
            ("JobService", "job_service"),
            ("ModelService", "model_service"),
            ("EndpointService", "endpoint_service"),
            ("PredictionService", "prediction_service"),
            ("MetadataService", "metadata_service"),
        )
    }

    def reset(self) -> None:
        super().reset()
        self.close()
        self.regions = {"us-central1", "europe-west4"}
        self.operations: dict[str, operations_pb2.Operation] = {}
        self._numbers = 0
        self.reset_jobs()
        self.reset_models()
        self.reset_endpoints()
        self.reset_metadata()

    def close(self) -> None:
        self.close_jobs()
        self.close_endpoints()

    def number(self) -> str:
        """An id as the service makes them, new each time."""
        with self.lock:
            self._numbers += 1
            return str(1_000_000_000_000 + self._numbers)

    def check(self, host: str, message: Message) -> None:
        served = re.fullmatch(r"([\w-]+)-aiplatform\.googleapis\.com", host)
        for region in set(_LOCATION.findall(str(message))):
            if region not in self.regions:
                raise ApiError(400, f"Location {region} is not found or access is unauthorized.")
            if served and served[1] != region:
                raise ApiError(400, f"The request names {region}, but this endpoint serves {served[1]}.")

    @rpc("google.longrunning.Operations")
    def GetOperation(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        with self.lock:
            if request.name not in self.operations:
                raise ApiError(404, f"Operation {request.name} does not exist")
            return self.operations[request.name]

    @route("GET", "/v1/{name:path}/operations/{number}")
    def get_operation(self, request: Request, name: str, number: str) -> Any:
        from google.protobuf import json_format

        asked = operations_pb2.GetOperationRequest(name=f"{name}/operations/{number}")
        return json_format.MessageToDict(self.GetOperation(asked))

    def long_running(self, parent: str, answer: Any, metadata: Any) -> operations_pb2.Operation:
        """An operation below `parent`, done with `answer`, or under way where `answer` is a function: it then runs in a
        thread, and returns the answer or raises ApiError."""
        made = operations_pb2.Operation(name=f"{parent}/operations/{self.number()}")
        made.metadata.Pack(type(metadata).pb(metadata))
        with self.lock:
            self.operations[made.name] = made
        if callable(answer):
            threading.Thread(target=self._finish, args=(made, answer), daemon=True).start()
        else:
            self._done(made, answer)
        return made

    def write_log(self, job_id: str, task: str, line: str, trial: str = "") -> None:
        """A line of a job's container, to Cloud Logging."""
        logging = self.house.service(Logging)
        logging.write("local", {"job_id": job_id, "task_name": task} | ({"trial_id": trial} if trial else {}), line)

    def _finish(self, made: operations_pb2.Operation, answer: Any) -> None:
        try:
            self._done(made, answer())
        except ApiError as error:
            with self.lock:
                made.error.code, made.error.message, made.done = 3, error.message, True

    def _done(self, made: operations_pb2.Operation, answer: Any) -> None:
        with self.lock:
            made.response.Pack(type(answer).pb(answer))
            made.done = True
