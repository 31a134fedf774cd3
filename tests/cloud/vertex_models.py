"""Vertex AI's ModelService: models in versions with aliases, and what was measured of them."""

from __future__ import annotations

import re

from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.types import model_service
from google.longrunning import operations_pb2

from tests.cloud.service import ApiError, Service
from tests.cloud.storage import Storage
from tests.cloud.transcoding import rpc
from tests.cloud.vertex_jobs import now

SERVICE = "google.cloud.aiplatform.v1.ModelService"
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


class Models(Service):
    """`models`: the versions of each model, oldest first, by the model's name; `evaluations` by version name."""

    models: dict[str, list[types.Model]]
    evaluations: dict[str, list[types.ModelEvaluation]]

    def reset_models(self) -> None:
        self.models, self.evaluations = {}, {}

    @rpc(SERVICE)
    def UploadModel(self, request: model_service.UploadModelRequest) -> operations_pb2.Operation:
        model, bad = request.model, [a for a in request.model.version_aliases if not _ALIAS.fullmatch(a)]
        if not model.display_name:
            raise ApiError(400, "Required field is not set: model.display_name")
        if bad:
            raise ApiError(400, f"Version alias {bad[0]} is invalid; expected [a-z][a-zA-Z0-9-]{{0,126}}[a-z0-9]")
        if request.parent_model and request.parent_model not in self.models:
            raise ApiError(404, f"The Model {request.parent_model} does not exist.")
        name = request.parent_model or f"{request.parent}/models/{request.model_id or self.number()}"  # type: ignore[attr-defined]
        if not request.parent_model and name in self.models:
            raise ApiError(409, f"The Model {name} already exists.")

        def work() -> model_service.UploadModelResponse:
            if not self.objects_below(model.artifact_uri):
                raise ApiError(400, f"There is no object below the artifact URI {model.artifact_uri}.")
            with self.lock:
                versions = self.models.setdefault(name, [])
                model.name, model.version_id = name, str(len(versions) + 1)
                model.create_time = model.update_time = model.version_create_time = now()
                if not versions and "default" not in model.version_aliases:
                    model.version_aliases.append("default")
                for older in versions:  # an alias stands for one version only
                    older.version_aliases = [a for a in older.version_aliases if a not in model.version_aliases]
                versions.append(model)
            return model_service.UploadModelResponse(model=name, model_version_id=model.version_id)

        return self.long_running(request.parent, work, model_service.UploadModelOperationMetadata())  # type: ignore[attr-defined]

    @rpc(SERVICE)
    def GetModel(self, request: model_service.GetModelRequest) -> types.Model:
        return self.model(request.name)

    @rpc(SERVICE)
    def ListModels(self, request: model_service.ListModelsRequest) -> model_service.ListModelsResponse:
        found = [versions[-1] for name, versions in self.models.items() if name.startswith(f"{request.parent}/")]
        return model_service.ListModelsResponse(models=found)

    @rpc(SERVICE)
    def ListModelVersions(
        self, request: model_service.ListModelVersionsRequest
    ) -> model_service.ListModelVersionsResponse:
        if request.name not in self.models:
            raise ApiError(404, f"The Model {request.name} does not exist.")
        return model_service.ListModelVersionsResponse(models=self.models[request.name])

    @rpc(SERVICE)
    def MergeVersionAliases(self, request: model_service.MergeVersionAliasesRequest) -> types.Model:
        """An alias with - before it is taken away, another put here and taken from whichever version had it."""
        wanted = self.model(request.name)
        with self.lock:
            for alias in request.version_aliases:
                if alias.startswith("-"):
                    wanted.version_aliases = [a for a in wanted.version_aliases if a != alias[1:]]
                    continue
                for version in self.models[wanted.name]:
                    version.version_aliases = [a for a in version.version_aliases if a != alias]
                wanted.version_aliases.append(alias)
        return wanted

    @rpc(SERVICE)
    def ImportModelEvaluation(self, request: model_service.ImportModelEvaluationRequest) -> types.ModelEvaluation:
        version = self.model(request.parent)
        evaluation = request.model_evaluation
        if not evaluation.metrics_schema_uri.startswith("gs://google-cloud-aiplatform/schema/modelevaluation/"):
            raise ApiError(400, f"Unknown metrics schema {evaluation.metrics_schema_uri!r}")
        parent = f"{version.name}@{version.version_id}"
        evaluation.name = f"{version.name}/evaluations/{self.number()}"  # type: ignore[attr-defined]
        evaluation.create_time = now()
        with self.lock:
            self.evaluations.setdefault(parent, []).append(evaluation)
        return evaluation

    @rpc(SERVICE)
    def ListModelEvaluations(
        self, request: model_service.ListModelEvaluationsRequest
    ) -> model_service.ListModelEvaluationsResponse:
        version = self.model(request.parent)
        found = self.evaluations.get(f"{version.name}@{version.version_id}", [])
        return model_service.ListModelEvaluationsResponse(model_evaluations=found)

    def model(self, name: str) -> types.Model:
        """A version by …/models/ID (the default one), ID@version or ID@alias."""
        base, _, version = name.partition("@")
        with self.lock:
            for found in self.models.get(base, ()):
                if (version or "default") in (found.version_id, *found.version_aliases):
                    return found
        raise ApiError(404, f"The Model {name} does not exist.")

    def objects_below(self, uri: str) -> list[str]:
        """The gs:// names of the objects below a gs:// directory."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        storage = self.house.service(Storage)
        try:
            return [f"gs://{bucket}/{name}" for name in storage.names(bucket, prefix.rstrip("/") + "/")]
        except KeyError:
            return []

    def read_object(self, uri: str) -> bytes:
        """An object's bytes. Raises FileNotFoundError where there is none."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        try:
            return self.house.service(Storage).data(bucket, name)
        except (KeyError, ApiError):
            raise FileNotFoundError(uri) from None

    def write_object(self, uri: str, data: bytes) -> None:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self.house.service(Storage).put(bucket, name, data)
