"""The log of pairs: what incumbent and candidate answered for the same journeys, as two tables of scores.

Both have the columns of a table of scores (journey_id, as_of, model_version, p_<h>d), so that `deploy.double_run` takes
them as they are, and latency_ms, status and logged_at beside. No event and no customer field is in them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.bigquery_client import bigquery_client, table_of
from preprocessing.cli import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud import bigquery

SIDES = ("incumbent", "candidate")
OK = "ok"
_ROLL = 100_000  # pairs a file
_SLICE = 1_000
_INSERT = 500  # rows a request, what BigQuery recommends
_WAIT_S = 10.0


class LogError(Exception):
    """The log cannot be written now; the same pairs may be written later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One side's answer for one journey. probabilities: one a horizon, None where it gave none; latency_ms: of the
    request it came in; status: "ok", or why there is no probability."""

    model_version: str | None
    probabilities: tuple[float | None, ...]
    latency_ms: float
    status: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers for one journey. as_of, logged_at: int64 UTC microseconds; as_of None where the journey has none."""

    journey_id: str
    as_of: int | None
    logged_at: int
    incumbent: Answer
    candidate: Answer
    row_id: str = field(default_factory=lambda: uuid.uuid4().hex)  # the same row sent twice is one row


def open_log(target: str, about: dict[str, Any]) -> ParquetLog | BigQueryLog:
    """The log that `target` names: a directory, or bigquery://project.dataset.table.

    about: the incumbent's parcours.json, whose horizons are the columns. Raises UserError where it cannot be written.
    """
    if target.startswith("bigquery://"):
        return BigQueryLog(target, about)
    if "://" in target:
        raise UserError(f"--shadow_log {target}: expected a directory or bigquery://project.dataset.table")
    return ParquetLog(target, about)


class ParquetLog:
    """incumbent-*.parquet and candidate-*.parquet in a directory that several servers may share.

    Files are written aside and renamed: what has its name is whole, even after SIGKILL. A file is written anew with
    every batch until it holds `roll` pairs, so that a quiet day is not a thousand files.
    """

    def __init__(self, directory: str, about: dict[str, Any], roll: int = _ROLL) -> None:
        import pyarrow as pa

        self._directory = Path(directory)
        self._roll = roll
        self._horizons = about["horizons_days"]
        times = pa.timestamp("us", "UTC")
        self._schema = pa.schema(
            [
                ("journey_id", pa.string()),
                ("as_of", times),
                ("model_version", pa.string()),
                *((f"p_{h}d", pa.float64()) for h in self._horizons),
                ("latency_ms", pa.float64()),
                ("status", pa.string()),
                ("logged_at", times),
            ]
        )
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            probe = self._directory / f".aside-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--shadow_log {directory}: expected a directory to write in; {error.strerror}") from None
        self._begin()

    def _begin(self) -> None:
        self._name = uuid.uuid4().hex
        self._held = {side: self._schema.empty_table() for side in SIDES}

    def write(self, pairs: Sequence[Pair]) -> None:
        """Adds the pairs to both tables. Raises LogError where the disk refuses; they may be written again."""
        import pyarrow as pa

        # In slices: Arrow holds the interpreter while it reads Python's objects, and a server answers beside it.
        slices = [pairs[first : first + _SLICE] for first in range(0, len(pairs), _SLICE)]
        grown = {
            side: pa.concat_tables(
                [self._held[side], *(pa.Table.from_pylist(self._rows(some, side), self._schema) for some in slices)]
            ).combine_chunks()
            for side in SIDES
        }
        try:
            for side in SIDES:
                self._replace(grown[side], side)
        except OSError as error:
            raise LogError(f"{self._directory}: {error.strerror}") from error
        self._held = grown
        if grown[SIDES[0]].num_rows >= self._roll:
            self._begin()

    def _replace(self, table: pa.Table, side: str) -> None:
        import pyarrow.parquet as pq

        aside = self._directory / f".aside-{side}-{self._name}"
        try:
            with aside.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                os.fsync(file.fileno())
            aside.replace(self._directory / f"{side}-{self._name}.parquet")
        finally:
            aside.unlink(missing_ok=True)

    def _rows(self, pairs: Sequence[Pair], side: str) -> list[dict[str, Any]]:
        return [_row(pair, side, self._horizons) | {"as_of": pair.as_of, "logged_at": pair.logged_at} for pair in pairs]


