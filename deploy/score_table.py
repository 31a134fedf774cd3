"""The table of scores: keys, as_of, model version and probabilities, a row a journey."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def score_schema(about: dict[str, Any]) -> pa.Schema:
    """The columns of scores: keys, as_of, model version, and one probability a horizon."""
    columns = [
        ("customer_key", pa.string()),
        ("journey_id", pa.string()),
        ("as_of", pa.timestamp("us", "UTC")),
        ("model_version", pa.string()),
    ]
    return pa.schema([*columns, *((f"p_{h}d", pa.float32()) for h in about["horizons_days"])])


def scores(batch: pa.RecordBatch, probabilities: Any, about: dict[str, Any]) -> pa.RecordBatch:
    """A batch of the journeys table and its float32 [n, horizons] as rows of score_schema."""
    kept = [batch.column(name) for name in ("customer_key", "journey_id", "as_of")]
    version = pa.repeat(pa.scalar(about["model_version"]), batch.num_rows)
    by_horizon = [pa.array(probabilities[:, i]) for i in range(len(about["horizons_days"]))]
    return pa.RecordBatch.from_arrays([*kept, version, *by_horizon], schema=score_schema(about))
