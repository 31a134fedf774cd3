"""The tables that batch scoring writes: a row a journey, or, of campaigns, a row a journey and campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from preprocessing.padded import coded

if TYPE_CHECKING:
    import numpy as np

    from deploy.scorer import Scorer

_KEYS = (
    ("customer_key", pa.string()),
    ("journey_id", pa.string()),
    ("as_of", pa.timestamp("us", "UTC")),
    ("model_version", pa.string()),
)
_ANSWERS = {"with": "with_campaign", "without": "without_campaign", "difference": "difference"}


def score_schema(about: dict[str, Any], campaigns: Sequence[str] = ()) -> pa.Schema:
    """The columns of scores: keys, as_of, model version, and one probability a horizon.

    Of campaigns: the campaign and, for each horizon, the probability with it, without it, and the difference, null
    where there is no answer; what they may be taken for, and why there is none.
    """
    days = about["horizons_days"]
    if not campaigns:
        return pa.schema([*_KEYS, *((f"p_{h}d", pa.float32()) for h in days)])
    numbers = ((f"{name}_{h}d", pa.float32()) for name in _ANSWERS for h in days)
    return pa.schema([*_KEYS, ("campaign", pa.string()), *numbers, ("claim", pa.string()), ("reason", pa.string())])


def headline(about: dict[str, Any], campaigns: Sequence[str] = ()) -> str:
    """The column that sums the table up: of the primary horizon, the probability or the difference."""
    return f"{'difference' if campaigns else 'p'}_{about['primary_horizon']}d"


def answered(
    scorer: Scorer, batch: pa.RecordBatch, about: dict[str, Any], campaigns: Sequence[str] = ()
) -> pa.RecordBatch:
    """A batch of the journeys table, scored, as rows of score_schema; a journey's campaigns lie together."""
    arrays = coded(batch, about)
    if not campaigns:
        return scores(batch, scorer.score(arrays), about)
    rows = batch.num_rows
    if not rows:
        return pa.RecordBatch.from_pylist([], score_schema(about, campaigns))
    parts = [_influences(batch, scorer.influence(arrays, [one] * rows, at_once=rows), about) for one in campaigns]
    by_journey = [part * rows + row for row in range(rows) for part in range(len(parts))]
    whole = pa.Table.from_batches(parts, score_schema(about, campaigns)).take(by_journey).combine_chunks()
    return whole.to_batches()[0]


def scores(batch: pa.RecordBatch, probabilities: np.ndarray, about: dict[str, Any]) -> pa.RecordBatch:
    """A batch of the journeys table and its float32 [n, horizons] as rows of score_schema."""
    by_horizon = [pa.array(probabilities[:, i]) for i in range(len(about["horizons_days"]))]
    return pa.RecordBatch.from_arrays([*_keys(batch, about), *by_horizon], schema=score_schema(about))


def _influences(batch: pa.RecordBatch, found: dict[str, np.ndarray], about: dict[str, Any]) -> pa.RecordBatch:
    texts = {name: pa.array(found[name].tolist(), pa.string()) for name in ("campaign", "claim", "reason")}
    numbers = [
        pa.array(found[name][:, i], from_pandas=True)  # NaN is null
        for name in _ANSWERS.values()
        for i in range(len(about["horizons_days"]))
    ]
    columns = [*_keys(batch, about), texts["campaign"], *numbers, texts["claim"], texts["reason"]]
    return pa.RecordBatch.from_arrays(columns, schema=score_schema(about, ("any",)))


def _keys(batch: pa.RecordBatch, about: dict[str, Any]) -> list[pa.Array]:
    kept = [batch.column(name) for name in ("customer_key", "journey_id", "as_of")]
    return [*kept, pa.repeat(pa.scalar(about["model_version"]), batch.num_rows)]