class BigQueryLog:
    """Two tables, `…_incumbent` and `…_candidate`, made where they are missing and partitioned by the day of logged_at.

    Rows are streamed with an id each, by which BigQuery drops those that a repeated request brings again.
    """

    def __init__(self, target: str, about: dict[str, Any]) -> None:
        """Raises UserError where the tables cannot be made or lack a column. BIGQUERY_EMULATOR_HOST, as everywhere in
        Google's client, names another server."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        place = table_of(target, "--shadow_log")
        self._horizons = about["horizons_days"]
        self._names = {side: f"{'.'.join(place)}_{side}" for side in SIDES}
        try:
            self._client = bigquery_client(place[0])
            self._tables = {side: self._made(name) for side, name in self._names.items()}
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            raise UserError(f"--shadow_log {target}: {_first_line(error)}") from None

    def write(self, pairs: Sequence[Pair]) -> None:
        """Adds the pairs to both tables. Raises LogError where BigQuery refuses any of them."""
        from google.api_core.exceptions import GoogleAPIError

        for side in SIDES:
            for first in range(0, len(pairs), _INSERT):
                some = pairs[first : first + _INSERT]
                rows = [
                    _row(pair, side, self._horizons)
                    | {"as_of": _micros_text(pair.as_of), "logged_at": _micros_text(pair.logged_at)}
                    for pair in some
                ]
                try:
                    errors = self._client.insert_rows_json(
                        self._tables[side],
                        rows,
                        row_ids=[pair.row_id for pair in some],
                        retry=None,  # type: ignore[arg-type]  # tried again with the next batch, not for minutes now
                        timeout=_WAIT_S,
                    )
                except (GoogleAPIError, OSError) as error:
                    raise LogError(f"{self._names[side]}: {_first_line(error)}") from error
                if errors:
                    raise LogError(f"{self._names[side]}: {len(errors)} of {len(some)} rows refused")

    def _made(self, name: str) -> bigquery.Table:
        from google.cloud import bigquery

        columns = [
            ("journey_id", "STRING"),
            ("as_of", "TIMESTAMP"),
            ("model_version", "STRING"),
            *((f"p_{h}d", "FLOAT64") for h in self._horizons),
            ("latency_ms", "FLOAT64"),
            ("status", "STRING"),
            ("logged_at", "TIMESTAMP"),
        ]
        wanted = bigquery.Table(name, [bigquery.SchemaField(*column) for column in columns])
        wanted.time_partitioning = bigquery.TimePartitioning(field="logged_at")
        table = self._client.create_table(wanted, exists_ok=True, timeout=_WAIT_S)
        lacking = {column for column, _ in columns} - {column.name for column in table.schema}
        if lacking:
            raise UserError(f"--shadow_log: {name} exists and lacks {', '.join(sorted(lacking))}; expected a new table")
        return table


def _row(pair: Pair, side: str, horizons: Sequence[int]) -> dict[str, Any]:
    answer: Answer = getattr(pair, side)
    return {
        "journey_id": pair.journey_id,
        "model_version": answer.model_version,
        **{f"p_{h}d": p for h, p in zip(horizons, answer.probabilities, strict=True)},
        "latency_ms": answer.latency_ms,
        "status": answer.status,
    }


def _micros_text(micros: int | None) -> str | None:
    """Microseconds as the text that BigQuery's JSON takes for a TIMESTAMP."""
    import datetime as dt

    if micros is None:
        return None
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)).isoformat() + "Z"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
