"""The way into BigQuery: an account's credentials, or none before an emulator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from preprocessing.cli import UserError

if TYPE_CHECKING:
    from google.cloud import bigquery


def bigquery_client(project: str) -> bigquery.Client:
    """A client of the project. Raises UserError where there are no credentials."""
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import bigquery

    if "BIGQUERY_EMULATOR_HOST" in os.environ:
        return bigquery.Client(project=project, credentials=AnonymousCredentials())
    try:
        return bigquery.Client(project=project)
    except DefaultCredentialsError:
        raise UserError("BigQuery: no credentials; log in with: gcloud auth application-default login") from None
