"""What the journeys of a split look like: shares of values, deciles, lengths, recency, scores.

Made from train when a model is exported, kept beside it, and made again with the same cells from the journeys that the
model is asked about: deploy.monitor compares the two. Reads the Parquet in batches and never holds the table. No cell
of the reference tells of fewer than `min_customers` customers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.cli import UserError
from preprocessing.spec import DAY_US, AnySpec
from trainer.cells import Cells, Sample, Values
from trainer.outcomes import batches_of, microseconds

FORMAT = 1
RECENCY_DAYS = (1.0, 2.0, 4.0, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0)
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765)
AT_ASSIGNMENTS = ("assigned_train", "assigned")  # another population than that of snapshots: whom campaigns chose
Floats = NDArray[np.float64]


def journey_statistics(
    journeys: Path,
    split: str | None,
    spec: AnySpec,
    min_customers: int,
    *,
    reference: dict[str, Any] | None = None,
    scores: pa.Table | None = None,
) -> dict[str, Any]:
    """Shares by cell of every field, of length, recency and scores; what JSON can hold.

    journeys: a directory with the journeys table (part-*.parquet, else all *.parquet), or one file. split: whose rows
    count, None: all but AT_ASSIGNMENTS. Train rows count by what they stand for in the population where negatives were
    thinned. reference: what this function returned before, whose cells are used; None makes them: values that
    `min_customers` customers hold, deciles. scores: a table with customer_key and p_<h>d, one row a journey; None:
    no scores.

    Returns {"format", "split", "min_customers", "journeys", "customers", "fields": {name: cells}, "length": cells,
    "recency": cells, "scores": {horizon: cells}}. cells are {"kind": "categorical", "of": "events" or "journeys",
    "values", "shares", "other", "missing"}, or {"kind": "numeric", "of", "edges", "shares", "missing", "mean"}: cell i
    holds edges[i-1] <= x < edges[i]; a journey without an event has no recency, which counts as missing. Shares are of
    all, the missing too, and sum to 1. With a reference also "few", "other_few" and "missing_few": which shares fewer
    than min_customers customers stand for, and "new": {value: share} of values that the reference lacks and that at
    least so many customers hold.

    Raises UserError where there is no such table, a column is missing, or no row counts.
    """
    fields = _fields(spec)
    numeric = [name for name, (kind, _) in fields.items() if kind == "numeric"]
    edges = {name: _edges_of(reference["fields"][name], name) for name in numeric} if reference else None
    if edges is None:
        samples = {name: Sample() for name in numeric}
        for batch in batches(journeys, split, _columns(spec, split)) if numeric else ():
            weight = _weight(batch, split, spec)
            for name in numeric:
                value, journey = _values(batch, name, fields[name][1])
                samples[name].add(value.to_numpy(zero_copy_only=False).astype(np.float64), weight[journey])
        edges = {name: sample.deciles() for name, sample in samples.items()}
    known = (
        {name: tuple(found["values"]) for name, found in reference["fields"].items() if "values" in found}
        if (reference)
        else {}
    )
    cells: dict[str, Cells] = {name: Cells(edges[name], min_customers) for name in numeric}
    words = {
        name: Values(known.get(name), min_customers) for name, (kind, _) in fields.items() if kind == "categorical"
    }
    length = Cells(_edges_of(reference["length"], "length") if reference else _lengths(spec), min_customers)
    recency = Cells(_edges_of(reference["recency"], "recency") if reference else np.array(RECENCY_DAYS), min_customers)

    rows, customers = 0, Customers()
    for batch in batches(journeys, split, _columns(spec, split)):
        rows += batch.num_rows
        holder, keys = customers.of(batch["customer_key"])
        weight = _weight(batch, split, spec)
        for name, (kind, of) in fields.items():
            value, journey = _values(batch, name, of)
            if kind == "numeric":
                number = value.to_numpy(zero_copy_only=False).astype(np.float64)
                cells[name].add(number, weight[journey], holder[journey], keys)
            else:
                words[name].add(value, weight[journey], holder[journey], keys)
        long = pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.float64)
        length.add(long, weight, holder, keys)
        recency.add(_recency(batch, long.astype(np.int64)), weight, holder, keys)
    if not rows:
        raise UserError(f"{journeys}: no journey{f' of split {split!r}' if split else ''} here")
    made = reference is None
    return {
        "format": FORMAT,
        "split": split,
        "min_customers": min_customers,
        "journeys": rows,
        "customers": customers.count,
        "fields": {
            name: {"kind": kind, "of": of, **(cells[name].told(made) if kind == "numeric" else words[name].told(made))}
            for name, (kind, of) in fields.items()
        },
        "length": {"kind": "numeric", "of": "journeys", **length.told(made)},
        "recency": {"kind": "numeric", "of": "journeys", **recency.told(made)},
        "scores": {} if scores is None else score_statistics(scores, spec.horizons_days, min_customers, reference),
    }


def score_statistics(
    scores: pa.Table, horizons: tuple[int, ...], min_customers: int, reference: dict[str, Any] | None = None
) -> dict[str, Any]:
    """{horizon: cells} of the probabilities p_<h>d, by deciles of the reference's (None: of these).

    Horizons that a reference was not told of are left out. Raises UserError where a column is missing.
    """
    found = {}
    for horizon in map(str, horizons):
        if reference is not None and horizon not in reference["scores"]:
            continue
        missing = [name for name in ("customer_key", f"p_{horizon}d") if name not in scores.column_names]
        if missing:
            raise UserError(
                f"scores: no column {missing[0]!r}; expected customer_key and p_<h>d, as predict writes them"
            )
        score = scores[f"p_{horizon}d"].cast(pa.float64()).to_numpy()
        weight = np.ones(len(score))
        if reference is None:
            sample = Sample()
            sample.add(score, weight)
            edges = sample.deciles()
        else:
            edges = _edges_of(reference["scores"][horizon], f"scores {horizon}")
        cells = Cells(edges, min_customers)
        holder, keys = Customers().of(scores["customer_key"].combine_chunks())
        cells.add(score, weight, holder, keys)
        found[horizon] = {"kind": "numeric", "of": "journeys", **cells.told(reference is None)}
    return found


class Customers:
    """Distinct customers, told apart by 64 bits of their key: eight bytes a customer and no more."""

    def __init__(self) -> None:
        self._seen: NDArray[np.uint64] = np.zeros(0, np.uint64)

    @property
    def count(self) -> int:
        return len(self._seen)

    def of(self, column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Codes int64 [n] of the rows' customers, and the customers' numbers by code."""
        encoded = column.cast(pa.string()).dictionary_encode()
        numbers = np.array([_number(key) for key in encoded.dictionary.to_pylist()], np.uint64)
        self._seen = np.union1d(self._seen, numbers)
        return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), numbers


