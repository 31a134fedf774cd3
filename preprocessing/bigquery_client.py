"""The way into BigQuery: clients, the names of tables, and one clear line for what BigQuery refuses."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud import bigquery, bigquery_storage_v1

SCHEME = "bigquery://"
_PART = r"[^./`\\\s]+"
_TABLE = re.compile(rf"{SCHEME}({_PART})\.({_PART})\.({_PART})")
_DATASET = re.compile(rf"{SCHEME}({_PART})\.({_PART})")
LOGIN = "log in with: gcloud auth application-default login"
_ROLES = (
    "the account needs roles/bigquery.jobUser and roles/bigquery.readSessionUser on the project that pays, "
    "roles/bigquery.dataViewer on what it reads and roles/bigquery.dataEditor on the dataset that it writes to"
)
_log = logging.getLogger(__name__)


def table_of(address: str, what: str) -> tuple[str, str, str]:
    """Project, dataset and table of bigquery://project.dataset.table; `what` names it in errors."""
    found = _TABLE.fullmatch(address)
    if found is None:
        raise UserError(f"{what} {address}: expected {SCHEME}project.dataset.table")
    return found[1], found[2], found[3]


def place_of(address: str, what: str) -> tuple[str, str, str | None]:
    """As table_of, where the table may be left out: None."""
    found = _DATASET.fullmatch(address)
    if found is not None:
        return found[1], found[2], None
    try:
        return table_of(address, what)
    except UserError:
        raise UserError(
            f"{what} {address}: expected {SCHEME}project.dataset or {SCHEME}project.dataset.table"
        ) from None


def bigquery_client(project: str, location: str | None = None) -> bigquery.Client:
    """A client of the project. Raises UserError where there are no credentials."""
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import bigquery

    if "BIGQUERY_EMULATOR_HOST" in os.environ:
        return bigquery.Client(project=project, location=location, credentials=AnonymousCredentials())
    try:
        return bigquery.Client(project=project, location=location)
    except DefaultCredentialsError:
        raise UserError(f"BigQuery: no credentials; {LOGIN}") from None


def read_client() -> bigquery_storage_v1.BigQueryReadClient:
    """A client of the Storage Read API. Raises UserError where there are no credentials."""
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import bigquery_storage_v1

    try:
        return bigquery_storage_v1.BigQueryReadClient()
    except DefaultCredentialsError:
        raise UserError(f"BigQuery: no credentials; {LOGIN}") from None


def patiently(minutes: float = 10) -> Retry:
    """Tries again, with exponential backoff and jitter, what a busy or stumbling service refused."""
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type

    passing = if_exception_type(
        exceptions.TooManyRequests,  # and ResourceExhausted, its gRPC form
        exceptions.InternalServerError,
        exceptions.ServiceUnavailable,
        exceptions.DeadlineExceeded,
        exceptions.Aborted,
    )
    return Retry(predicate=passing, initial=0.5, maximum=30, multiplier=2, timeout=60 * minutes, on_error=_told)


def _told(error: Exception) -> None:
    _log.info("    BigQuery: %s; trying again", first_line(error))


@contextmanager
def clearly(place: str) -> Iterator[None]:
    """Turns what BigQuery and the credentials refuse into one UserError line about `place`, with what to do."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise UserError(f"{place}: the credentials are expired or refused ({first_line(error)}); {LOGIN}") from None
    except RetryError as error:
        raise UserError(f"{place}: still refused after many attempts: {first_line(error.cause or error)}") from None
    except GoogleAPICallError as error:
        raise UserError(f"{place}: {_explained(error)}") from None


def _explained(error: Any) -> str:  # noqa: PLR0911 - a kind a case
    said, reason = _message(error), _reason(error)
    if reason == "bytesBilledLimitExceeded" or "limit for bytes billed" in said:
        return f"{said.rstrip('.')}; raise --maximum_bytes_billed, or read fewer columns and days"
    if "was not found in location" in said:
        return (
            f"{said}; a query runs in one location: the events, the pads table and --bigquery_dataset must lie in the "
            "same"
        )
    if error.code == 401:
        return f"the credentials are expired or refused ({said}); {LOGIN}"
    if re.match(r"Bad \w+ value|Bad value|Invalid \w+( \w+)?: |Could not cast|Could not parse|Failed to parse", said):
        return "a query or a predicate of the spec cannot be computed for every row"  # which BigQuery quotes a cell of
    if reason == "quotaExceeded":
        return f"{said}; wait, or ask for more quota"
    if error.code == 403:
        return f"{said}; {_ROLES}"
    if error.code == 404:
        return f"{said}; check the name, and that the account may see it"
    return said


def _message(error: Any) -> str:
    """What the service said, without the request's address before it and the job's number after it."""
    said = (
        error.errors[0].get("message") if getattr(error, "errors", None) and isinstance(error.errors[0], dict) else ""
    )
    return first_line(said or error.message or error)


def _reason(error: Any) -> str:
    first = error.errors[0] if getattr(error, "errors", None) else None
    return str(first.get("reason", "")) if isinstance(first, dict) else ""


def first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
