"""A BigQuery session: one query after the other that share temporary tables, under one cap of bytes billed.

journeys.sql runs in it statement by statement and not as one script: bad rows are known, and stop the run, before the
rest is paid for; every statement's bytes are counted against the cap; and small results are read in between.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from preprocessing.bigquery_client import bigquery_client, clearly, first_line
from preprocessing.cli import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud import bigquery

LABELS = {"made_by": "parcours"}
TABLE_LIFE = dt.timedelta(days=1)
_log = logging.getLogger(__name__)


class Session:
    """Queries of one project in one location.

    project: that pays; dataset: (project, dataset) that unqualified names of the spec's tables and queries mean; cap:
    bytes billed at most, over all queries. `billed` counts them. Errors are UserErrors.
    """

    def __init__(self, project: str, dataset: tuple[str, str], cap: int | None = None) -> None:
        self.client = bigquery_client(project)
        self.project, self.dataset = project, dataset
        self.location: str | None = None
        self.billed = 0
        self._cap = cap
        self._id: str | None = None

    def dry_run(self, sql: str, place: str) -> tuple[int, list[bigquery.SchemaField]]:
        """Bytes that the query would process and the columns of its result; it costs nothing.

        The first one finds the location, in which all that follows runs.
        """
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        config.default_dataset = ".".join(self.dataset)
        with clearly(place):
            job = self.client.query(sql, config, location=self.location)
        self.location = self.location or job.location
        return int(job.total_bytes_processed or 0), list(job.schema or ())

    def run(self, sql: str, place: str, *, of_sources: bool = False) -> None:
        """Runs one statement. of_sources: unqualified names mean tables of `dataset`, too."""
        self._job(sql, place, of_sources=of_sources)

    def _job(self, sql: str, place: str, *, of_sources: bool = False, parameters: Sequence[Any] = ()) -> Any:
        """The job of a statement, done."""
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(labels=LABELS, use_query_cache=False)
        if of_sources:
            config.default_dataset = ".".join(self.dataset)
        if self._cap is not None:
            left = self._cap - self.billed
            if left <= 0:
                raise UserError(f"{place}: --maximum_bytes_billed {self._cap:,} is used up; raise it")
            config.maximum_bytes_billed = left
        if parameters:
            config.query_parameters = [bigquery.ScalarQueryParameter(None, _kind(one), one) for one in parameters]
        if self._id is None:
            config.create_session = True
        else:
            config.connection_properties = [bigquery.ConnectionProperty("session_id", self._id)]
        with clearly(place):
            job = self.client.query(sql, config, location=self.location)
            try:
                job.result()
            finally:  # a statement that fails may have begun the session, too
                if self._id is None and job.session_info is not None:
                    self._id = job.session_info.session_id
        self.billed += int(job.total_bytes_billed or 0)
        return job

    def execute(self, query: str, parameters: Sequence[Any] | None = None, *, place: str = "BigQuery") -> Answer:
        """As DuckDB's connection, for what balance.py counts; `?` stands for each parameter."""
        job = self._job(query, place, parameters=parameters or ())
        with clearly(place):
            return Answer([tuple(row.values()) for row in job.result()])

    def table(self, sql: str, place: str) -> pa.Table:
        """A result as Arrow, in no order, by the Storage Read API, which is quick where it is large."""
        from preprocessing.bigquery_streams import read_table

        job = self._job(sql, place)
        found = job.destination
        with clearly(place):
            return read_table((found.project, found.dataset_id, found.table_id), self.project)

    @contextmanager
    def temporary_table(self, dataset: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
        """The name of a table to make in the dataset; it is dropped at the end, and expires where that fails."""
        import uuid

        name = (*dataset, f"parcours_journeys_{uuid.uuid4().hex}")
        with clearly(f"--bigquery_dataset {'.'.join(dataset)}"):
            found = self.client.get_dataset(".".join(dataset)).location
        if self.location and found.lower() != self.location.lower():
            raise UserError(
                f"--bigquery_dataset {'.'.join(dataset)}: lies in {found}, the events in {self.location}; name a "
                f"dataset in {self.location}"
            )
        try:
            yield name
        finally:
            self._forget(".".join(name))

    def close(self) -> None:
        """Ends the session and its temporary tables, which BigQuery would do after a day."""
        if self._id is not None:
            with contextlib.suppress(UserError):
                self._cap = None
                self.run("CALL BQ.ABORT_SESSION();", "BigQuery")
            self._id = None

    def _forget(self, table: str) -> None:
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError

        try:
            self.client.delete_table(table, not_found_ok=True)
        except (GoogleAPICallError, GoogleAuthError) as error:
            _log.warning("%s: could not be dropped, and expires within a day: %s", table, first_line(error))


class Answer:
    """The rows of a query, all of them."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


def lasting() -> str:
    """The OPTIONS of a CREATE TABLE by which the table expires and says whose it is."""
    until = dt.datetime.now(dt.UTC) + TABLE_LIFE
    labels = ", ".join(f"('{key}', '{value}')" for key, value in LABELS.items())
    return f"OPTIONS (expiration_timestamp = TIMESTAMP '{until:%Y-%m-%d %H:%M:%S}+00:00', labels = [{labels}])"


def _kind(value: Any) -> str:
    return {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING"}[type(value)]