def _number(key: str) -> int:
    try:
        return int(key[:16], 16)
    except ValueError:
        raise UserError(f"customer_key {key!r}: expected the hexadecimal letters of an HMAC") from None


def _fields(spec: AnySpec) -> dict[str, tuple[str, str]]:
    """By field: its kind, and whether events or journeys hold it."""
    return {
        **dict.fromkeys(spec.sequence.categorical, ("categorical", "events")),
        **dict.fromkeys(spec.sequence_numeric, ("numeric", "events")),
        **dict.fromkeys(spec.customer_categorical, ("categorical", "journeys")),
        **dict.fromkeys(spec.customer_numeric, ("numeric", "journeys")),
    }


def _columns(spec: AnySpec, split: str | None) -> list[str]:
    thinned = ["days_to_conversion", "observed_days"] if split == "train" and spec.sampling.negative_rate < 1 else []
    return ["customer_key", "as_of", "event_time", *_fields(spec), *thinned]


def batches(journeys: Path, split: str | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a split (None: all but AT_ASSIGNMENTS), in the order of the files, none empty. Raises UserError."""
    expected = "the journeys table of this model's spec"
    return batches_of(parts(journeys), split, columns, expected, without=AT_ASSIGNMENTS)


def parts(journeys: Path) -> list[Path]:
    """The files of a journeys table, in order. Raises UserError where there is none."""
    if journeys.is_file():
        return [journeys]
    found = sorted(journeys.glob("part-*.parquet"))
    found = found or sorted(path for path in journeys.glob("*.parquet") if path.stem != "set_aside")
    if not found:
        raise UserError(f"{journeys}: no journeys here; expected a Parquet file, or a directory with part-*.parquet")
    return found


def _values(batch: pa.RecordBatch, name: str, of: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """A field's values, and the row of each."""
    if of == "journeys":
        return batch[name], np.arange(batch.num_rows)
    lengths = pc.list_value_length(batch[name]).to_numpy(zero_copy_only=False).astype(np.int64)
    return pc.list_flatten(batch[name]), np.repeat(np.arange(batch.num_rows), lengths)


def _weight(batch: pa.RecordBatch, split: str | None, spec: AnySpec) -> Floats:
    """float64 [rows]: how many journeys of the population each stands for, as trainer.outcomes has it."""
    rate = spec.sampling.negative_rate
    if split != "train" or rate == 1:
        return np.ones(batch.num_rows)
    horizon = spec.horizons_days[-1]
    days = pc.fill_null(batch["days_to_conversion"], np.inf).to_numpy(zero_copy_only=False)
    observed = batch["observed_days"].to_numpy(zero_copy_only=False)
    never = (observed >= spec.gap_days + horizon) & ~(days < horizon)
    return np.where(never, 1 / rate, 1.0)


def _recency(batch: pa.RecordBatch, lengths: NDArray[np.int64]) -> Floats:
    """float64 [rows]: days from the last event to as_of; NaN without an event."""
    recency = np.full(batch.num_rows, np.nan)
    full = lengths > 0
    last = np.cumsum(lengths)[full] - 1
    times = microseconds(pc.list_flatten(batch["event_time"]))
    recency[full] = (microseconds(batch["as_of"])[full] - times[last]) / DAY_US
    return recency


def _lengths(spec: AnySpec) -> Floats:
    return np.array([edge for edge in LENGTHS if edge <= spec.sequence.max_events], np.float64)


def _edges_of(cells: dict[str, Any], name: str) -> Floats:
    if "edges" not in cells:
        raise UserError(f"statistics: {name} was no number when the model was trained; expected the same spec")
    return np.array(cells["edges"], np.float64)
