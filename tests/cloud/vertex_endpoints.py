"""Vertex AI's EndpointService and PredictionService: models deployed as processes, traffic split between them."""

from __future__ import annotations

import random
import re
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.types import endpoint_service, prediction_service
from google.longrunning import operations_pb2
from google.protobuf import json_format

from tests.cloud.service import ApiError, Service
from tests.cloud.transcoding import rpc
from tests.cloud.vertex_jobs import now
from tests.cloud.vertex_serving import Served

SERVICE = "google.cloud.aiplatform.v1.EndpointService"
PREDICTION = "google.cloud.aiplatform.v1.PredictionService"


class Endpoints(Service):
    """`endpoints` by name; `served`: the running containers by deployed model id."""

    endpoints: dict[str, types.Endpoint]
    served: dict[str, Served]

    def reset_endpoints(self) -> None:
        self.endpoints, self.served, self._random = {}, {}, random.Random(0)

    def close_endpoints(self) -> None:
        for served in getattr(self, "served", {}).values():
            served.end()

    @rpc(SERVICE)
    def CreateEndpoint(self, request: endpoint_service.CreateEndpointRequest) -> operations_pb2.Operation:
        endpoint = request.endpoint
        if not endpoint.display_name:
            raise ApiError(400, "Required field is not set: endpoint.display_name")
        endpoint.name = f"{request.parent}/endpoints/{request.endpoint_id or self.number()}"  # type: ignore[attr-defined]
        if endpoint.name in self.endpoints:
            raise ApiError(409, f"The Endpoint {endpoint.name} already exists.")
        endpoint.create_time = endpoint.update_time = now()
        self.endpoints[endpoint.name] = endpoint
        return self._operation(endpoint.name, endpoint, endpoint_service.CreateEndpointOperationMetadata())

    @rpc(SERVICE)
    def GetEndpoint(self, request: endpoint_service.GetEndpointRequest) -> types.Endpoint:
        return self._endpoint(request.name)

    @rpc(SERVICE)
    def ListEndpoints(self, request: endpoint_service.ListEndpointsRequest) -> endpoint_service.ListEndpointsResponse:
        wanted = re.fullmatch(r'(?:display_name="([^"]*)")?', request.filter)
        if not wanted:
            raise ApiError(400, f"the local server does not know this filter: {request.filter}")
        found = [e for name, e in self.endpoints.items() if name.startswith(f"{request.parent}/")]
        named = [e for e in found if wanted[1] is None or e.display_name == wanted[1]]
        return endpoint_service.ListEndpointsResponse(endpoints=named)

    @rpc(SERVICE)
    def DeployModel(self, request: endpoint_service.DeployModelRequest) -> operations_pb2.Operation:
        endpoint = self._endpoint(request.endpoint)
        deployed = request.deployed_model
        model = self.model(deployed.model)  # type: ignore[attr-defined]
        if not deployed.dedicated_resources.machine_spec.machine_type:
            raise ApiError(
                400, "Required field is not set: deployed_model.dedicated_resources.machine_spec.machine_type"
            )
        number = deployed.id or self.number()  # type: ignore[attr-defined]
        split = {number if key == "0" else key: share for key, share in request.traffic_split.items()}
        if split:
            self._check_split(split, {number, *(found.id for found in endpoint.deployed_models)})

        def work() -> endpoint_service.DeployModelResponse:
            names = {"AIP_ENDPOINT_ID": endpoint.name.rpartition("/")[2], "AIP_DEPLOYED_MODEL_ID": number}
            served = Served(
                model, self.house.environment, lambda line: self.write_log(number, "serving", line), **names
            )  # type: ignore[attr-defined]
            with self.lock:
                deployed.id, deployed.create_time = number, now()
                deployed.model, deployed.model_version_id = model.name, model.version_id
                self.served[number] = served
                endpoint.deployed_models.append(deployed)
                if split:
                    endpoint.traffic_split = split
                elif len(endpoint.deployed_models) == 1:
                    endpoint.traffic_split = {number: 100}
            return endpoint_service.DeployModelResponse(deployed_model=deployed)

        return self._operation(endpoint.name, work, endpoint_service.DeployModelOperationMetadata())

    @rpc(SERVICE)
    def UndeployModel(self, request: endpoint_service.UndeployModelRequest) -> operations_pb2.Operation:
        endpoint = self._endpoint(request.endpoint)
        left = [found for found in endpoint.deployed_models if found.id != request.deployed_model_id]
        if len(left) == len(endpoint.deployed_models):
            raise ApiError(404, f"No deployed model {request.deployed_model_id} at {endpoint.name}.")
        split = dict(request.traffic_split) or {k: v for k, v in endpoint.traffic_split.items() if v}
        if left:
            self._check_split(split, {found.id for found in left})
        with self.lock:
            self.served.pop(request.deployed_model_id).end()
            endpoint.deployed_models = left
            endpoint.traffic_split = split if left else {}
        answer = endpoint_service.UndeployModelResponse()
        return self._operation(endpoint.name, answer, endpoint_service.UndeployModelOperationMetadata())

    @rpc(SERVICE)
    def UpdateEndpoint(self, request: endpoint_service.UpdateEndpointRequest) -> types.Endpoint:
        endpoint, paths = self._endpoint(request.endpoint.name), set(request.update_mask.paths)
        if not paths or paths - {"traffic_split", "trafficSplit", "labels", "display_name", "description"}:
            raise ApiError(400, f"the local server updates no {', '.join(sorted(paths)) or 'field without a mask'}")
        with self.lock:
            if paths & {"traffic_split", "trafficSplit"}:
                split = dict(request.endpoint.traffic_split)
                self._check_split(split, {found.id for found in endpoint.deployed_models})
                endpoint.traffic_split = split
            for path in paths & {"labels", "display_name", "description"}:
                setattr(endpoint, path, getattr(request.endpoint, path))
            endpoint.update_time = now()
        return endpoint

    @rpc(PREDICTION)
    def Predict(self, request: prediction_service.PredictRequest) -> prediction_service.PredictResponse:
        endpoint = self._endpoint(request.endpoint)
        if not endpoint.traffic_split:
            raise ApiError(400, f"No model is deployed at {endpoint.name}.")
        split = dict(endpoint.traffic_split)
        number = self._random.choices(list(split), weights=list(split.values()))[0]
        deployed = next(found for found in endpoint.deployed_models if found.id == number)
        asked = json_format.MessageToDict(type(request).pb(request))
        body = {key: asked[key] for key in ("instances", "parameters") if key in asked}
        answer = prediction_service.PredictResponse(
            deployed_model_id=number,
            model=deployed.model,
            model_version_id=deployed.model_version_id,
            model_display_name=deployed.display_name,
        )
        json_format.ParseDict({"predictions": self.served[number].ask(body)["predictions"]}, type(answer).pb(answer))
        return answer

    def _endpoint(self, name: str) -> types.Endpoint:
        if name not in self.endpoints:
            raise ApiError(404, f"The Endpoint {name} does not exist.")
        return self.endpoints[name]

    def _check_split(self, split: dict[str, int], known: set[str]) -> None:
        if set(split) - known:
            raise ApiError(400, f"Traffic split names {sorted(set(split) - known)[0]}, which is not deployed.")
        if sum(split.values()) != 100:
            raise ApiError(400, f"Traffic split must sum to 100, got {sum(split.values())}.")

    def _operation(self, parent: str, answer: Any, metadata: Any) -> operations_pb2.Operation:
        return self.long_running(parent, answer, metadata)  # type: ignore[attr-defined,no-any-return]
