"""Raw journeys as the padded tensors that a SavedModel's `serving_default` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def padded(journeys: pa.RecordBatch, fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One batch of the journeys table as arrays.

    fields: as model/parcours.json says them, {"sequence": {name: kind}, "customer": {name: kind}}, a kind "categorical"
    or "numeric". Categorical values are bytes, numeric ones float32, NaN where missing. Returns `event_time` int64 UTC
    microseconds and every sequence field as [batch, steps], right-padded, with steps the longest journey of the batch;
    `as_of` int64, `length` int64, `key` bytes (the journey_id) and customer fields as [batch].
    """
    times = journeys.column("event_time")
    lengths = times.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    arrays = {
        "key": _values(journeys.column("journey_id"), "categorical"),
        "as_of": micros(journeys.column("as_of")),
        "length": lengths,
        "event_time": spread(micros(times.flatten()), inside),
    }
    for name, kind in fields["sequence"].items():
        arrays[name] = spread(_values(journeys.column(name).flatten(), kind), inside)
    for name, kind in fields["customer"].items():
        arrays[name] = _values(journeys.column(name), kind)
    return arrays


def spread(flat: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The values of all journeys, one after the other, in the places of bool [batch, steps]; b"" or 0 elsewhere."""
    spread = np.full(inside.shape, b"", object) if flat.dtype == object else np.zeros(inside.shape, flat.dtype)
    spread[inside] = flat
    return spread


def _values(column: pa.Array, kind: str) -> np.ndarray:
    if kind == "categorical":
        return column.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return column.to_numpy(zero_copy_only=False).astype(np.float32)


def micros(column: pa.Array) -> np.ndarray:
    """int64 UTC microseconds of a timestamp column without nulls."""
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
