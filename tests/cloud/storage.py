"""Cloud Storage's JSON API, and of the XML API the download, which TensorFlow uses.

Source: cloud.google.com/storage/docs/json_api/v1, cloud.google.com/storage/docs/xml-api/get-object-download
"""

from __future__ import annotations

from typing import Any

from tests.cloud.service import ApiError, Request, Response, answer, route
from tests.cloud.storage_batch import Batches
from tests.cloud.storage_objects import Bucket, StoredObject, check_preconditions, writable
from tests.cloud.storage_transfer import Transfers, content


class Storage(Batches, Transfers):
    """`buckets` is the state: {name: Bucket}, each with `.objects`: {name: StoredObject}.

    `make_bucket` and `put` fill it without a request; `names` and `data` read it.
    """

    name = "storage"
    hosts = ("storage.googleapis.com", "www.googleapis.com")

    def make_bucket(self, name: str, **fields: Any) -> Bucket:
        with self.lock:
            return self.buckets.setdefault(name, Bucket(name, "local-project", fields))

    def put(self, bucket: str, name: str, data: bytes) -> StoredObject:
        return self.store(StoredObject(bucket, name, data))

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(name for name in self.buckets[bucket].objects if name.startswith(prefix))

    def data(self, bucket: str, name: str) -> bytes:
        return self.buckets[bucket].objects[name].data

    @route("GET", "/storage/v1/b")
    def list_buckets(self, request: Request) -> dict[str, Any]:
        prefix = request.query.get("prefix", "")
        with self.lock:
            found = [b.resource(self.url) for name, b in sorted(self.buckets.items()) if name.startswith(prefix)]
        return {"kind": "storage#buckets"} | ({"items": found} if found else {})

    @route("POST", "/storage/v1/b")
    def insert_bucket(self, request: Request) -> dict[str, Any]:
        if "project" not in request.query:
            raise ApiError(400, "Required parameter: project", reason="required")
        fields = request.json()
        name = fields.pop("name", "")
        with self.lock:
            if name in self.buckets:
                raise ApiError(409, "The requested bucket name is not available: you already own it.")
            self.buckets[name] = Bucket(name, request.query["project"], fields)
            return self.buckets[name].resource(self.url)

    @route("GET", "/storage/v1/b/{bucket}")
    def get_bucket(self, request: Request, bucket: str) -> dict[str, Any]:
        return self.bucket(bucket).resource(self.url)

    @route("PATCH", "/storage/v1/b/{bucket}")
    def patch_bucket(self, request: Request, bucket: str) -> dict[str, Any]:
        found = self.bucket(bucket)
        found.fields |= request.json()
        found.metageneration += 1
        return found.resource(self.url)

    @route("DELETE", "/storage/v1/b/{bucket}")
    def delete_bucket(self, request: Request, bucket: str) -> Response:
        with self.lock:
            if self.bucket(bucket).objects:
                raise ApiError(409, "The bucket you tried to delete is not empty.")
            del self.buckets[bucket]
        return Response(204)

    @route("GET", "/storage/v1/b/{bucket}/storageLayout")
    def storage_layout(self, request: Request, bucket: str) -> dict[str, Any]:
        shown = self.bucket(bucket).resource(self.url)
        return {
            "kind": "storage#storageLayout",
            "bucket": bucket,
            "location": shown["location"],
            "locationType": shown["locationType"],
            "hierarchicalNamespace": {"enabled": False},
        }

    @route("GET", "/storage/v1/b/{bucket}/iam/testPermissions")
    def test_permissions(self, request: Request, bucket: str) -> dict[str, Any]:
        self.bucket(bucket)
        return {
            "kind": "storage#testIamPermissionsResponse",
            "permissions": request.query.get("permissions", "").split(","),
        }

    @route("GET", "/storage/v1/b/{bucket}/o")
    def list_objects(self, request: Request, bucket: str) -> dict[str, Any]:
        """Names and prefixes in one lexicographic order, by pages; the token is the last name or prefix given."""
        asked = request.query
        prefix, delimiter, after = asked.get("prefix", ""), asked.get("delimiter", ""), asked.get("pageToken", "")
        start, end = asked.get("startOffset", ""), asked.get("endOffset", "")
        most = min(int(asked.get("maxResults", 1000)), 1000)
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        with self.lock:
            objects = sorted(self.bucket(bucket).objects.items(), key=lambda pair: pair[0].encode())
        last = more = ""
        for name, found in objects:
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            group = prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else ""
            entry = group or name
            if entry <= after or (prefixes and prefixes[-1] == group):
                continue
            if len(items) + len(prefixes) == most:
                more = last
                break
            last = entry
            if group:
                prefixes.append(group)
            if not group or (name == group and asked.get("includeTrailingDelimiter") == "true"):
                items.append(found.resource(self.url))
        listed: dict[str, Any] = {"kind": "storage#objects"}
        listed |= {"items": items} if items else {}
        listed |= {"prefixes": prefixes} if prefixes else {}
        return listed | ({"nextPageToken": more} if more else {})

    @route("PATCH", "/storage/v1/b/{bucket}/o/{name}")
    @route("PUT", "/storage/v1/b/{bucket}/o/{name}")
    def change_object(self, request: Request, bucket: str, name: str) -> dict[str, Any]:
        with self.lock:
            found = self.object(request, bucket, name)
            check_preconditions(request, found)
            found.change(request.json(), whole=request.method == "PUT")
            return found.resource(self.url)

    @route("DELETE", "/storage/v1/b/{bucket}/o/{name}")
    def delete_object(self, request: Request, bucket: str, name: str) -> Response:
        with self.lock:
            check_preconditions(request, self.object(request, bucket, name))
            del self.buckets[bucket].objects[name]
        return Response(204)

    @route("POST", "/storage/v1/b/{bucket}/o/{name}/compose")
    def compose(self, request: Request, bucket: str, name: str) -> dict[str, Any]:
        wanted = request.json()
        sources = wanted.get("sourceObjects", [])
        if not 1 <= len(sources) <= 32:
            raise ApiError(400, f"The number of source components provided ({len(sources)}) is not between 1 and 32.")
        with self.lock:
            found = [self._existing(bucket, source["name"]) for source in sources]
            for source, part in zip(sources, found, strict=True):
                match = source.get("objectPreconditions", {}).get("ifGenerationMatch", source.get("generation"))
                if match is not None and int(match) != part.generation:
                    raise ApiError(412, "At least one of the pre-conditions you specified did not hold.")
            check_preconditions(request, self.bucket(bucket).objects.get(name))
            fields = writable(wanted.get("destination", {}))
            made = StoredObject(
                bucket, name, b"".join(p.data for p in found), fields, components=sum(p.components or 1 for p in found)
            )
            return self.store(made).resource(self.url)

    @route("POST", "/storage/v1/b/{bucket}/o/{name}/copyTo/b/{to_bucket}/o/{to_name}")
    def copy(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> dict[str, Any]:
        return self._copied(request, bucket, name, to_bucket, to_name).resource(self.url)

    @route("POST", "/storage/v1/b/{bucket}/o/{name}/rewriteTo/b/{to_bucket}/o/{to_name}")
    def rewrite(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> dict[str, Any]:
        """Done in one call, as it is inside one location and storage class; `maxBytesRewrittenPerCall` makes it two."""
        with self.lock:
            size = len(self.object(request, bucket, name).data)
        most = int(request.query.get("maxBytesRewrittenPerCall", size))
        shown = {"kind": "storage#rewriteResponse", "objectSize": str(size)}
        if most < size and "rewriteToken" not in request.query:
            return shown | {"totalBytesRewritten": str(most), "done": False, "rewriteToken": "half-way"}
        made = self._copied(request, bucket, name, to_bucket, to_name)
        return shown | {"totalBytesRewritten": str(size), "done": True, "resource": made.resource(self.url)}

    @route("POST", "/storage/v1/b/{bucket}/o/{name}/moveTo/o/{to_name}")
    def move(self, request: Request, bucket: str, name: str, to_name: str) -> dict[str, Any]:
        with self.lock:
            made = self._copied(request, bucket, name, bucket, to_name)
            del self.buckets[bucket].objects[name]
            return made.resource(self.url)

    def _copied(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> StoredObject:
        with self.lock:
            source = self._existing(bucket, name)
            wanted = request.query.get("sourceGeneration")
            if wanted and int(wanted) != source.generation:
                raise ApiError(404, f"No such object: {bucket}/{name}#{wanted}")
            check_preconditions(request, source, source=True)
            check_preconditions(request, self.bucket(to_bucket).objects.get(to_name))
            fields = source.fields | writable(request.json())
            return self.store(StoredObject(to_bucket, to_name, source.data, fields, components=source.components))

    @route("GET", "/storage/v1/projects/{project}/serviceAccount")
    def service_account(self, request: Request, project: str) -> Response:
        address = f"service-123456789012@{project}.iam.gserviceaccount.com"
        return answer({"kind": "storage#serviceAccount", "email_address": address})

    @route("GET", "/{bucket}/{name:path}")
    def xml_download(self, request: Request, bucket: str, name: str) -> Response:
        with self.lock:
            return content(request, self.object(request, bucket, name))

    def knows(self, request: Request) -> bool:
        """The XML API's paths are anything at all: they count on its own host only."""
        api = request.path.startswith(("/storage/", "/upload/", "/download/", "/batch"))
        return super().knows(request) and (api or request.host == "storage.googleapis.com")
