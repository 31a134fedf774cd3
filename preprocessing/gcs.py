"""Google Cloud Storage as an ObjectStore: generations are the versions, and every write has a precondition.

A precondition makes a write safe to repeat: what fails because an earlier attempt of the same write has come through,
its answer lost, is told by the content that lies there.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError
from preprocessing.storage import Changed, ObjectStore, Stored

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket

PATIENCE = 300.0  # seconds for which a request is tried again, after waits that double: 1 s, 2 s, 4 s … 60 s


@functools.lru_cache(maxsize=16)
def open_store(bucket: str) -> ObjectStore:
    """The store of a bucket. Raises UserError where the client library or credentials are missing."""
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.storage import Client
    except ImportError:
        raise UserError(f"gs://{bucket}: needs google-cloud-storage; pip install google-cloud-storage") from None

    try:
        client = Client(project=None)
    except DefaultCredentialsError:
        raise UserError(
            f"gs://{bucket}: no credentials; log in with: gcloud auth application-default login, "
            "or run under a service account"
        ) from None
    return CloudStorage(client.bucket(bucket))


class CloudStorage:
    """One bucket of Google Cloud Storage; the methods are ObjectStore's."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self, name: str) -> tuple[bytes, Stored] | None:
        from google.api_core.exceptions import NotFound

        with self._told(name):
            while True:
                blob = self._bucket.get_blob(name, retry=_retry())
                if blob is None:
                    return None
                stored = _stored(blob)
                try:
                    return self._of(name, stored.version).download_as_bytes(retry=_retry()), stored
                except NotFound:
                    continue  # replaced between the two requests

    def write(self, name: str, content: bytes, *, version: str | None, patience: float | None = None) -> Stored:
        def attempt(blob: Blob, condition: int) -> None:
            blob.upload_from_string(content, if_generation_match=condition, retry=_retry(patience), checksum="crc32c")

        return self._written(name, version, attempt, lambda: (len(content), _crc32c(content)))

    def upload(self, path: Path, name: str, *, version: str | None) -> Stored:
        def attempt(blob: Blob, condition: int) -> None:
            blob.upload_from_filename(str(path), if_generation_match=condition, retry=_retry(), checksum="crc32c")

        return self._written(name, version, attempt, lambda: (path.stat().st_size, _crc32c_of(path)))

    def download(self, name: str, version: str, path: Path) -> None:
        from google.api_core.exceptions import NotFound

        with self._told(name):
            try:
                self._of(name, version).download_to_filename(str(path), retry=_retry())
            except NotFound:
                raise Changed(name) from None

    def listed(self, prefix: str) -> dict[str, Stored]:
        fields = "items(name,generation,size,updated),nextPageToken"
        with self._told(prefix):
            found = self._bucket.client.list_blobs(self._bucket, prefix=prefix, fields=fields, retry=_retry())
            return {blob.name: _stored(blob) for blob in found}

    def copy(self, source: str, source_version: str, target: str, *, version: str | None) -> Stored:
        from google.api_core.exceptions import NotFound

        original = self._of(source, source_version)

        def attempt(blob: Blob, condition: int) -> None:
            token = None
            while True:  # a large object is copied in several requests
                try:
                    token, _, _ = blob.rewrite(original, token=token, if_generation_match=condition, retry=_retry())
                except NotFound:
                    raise Changed(source) from None
                if token is None:
                    return

        def expected() -> tuple[int | None, str | None]:
            original.reload(retry=_retry())
            return original.size, original.crc32c

        return self._written(target, version, attempt, expected)

    def delete(self, name: str, *, version: str) -> None:
        from google.api_core.exceptions import NotFound

        with self._told(name):
            try:
                self._bucket.blob(name).delete(if_generation_match=int(version), retry=_retry())
            except NotFound:
                return

    def _of(self, name: str, version: str) -> Blob:
        return self._bucket.blob(name, generation=int(version))

    def _written(self, name: str, version: str | None, attempt: Any, expected: Any) -> Stored:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._bucket.blob(name)
        with self._told(name):
            try:
                attempt(blob, 0 if version is None else int(version))
            except PreconditionFailed:
                there = self._bucket.get_blob(name, retry=_retry())
                is_ours = there is not None and str(there.generation) != version
                if not is_ours or (there.size, there.crc32c) != expected():
                    raise Changed(name) from None
                return _stored(there)
            except NotFound:
                raise UserError(f"gs://{self._bucket.name}: no such bucket, or none that you may see") from None
            return _stored(blob)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turns what only the user can mend into one line."""
        import requests
        from google.api_core import exceptions as api
        from google.auth.exceptions import GoogleAuthError, RefreshError

        place = f"gs://{self._bucket.name}/{name}"
        try:
            yield
        except api.PreconditionFailed:
            raise Changed(name) from None
        except api.Forbidden as error:
            raise UserError(
                f"{place}: permission missing: {_said(error)}; the account that runs this needs "
                "roles/storage.objectUser on the bucket"
            ) from None
        except (api.Unauthorized, RefreshError) as error:
            raise UserError(
                f"{place}: the credentials are refused or have expired ({_said(error)}); "
                "log in again with: gcloud auth application-default login"
            ) from None
        except api.NotFound:
            raise UserError(f"gs://{self._bucket.name}: no such bucket, or none that you may see") from None
        except (api.RetryError, api.GoogleAPICallError, GoogleAuthError, requests.exceptions.RequestException) as error:
            raise UserError(f"{place}: Cloud Storage does not answer as it should: {_said(error)}; try again") from None


def _retry(patience: float | None = None) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(PATIENCE if patience is None else patience)


def _stored(blob: Blob) -> Stored:
    return Stored(str(blob.generation), int(blob.size or 0), blob.updated)


def _said(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    text = errors[0].get("message") if errors and isinstance(errors[0], dict) else getattr(error, "message", None)
    return " ".join(str(text or error or type(error).__name__).split())[:300]


def _crc32c(content: bytes) -> str:
    import google_crc32c

    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def _crc32c_of(path: Path) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
