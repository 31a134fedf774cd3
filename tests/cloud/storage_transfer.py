"""Moving bytes in and out of Cloud Storage: media, multipart and resumable uploads, downloads of ranges."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.service import ApiError, Request, Response, Service, answer, route
from tests.cloud.storage_objects import Bucket, StoredObject, check_preconditions, crc32c, writable

CHUNK = 256 * 1024  # every part of a resumable upload but the last is a multiple of this
_UPLOADS = "/upload/storage/v1/b/{bucket}/o"


@dataclass
class Session:
    """A resumable upload under way; `begun` is the request that began it and holds its preconditions."""

    bucket: str
    name: str
    fields: dict[str, Any]
    hashes: dict[str, str]
    begun: Request
    data: bytearray = field(default_factory=bytearray)
    done: StoredObject | None = None


class Transfers(Service):
    """The part of the storage server that moves bytes; `buckets` and `sessions` are its state."""

    def reset(self) -> None:
        super().reset()
        self.buckets: dict[str, Bucket] = {}
        self.sessions: dict[str, Session] = {}

    def bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise ApiError(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def object(self, request: Request, bucket: str, name: str) -> StoredObject:
        """The object, if the generation that the request may name is the live one. Raises ApiError 404."""
        found = self._existing(bucket, name)
        wanted = request.query.get("generation")
        if wanted and int(wanted) != found.generation:
            raise ApiError(404, f"No such object: {bucket}/{name}#{wanted}")
        return found

    def store(self, made: StoredObject) -> StoredObject:
        with self.lock:
            self.bucket(made.bucket).objects[made.name] = made
        return made

    def _existing(self, bucket: str, name: str) -> StoredObject:
        found = self.bucket(bucket).objects.get(name)
        if found is None:
            raise ApiError(404, f"No such object: {bucket}/{name}")
        return found

    @route("POST", _UPLOADS)
    def upload(self, request: Request, bucket: str) -> Response:
        """uploadType media, multipart or resumable (cloud.google.com/storage/docs/uploads-downloads)."""
        kind = request.query.get("uploadType")
        kind_of_body = request.headers.get("content-type", "")
        with self.lock:
            self.bucket(bucket)
        if kind == "resumable":
            return self._begin(request, bucket)
        if kind == "multipart":
            wanted, data, inner = _parts(request.body, kind_of_body)
            fields = {"contentType": inner} | writable(wanted)
            name = wanted.get("name") or request.query.get("name", "")
            return answer(self._insert(request, StoredObject(bucket, name, data, fields), wanted))
        if kind == "media":
            hashes = _header_hashes(request)
            fields = {"contentType": kind_of_body or "application/octet-stream"}
            made = StoredObject(bucket, request.query.get("name", ""), request.body, fields)
            return answer(self._insert(request, made, hashes))
        raise ApiError(400, f"Invalid uploadType: {kind}")

    def _insert(self, request: Request, made: StoredObject, hashes: dict[str, Any]) -> dict[str, Any]:
        """Keeps the object, if it has a name, the checksums agree and the request's preconditions hold."""
        if not made.name:
            raise ApiError(400, "Required", reason="required")
        check_hashes(made.data, hashes)
        with self.lock:
            check_preconditions(request, self.bucket(made.bucket).objects.get(made.name))
            return self.store(made).resource(self.url)

    def _begin(self, request: Request, bucket: str) -> Response:
        wanted = request.json()
        name = wanted.get("name") or request.query.get("name")
        if not name:
            raise ApiError(400, "Required", reason="required")
        with self.lock:
            check_preconditions(request, self.bucket(bucket).objects.get(name))
        kind = request.headers.get("x-upload-content-type", "application/octet-stream")
        fields = {"contentType": kind} | writable(wanted)
        identity = uuid.uuid4().hex
        self.sessions[identity] = Session(bucket, name, fields, wanted, request)
        host = request.headers.get("host", "")
        start = self.url if host.startswith(("127.0.0.1", "localhost")) else f"https://{host}"
        where = f"{start}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={identity}"
        return Response(200, b"", {"Location": where, "X-GUploader-UploadID": identity})

    @route("PUT", _UPLOADS)
    def resume(self, request: Request, bucket: str) -> Response:
        """One part: 308 and how far it came, or the finished object. `bytes */n` asks how far it came."""
        with self.lock:
            session = self.sessions.get(request.query.get("upload_id", ""))
            if session is None:
                raise ApiError(404, "No such upload session")
            if session.done is not None:
                return answer(session.done.resource(self.url))
            told = request.headers.get("content-range")
            asked = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", told or "")
            if told is None:
                start, total = 0, len(request.body)
            elif asked is None:
                raise ApiError(400, f"Invalid Content-Range: {told}")
            else:
                start = int(asked[1]) if asked[1] else len(session.data)
                total = -1 if asked[3] == "*" else int(asked[3])
                if asked[1] and int(asked[2]) - start + 1 != len(request.body):
                    raise ApiError(400, "Content-Range and the body's length differ")
            if start > len(session.data):
                raise ApiError(400, f"Invalid request: {start} does not follow the {len(session.data)} bytes received")
            del session.data[start:]  # sent again after a break
            session.data += request.body
            if total < 0 and len(session.data) % CHUNK:
                del session.data[-(len(session.data) % CHUNK) :]  # the server keeps whole chunks only
            if len(session.data) != total:
                came = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
                return Response(308, b"", came)
            hashes = session.hashes | _header_hashes(request)
            made = StoredObject(session.bucket, session.name, bytes(session.data), session.fields)
            shown = self._insert(session.begun, made, hashes)
            session.done = made
            return answer(shown)

    @route("DELETE", _UPLOADS)
    def cancel(self, request: Request, bucket: str) -> Response:
        self.sessions.pop(request.query.get("upload_id", ""), None)
        return Response(499)

    @route("GET", "/storage/v1/b/{bucket}/o/{name}")
    def get_object(self, request: Request, bucket: str, name: str) -> Response:
        with self.lock:
            found = self.object(request, bucket, name)
        check_preconditions(request, found)
        return content(request, found) if request.query.get("alt") == "media" else answer(found.resource(self.url))

    @route("GET", "/download/storage/v1/b/{bucket}/o/{name}")
    def download(self, request: Request, bucket: str, name: str) -> Response:
        with self.lock:
            found = self.object(request, bucket, name)
        check_preconditions(request, found)
        return content(request, found)


