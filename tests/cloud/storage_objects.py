"""What Cloud Storage keeps: buckets of objects with generations, checksums and preconditions."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import google_crc32c

from tests.cloud.service import ApiError, Request

_WRITABLE = (
    "contentType",
    "contentEncoding",
    "contentDisposition",
    "contentLanguage",
    "cacheControl",
    "metadata",
    "customTime",
    "storageClass",
    "temporaryHold",
    "eventBasedHold",
)
UNMET = "At least one of the pre-conditions you specified did not hold."
_ticks = itertools.count(time.time_ns() // 1000)


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def crc32c(data: bytes) -> str:
    """The checksum as the API gives it: big-endian, base64."""
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


@dataclass
class StoredObject:
    """One generation of one object; `fields` are the writable ones of the Object resource."""

    bucket: str
    name: str
    data: bytes
    fields: dict[str, Any] = field(default_factory=dict)
    components: int = 0  # of a composed object, which has no MD5
    generation: int = field(default_factory=lambda: next(_ticks))
    metageneration: int = 1
    created: str = field(default_factory=now)
    updated: str = ""

    def __post_init__(self) -> None:
        self.crc32c = crc32c(self.data)
        self.md5 = base64.b64encode(hashlib.md5(self.data).digest()).decode()
        self.etag = base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    def change(self, wanted: dict[str, Any], *, whole: bool) -> None:
        """Patches (or, where `whole`, replaces) the writable fields; null removes one."""
        kept = {} if whole else dict(self.fields)
        for name, value in wanted.items():
            if name == "metadata" and value is not None and not whole:
                merged = kept.get("metadata", {}) | value
                kept[name] = {k: v for k, v in merged.items() if v is not None}
            elif name in _WRITABLE:
                kept[name] = value
        self.fields = {name: value for name, value in kept.items() if value is not None}
        self.metageneration += 1
        self.updated = now()

    def resource(self, url: str) -> dict[str, Any]:
        """The Object resource (cloud.google.com/storage/docs/json_api/v1/objects): 64-bit numbers are strings."""
        path = f"{quote(self.bucket)}/o/{quote(self.name, safe='')}"
        shown: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{url}/storage/v1/b/{path}",
            "mediaLink": f"{url}/download/storage/v1/b/{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": self.created,
            "updated": self.updated or self.created,
            "timeStorageClassUpdated": self.created,
        }
        if self.components:
            shown["componentCount"] = self.components
        else:
            shown["md5Hash"] = self.md5
        return shown | self.fields


def writable(wanted: dict[str, Any]) -> dict[str, Any]:
    """The writable fields of an Object resource that a client sent."""
    return {name: value for name, value in wanted.items() if name in _WRITABLE and value is not None}


@dataclass
class Bucket:
    """One bucket; `versions` keeps what was overwritten or deleted where versioning is on."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, StoredObject] = field(default_factory=dict)
    metageneration: int = 1
    created: str = field(default_factory=now)

    def resource(self, url: str) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{url}/storage/v1/b/{self.name}",
            "projectNumber": "123456789012",
            "name": self.name,
            "metageneration": str(self.metageneration),
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "etag": base64.b64encode(str(self.metageneration).encode()).decode(),
            "timeCreated": self.created,
            "updated": self.created,
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
            "softDeletePolicy": {"retentionDurationSeconds": "0"},
        } | self.fields


def check_preconditions(request: Request, found: StoredObject | None, *, source: bool = False) -> None:
    """ifGenerationMatch and its kin (cloud.google.com/storage/docs/request-preconditions); 0 stands for no object.

    Raises ApiError 412, or 304 for a GET whose *NotMatch condition fails.
    """
    middle = "Source" if source else ""
    have = {"Generation": found.generation if found else 0, "Metageneration": found.metageneration if found else 0}
    for kind, value in have.items():
        match = request.query.get(f"if{middle}{kind}Match")
        if match is not None and int(match) != value:
            raise ApiError(412, UNMET)
        other = request.query.get(f"if{middle}{kind}NotMatch")
        if other is not None and int(other) == value:
            code = 304 if request.method == "GET" else 412
            raise ApiError(code, UNMET)
