"""Hand-made aggregates of a journey: what an analyst would feed a tree. Baselines use them; the network never does.

They read the same columns as the network: the spec's fields and the event times, and no other, so that no label can be
among them. Everything is vectorised over the flat events of a batch of journeys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.spec import DAY_US, AnySpec
from trainer.outcomes import microseconds, scan

COUNTED_VALUES = 30  # values of a categorical field that get a count and a recency of their own
CODED_VALUES = 200  # values that are told apart as a category; scikit-learn's trees take at most 255
WINDOWS_DAYS = (7, 30)
# What is counted of the whole journey has a name that no column can have: customers' columns go by their own, and may
# well be called events.
EVENTS, RECENCY = "journey:events", "journey:recency_days"
SPAN, MEAN_GAP = "journey:span_days", "journey:mean_gap_days"
RECENT = {days: f"journey:events_{days}d" for days in WINDOWS_DAYS}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Aggregates:
    """Journeys to float32 [n, len(names)]; NaN where an aggregate does not exist (the recency of no event).

    spec: whose fields are read; values: by categorical field, its values in train, the most frequent first.
    """

    spec: AnySpec
    values: dict[str, tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the journeys table that are read."""
        fields = (*self.spec.sequence.categorical, *self.spec.sequence_numeric)
        return ("as_of", "event_time", *fields, *self.spec.customer_categorical, *self.spec.customer_numeric)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the aggregates, in the order of the matrix's columns; days for all times."""
        names = [EVENTS, RECENCY, SPAN, MEAN_GAP, *RECENT.values()]
        for field in self.spec.sequence.categorical:
            counted = self.values[field][:COUNTED_VALUES]
            names += [f"{field}={value}:count" for value in counted]
            names += [f"{field}={value}:recency_days" for value in counted]
            names.append(f"{field}:last")
        for field in self.spec.sequence_numeric:
            names += [f"{field}:{what}" for what in ("sum", "mean", "last", "max")]
        return (*names, *self.spec.customer_categorical, *self.spec.customer_numeric)

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """bool [columns]: which columns are codes, not quantities."""
        codes = {f"{field}:last" for field in self.spec.sequence.categorical} | set(self.spec.customer_categorical)
        return np.array([name in codes for name in self.names])

    def of(self, batch: pa.RecordBatch) -> Floats:
        """The aggregates of a batch of the journeys table, one row a journey.

        Times are days before as_of; a window of 7 days counts events in (as_of - 7 days, as_of). A code is the place
        of the value among the most frequent (0: none of them). Sums and means leave missing numbers out; the last is
        the last that is not missing.
        """
        rows = batch.num_rows
        length = pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64)
        owner = np.repeat(np.arange(rows), length)
        ends = np.cumsum(length)
        full = length > 0
        age = (microseconds(batch["as_of"])[owner] - microseconds(pc.list_flatten(batch["event_time"]))) / DAY_US

        out = np.full((rows, len(self.names)), np.nan, dtype=np.float32)
        column = {name: i for i, name in enumerate(self.names)}
        recency, span = np.full(rows, np.nan), np.full(rows, np.nan)
        recency[full] = age[ends[full] - 1]
        span[full] = age[(ends - length)[full]] - recency[full]
        out[:, column[EVENTS]] = length
        out[:, column[RECENCY]] = recency
        out[:, column[SPAN]] = span
        out[:, column[MEAN_GAP]] = np.where(length > 1, span / np.maximum(length - 1, 1), np.nan)
        for days, name in RECENT.items():
            out[:, column[name]] = np.bincount(owner[age < days], minlength=rows)

        for field in self.spec.sequence.categorical:
            code = self._codes(field, pc.list_flatten(batch[field]))
            counted = len(self.values[field][:COUNTED_VALUES])
            if counted:
                event = np.flatnonzero((code >= 1) & (code <= counted))
                cell = owner[event] * counted + code[event] - 1
                first = column[f"{field}={self.values[field][0]}:count"]
                out[:, first : first + counted] = np.bincount(cell, minlength=rows * counted).reshape(rows, counted)
                # events are oldest first, and of several assignments to one cell NumPy keeps the last
                last = np.full(rows * counted, np.nan)
                last[cell] = age[event]
                out[:, first + counted : first + 2 * counted] = last.reshape(rows, counted)
            out[full, column[f"{field}:last"]] = code[ends[full] - 1]
        for field in self.spec.sequence_numeric:
            self._numeric(out, column, field, pc.list_flatten(batch[field]), owner)
        for field in self.spec.customer_categorical:
            out[:, column[field]] = self._codes(field, batch[field])
        for field in self.spec.customer_numeric:
            out[:, column[field]] = pc.fill_null(batch[field], np.nan).to_numpy(zero_copy_only=False)
        return out

    def _codes(self, field: str, values: pa.Array) -> NDArray[np.int64]:
        place = pc.index_in(values, value_set=pa.array(self.values[field][:CODED_VALUES], pa.string()))
        return pc.fill_null(place, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1

    @staticmethod
    def _numeric(out: Floats, column: dict[str, int], field: str, flat: pa.Array, owner: NDArray[np.int64]) -> None:
        value = flat.to_numpy(zero_copy_only=False).astype(np.float64)
        there = np.flatnonzero(np.isfinite(value))
        value, owner = value[there], owner[there]
        rows = len(out)
        count = np.bincount(owner, minlength=rows)
        total = np.bincount(owner, weights=value, minlength=rows)
        with np.errstate(invalid="ignore"):
            out[:, column[f"{field}:mean"]] = total / count
        out[:, column[f"{field}:sum"]] = total
        if len(owner):
            starts = np.flatnonzero(np.append(True, np.diff(owner) != 0))
            out[owner[starts], column[f"{field}:max"]] = np.maximum.reduceat(value, starts)
            ends = np.append(starts[1:], len(owner)) - 1
            out[owner[ends], column[f"{field}:last"]] = value[ends]


def fit_aggregates(journeys: Path, spec: AnySpec) -> Aggregates:
    """Learns from train which values of each categorical field are the most frequent; equally frequent ones by name."""
    fields = (*spec.sequence.categorical, *spec.customer_categorical)
    counts: dict[str, dict[str, int]] = {field: {} for field in fields}
    for batch in scan(journeys, "train", fields):
        for field in fields:
            values = pc.list_flatten(batch[field]) if field in spec.sequence.categorical else batch[field]
            for entry in pc.value_counts(values.cast(pa.string())).to_pylist():
                if entry["values"] is not None:
                    counts[field][entry["values"]] = counts[field].get(entry["values"], 0) + entry["counts"]
    return Aggregates(
        spec,
        {field: tuple(sorted(found, key=lambda v: (-found[v], v))[:CODED_VALUES]) for field, found in counts.items()},
    )
