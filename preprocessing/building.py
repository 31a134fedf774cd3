"""The journeys of --events, wherever these lie: on files by DuckDB, or in BigQuery by BigQuery."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from preprocessing import bigquery_journeys, journeys, keys
from preprocessing.bigquery_client import SCHEME
from preprocessing.spec import AnySpec
from preprocessing.storage import keep
from preprocessing.tolerance import DEFAULT, SET_ASIDE, Tolerance, TooManyBadRows
from preprocessing.warehouse import Warehouse


def build(
    spec: AnySpec,
    events: str,
    output: Path,
    warehouse: Warehouse,
    *,
    key_file: str | None = None,
    predict: bool = False,
    predict_as_of: dt.datetime | None = None,
    max_bad_rows: Tolerance = DEFAULT,
    bad_rows_at: str | None = None,
) -> dict[str, Any]:
    """Builds journeys into `output` as journeys.build_journeys does, and returns its summary.

    The key in `key_file` is for local events alone: in BigQuery its pads stand for it (Warehouse.pads). Where too many
    rows are bad, the file of them is kept at `bad_rows_at`, on disk or under gs://, before the error is raised.
    """
    journeys.check_moment(spec, predict, predict_as_of)
    try:
        if events.startswith(SCHEME):
            return bigquery_journeys.build(
                spec, events, output, warehouse, predict=predict, predict_as_of=predict_as_of, max_bad_rows=max_bad_rows
            )
        key = keys.load_key(key_file, make=True)
        return journeys.build_journeys(
            spec, events, output, key, predict=predict, predict_as_of=predict_as_of, max_bad_rows=max_bad_rows
        )
    except TooManyBadRows as error:
        if bad_rows_at is None:
            raise
        kept_at = keep(output / SET_ASIDE, bad_rows_at)
        raise TooManyBadRows(f"{error}; each with its reason is in {kept_at}") from None
