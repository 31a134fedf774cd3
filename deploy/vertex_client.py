"""The way into Vertex AI: clients of a region, what is tried again, and what went wrong in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from deploy.environment import Environment
from preprocessing.cli import UserError

T = TypeVar("T")

_LOG_IN = "log in with: gcloud auth application-default login"
_CALL_S = 60.0  # of one call; creating a job answers before the job starts
_PATIENCE_S = 120.0  # how long a busy service is asked again


def client(kind: type[T], environment: Environment) -> T:
    """A client (JobServiceClient and the like) of the environment's region. Raises UserError without credentials."""
    from google.auth.exceptions import DefaultCredentialsError

    make: Callable[..., T] = kind
    try:
        return make(client_options={"api_endpoint": f"{environment.region}-aiplatform.googleapis.com"})
    except DefaultCredentialsError:
        raise UserError(f"Vertex AI: no credentials; {_LOG_IN}") from None


def call(method: Callable[..., Any], request: Any, *, patience_s: float = _PATIENCE_S) -> Any:
    """The answer to one request; a busy service (429, 503) is asked again, with growing waits."""
    from google.api_core.retry import Retry

    retry = Retry(predicate=is_passing, initial=0.5, maximum=20.0, multiplier=2.0, timeout=patience_s)
    return method(request=request, timeout=_CALL_S, retry=retry)


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Creates something although answers may get lost: before each further attempt `find` looks whether it is there."""
    from google.api_core.exceptions import DeadlineExceeded
    from google.api_core.retry import Retry

    def is_lost(error: BaseException) -> bool:
        return is_passing(error) or isinstance(error, DeadlineExceeded)

    attempts = 0

    def attempt() -> T:
        nonlocal attempts
        attempts += 1
        found = find() if attempts > 1 else None
        return create() if found is None else found

    retry = Retry(predicate=is_lost, initial=0.5, maximum=20.0, multiplier=2.0, timeout=_PATIENCE_S)
    made: T = retry(attempt)()
    return made


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later: neither a quota nor credentials mend themselves."""
    from google.api_core.exceptions import ServiceUnavailable, TooManyRequests

    if isinstance(error, TooManyRequests):
        return not _is_quota(str(error))
    return isinstance(error, ServiceUnavailable) and not _is_credentials(str(error))


@contextmanager
def told(what: str, environment: Environment) -> Iterator[None]:
    """Turns what the service says into one line: `what` failed, why, and what to do. Raises UserError."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except RetryError as error:
        raise UserError(f"{what}: {_advice(error.cause or error, environment)}") from None
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise UserError(f"{what}: {_advice(error, environment)}") from None


def _advice(error: Any, environment: Environment) -> str:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    said = _one_line(getattr(error, "message", None) or str(error))
    region, project = environment.region, environment.project
    busy = (exceptions.TooManyRequests, exceptions.ServiceUnavailable, exceptions.DeadlineExceeded)
    credentials = isinstance(error, (GoogleAuthError, exceptions.Unauthenticated)) or _is_credentials(said)
    quota = isinstance(error, exceptions.TooManyRequests) and _is_quota(said)
    place = isinstance(error, exceptions.BadRequest) and "ocation" in said
    reasons = (
        (credentials, "the credentials are refused or have expired", _LOG_IN),
        (
            isinstance(error, exceptions.Forbidden),
            "permission denied",
            f"grant the account that asks the role it lacks in project {project}; deploy/terraform names the roles",
        ),
        (
            quota,
            f"a quota of project {project} in {region} is used up",
            "wait for other jobs to end, take fewer or other machines, or ask for more under IAM & Admin, Quotas",
        ),
        (isinstance(error, exceptions.NotFound), "not found", "check the name, and project and region in --env"),
        (isinstance(error, exceptions.Conflict), "it is there already", "take another name"),
        (place, f"{region} is no region for this", "check region and cmek_key in the environment file"),
        (
            isinstance(error, busy),
            f"the service is busy and stayed so for {_PATIENCE_S:.0f} s",
            "run the same command again later",
        ),
    )
    for holds, what, remedy in reasons:
        if holds:
            return f"{what} ({said}); {remedy}"
    return f"refused ({said})"


def _is_quota(said: str) -> bool:
    return bool(re.search(r"quotas? (are|is|has been|limit|metric)|[Qq]uota exceeded", said))


def _is_credentials(said: str) -> bool:
    return any(mark in said for mark in ("metadata from plugin failed", "invalid_grant", "invalid authentication"))


def _one_line(said: str) -> str:
    return " ".join(said.split())[:400]
