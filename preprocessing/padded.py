"""Raw journeys as the padded tensors that a SavedModel's `serving_default` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Coded:
    """Bytes that recur, each held once: `values` object [n] of bytes, the first of them b""; `codes` int32, any shape,
    indices of values."""

    values: np.ndarray
    codes: np.ndarray

    @property
    def ndim(self) -> int:
        return self.codes.ndim

    def __getitem__(self, rows: Any) -> Coded:
        return Coded(self.values, self.codes[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values[self.codes], dtype)


Arrays = dict[str, "np.ndarray | Coded"]


def padded(journeys: pa.RecordBatch, fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`coded`, with categorical values as plain bytes."""
    return {name: np.asarray(values) for name, values in coded(journeys, fields).items()}


def coded(journeys: pa.RecordBatch, fields: Mapping[str, Any]) -> Arrays:
    """One batch of the journeys table as arrays.

    fields: as model/parcours.json says them, {"sequence": {name: kind}, "customer": {name: kind}}, a kind "categorical"
    or "numeric". Categorical values are Coded bytes, numeric ones float32, NaN where missing. Returns `event_time`
    int64 UTC microseconds and every sequence field as [batch, steps], right-padded, with steps the longest journey of
    the batch; `as_of` int64, `length` int64, `key` bytes (the journey_id) and customer fields as [batch].
    """
    times = journeys.column("event_time")
    lengths = times.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    arrays: Arrays = {
        "key": _bytes(journeys.column("journey_id")).to_numpy(zero_copy_only=False),
        "as_of": micros(journeys.column("as_of")),
        "length": lengths,
        "event_time": spread(micros(times.flatten()), inside),
    }
    for name, kind in fields["sequence"].items():
        values = _values(journeys.column(name).flatten(), kind)
        arrays[name] = (
            Coded(values.values, spread(values.codes, inside)) if isinstance(values, Coded) else spread(values, inside)
        )
    for name, kind in fields["customer"].items():
        arrays[name] = _values(journeys.column(name), kind)
    return arrays


def spread(flat: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The values of all journeys, one after the other, in the places of bool [batch, steps]; b"" or 0 elsewhere."""
    spread = np.full(inside.shape, b"", object) if flat.dtype == object else np.zeros(inside.shape, flat.dtype)
    spread[inside] = flat
    return spread


def _values(column: pa.Array, kind: str) -> np.ndarray | Coded:
    if kind == "categorical":
        assert not column.null_count, "journeys say '' where nothing is known"
        found = _bytes(column).dictionary_encode()
        codes = found.indices.to_numpy(zero_copy_only=False).astype(np.int32) + np.int32(1)
        return Coded(np.array([b"", *found.dictionary.to_pylist()], object), codes)
    return column.to_numpy(zero_copy_only=False).astype(np.float32)


def _bytes(column: pa.Array) -> pa.Array:
    return column.cast(pa.binary())


def micros(column: pa.Array) -> np.ndarray:
    """int64 UTC microseconds of a timestamp column without nulls."""
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
