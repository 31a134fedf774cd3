"""Vertex AI's MetadataService, as far as experiments need it: stores, contexts in the system's schemas, their children.

What is refused: cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.metadataStores.contexts.
The words of an etag's error are those that Google's client looks for.
"""

from __future__ import annotations

import re

from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.types import metadata_service
from google.longrunning import operations_pb2

from tests.cloud.service import ApiError, Service
from tests.cloud.transcoding import rpc
from tests.cloud.vertex_jobs import now

SERVICE = "google.cloud.aiplatform.v1.MetadataService"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_SCHEMAS = {"system.Experiment", "system.ExperimentRun", "system.Pipeline", "system.PipelineRun"}  # all of 0.0.1
_MOST_PARENTS = 10


class Metadata(Service):
    """`stores` and `contexts` by name; a context's parent_contexts say what it is a child of."""

    stores: dict[str, types.MetadataStore]
    contexts: dict[str, types.Context]

    def reset_metadata(self) -> None:
        self.stores, self.contexts, self._etag = {}, {}, 1_790_000_000_000

    @rpc(SERVICE)
    def CreateMetadataStore(self, request: metadata_service.CreateMetadataStoreRequest) -> operations_pb2.Operation:
        made, name = request.metadata_store, f"{request.parent}/metadataStores/{request.metadata_store_id}"
        self._check_id(request.metadata_store_id)
        if name in self.stores:
            raise ApiError(409, f"MetadataStore {name} already exists.")
        made.name, made.create_time = name, now()
        self.stores[name] = made
        return self.long_running(request.parent, made, metadata_service.CreateMetadataStoreOperationMetadata())  # type: ignore[attr-defined]

    @rpc(SERVICE)
    def GetMetadataStore(self, request: metadata_service.GetMetadataStoreRequest) -> types.MetadataStore:
        return self._store(request.name)

    @rpc(SERVICE)
    def CreateContext(self, request: metadata_service.CreateContextRequest) -> types.Context:
        self._store(request.parent)
        self._check_id(request.context_id)
        context = request.context
        if context.schema_title not in _SCHEMAS or context.schema_version not in ("", "0.0.1"):
            raise ApiError(
                400, f"Metadata schema {context.schema_title!r} {context.schema_version!r} was not found in the store."
            )
        context.name = f"{request.parent}/contexts/{request.context_id}"
        with self.lock:
            if context.name in self.contexts:
                raise ApiError(409, f"Context with name {context.name} already exists")
            context.create_time = now()
            return self._kept(context)

    @rpc(SERVICE)
    def GetContext(self, request: metadata_service.GetContextRequest) -> types.Context:
        return self._context(request.name)

    @rpc(SERVICE)
    def UpdateContext(self, request: metadata_service.UpdateContextRequest) -> types.Context:
        given = request.context
        with self.lock:
            held = self._context(given.name)
            if given.etag and given.etag != held.etag:
                raise ApiError(
                    409,
                    f"Specified Context `etag`: `{given.etag}` does not match server `etag`: `{held.etag}`",
                    status="ABORTED",
                )
            if (given.schema_title, given.schema_version) != (held.schema_title, held.schema_version):
                raise ApiError(400, f"Context {given.name}: its schema cannot be changed.")
            given.create_time, given.parent_contexts = held.create_time, held.parent_contexts
            return self._kept(given)

    @rpc(SERVICE)
    def AddContextChildren(
        self, request: metadata_service.AddContextChildrenRequest
    ) -> metadata_service.AddContextChildrenResponse:
        with self.lock:
            parent = self._context(request.context)
            for child in map(self._context, request.child_contexts):
                if child.name in (parent.name, *parent.parent_contexts):
                    raise ApiError(400, f"Context {child.name} below {parent.name} would make a cycle.")
                if parent.name in child.parent_contexts:
                    continue
                if len(child.parent_contexts) == _MOST_PARENTS:
                    raise ApiError(400, f"Context {child.name} would have more than {_MOST_PARENTS} parents.")
                child.parent_contexts.append(parent.name)
                self._kept(child)
        return metadata_service.AddContextChildrenResponse()

    @rpc(SERVICE)
    def GetArtifact(self, request: metadata_service.GetArtifactRequest) -> types.Artifact:
        """There is none here: no run has a TensorBoard."""
        raise ApiError(404, f"Artifact {request.name} was not found.")

    @rpc(SERVICE)
    def GetExecution(self, request: metadata_service.GetExecutionRequest) -> types.Execution:
        """There is none here: such runs were made before 2022."""
        raise ApiError(404, f"Execution {request.name} was not found.")

    def _check_id(self, given: str) -> None:
        if not _ID.fullmatch(given):
            raise ApiError(400, f"Resource id {given!r} is invalid; it must match {_ID.pattern}")

    def _store(self, name: str) -> types.MetadataStore:
        if name not in self.stores:
            raise ApiError(404, f"MetadataStore {name} was not found.")
        return self.stores[name]

    def _context(self, name: str) -> types.Context:
        if name not in self.contexts:
            raise ApiError(404, f"Context {name} was not found.")
        return types.Context(self.contexts[name])

    def _kept(self, context: types.Context) -> types.Context:
        self._etag += 1
        context.etag, context.update_time = str(self._etag), now()
        self.contexts[context.name] = types.Context(context)
        return context
