"""Vertex AI's long-running operations: waited for, and what to do where one goes on for longer than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.gcloud import shown
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from deploy.environment import Environment


def ended(operation: Any, what: str, environment: Environment, *, patience_s: float, after: str) -> Any:
    """What a google.api_core Operation ends with. Raises what it fails with, and UserError where it goes on for longer
    than `patience_s`: the error names it, how to look at it, and what is to be done `after` it."""
    try:
        return operation.result(timeout=patience_s)
    except TimeoutError:
        raise UserError(
            f"{what}: not seen to end within {patience_s / 60:g} minutes, and goes on; look at it with: "
            f"{look(operation.operation.name, environment)}; once it is done: {after}"
        ) from None


def look(name: str, environment: Environment) -> str:
    """The command that shows an operation. Source: cloud.google.com/vertex-ai/docs/general/long-running-operations"""
    token = "Authorization: Bearer $(gcloud auth print-access-token)"
    return shown(["curl", "-H", token, f"https://{environment.region}-aiplatform.googleapis.com/v1/{name}"])