def check_hashes(data: bytes, hashes: dict[str, Any]) -> None:
    """Raises ApiError 400 where the client's checksum is not that of what arrived."""
    found = {"crc32c": crc32c(data), "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode()}
    for name, value in found.items():
        if hashes.get(name) and hashes[name] != value:
            raise ApiError(400, f"Provided {name} {hashes[name]!r} doesn't match calculated {name} {value!r}.")


def _header_hashes(request: Request) -> dict[str, str]:
    given = dict(p.strip().split("=", 1) for p in request.headers.get("x-goog-hash", "").split(",") if "=" in p)
    return {name: given[key] for key, name in (("crc32c", "crc32c"), ("md5", "md5Hash")) if key in given}


def content(request: Request, found: StoredObject) -> Response:
    """The object's bytes, or the range that was asked for; gzip is undone for who does not accept it."""
    headers = {
        "Content-Type": found.fields.get("contentType", "application/octet-stream"),
        "ETag": found.etag,
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Stored-Content-Length": str(len(found.data)),
        "X-Goog-Stored-Content-Encoding": found.fields.get("contentEncoding", "identity"),
        "X-Goog-Hash": f"crc32c={found.crc32c}" + ("" if found.components else f",md5={found.md5}"),
        "Accept-Ranges": "bytes",
    }
    data = found.data
    if found.fields.get("contentEncoding") == "gzip":
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            return Response(200, gzip.decompress(data), headers)  # transcoding ignores ranges
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if asked is None or asked.groups() == ("", ""):
        return Response(200, data, headers)
    first, last = asked.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start >= len(data):
        return Response(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(206, data[start : end + 1], headers)


def _parts(body: bytes, kind: str) -> tuple[dict[str, Any], bytes, str]:
    """A multipart/related upload: the Object resource, the bytes, and their content type."""
    boundary = re.search(r"boundary=[\"']?([^\"';]+)", kind)
    if not kind.startswith("multipart/") or boundary is None:
        raise ApiError(400, f"Multipart upload with Content-Type {kind!r}")
    pieces = (b"\n" + body).split(b"\n--" + boundary[1].encode())
    parts = [piece for piece in pieces[1:] if not piece.startswith(b"--")]
    if len(parts) != 2:
        raise ApiError(400, f"expected two parts, found {len(parts)}")
    (_, first), (head, data) = (_split(part) for part in parts)
    inner = re.search(rb"(?i)^content-type:\s*([^\r\n]+)", head, re.MULTILINE)
    return json.loads(first), data, inner[1].decode() if inner else "application/octet-stream"


def _split(part: bytes) -> tuple[bytes, bytes]:
    """A part's headers and content; the line break before the next boundary belongs to the boundary."""
    part = part.removesuffix(b"\r")
    head, found, data = part.partition(b"\r\n\r\n")
    if not found:
        head, _, data = part.partition(b"\n\n")
    return head, data
