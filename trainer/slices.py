"""The LSTM on parts of the test journeys: by last channel, segment, length, new or returning, with intervals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.spec import DAY_US, AnySpec, EventsSpec
from trainer.bootstrap import Slice, customer_weights, interval
from trainer.comparison import verdict
from trainer.metrics import METRICS, Scores, log_losses
from trainer.outcomes import Outcomes, matched, microseconds

MOST_VALUES = 8  # of a field that get a slice of their own; the rest is "other"
MOST_DISTINCT = 50  # a field with more is no way of parting customers that anybody would read
MOST_FIELDS = 8
NEW_DAYS = 30
LENGTHS = (0, 1, 2, 5, 10, 20, 50)  # where each bucket of events starts
MEASURED = ("mean_prediction", "roc_auc", "pr_auc", "log_loss", "calibration_error")
_SPOKEN = {"": "missing", "__rare__": "rare values"}
_EQUALITY = re.compile(r"""\s*[`"]?(\w+)[`"]?\s*==?\s*'((?:[^']|'')*)'\s*""")


@dataclass(frozen=True)
class Partition:
    """n journeys parted by something: its name, the parts' labels, and each journey's part, int64 [n]."""

    name: str
    labels: tuple[str, ...]
    part: NDArray[np.int64]


def partitions(journeys: Path, spec: AnySpec, wanted: Outcomes, split: str, notes: list[str]) -> list[Partition]:
    """The ways in which the wanted journeys of a split are parted; one that has a single part is left out.

    Categorical fields with few values: of sequence fields the last event's value, of customer fields the value. Number
    of events. Whether the journey holds a conversion, where `conversion.where` is one equality on a sequence field; how
    long ago its first visible event was; whether the customer was held out of training.
    """
    found: list[Partition] = []
    for field, values in _values(journeys, spec, wanted, split).items():
        name = f"{field} of the last event" if field in spec.sequence.categorical else field
        distinct = pc.count_distinct(values).as_py()
        if distinct > MOST_DISTINCT:
            notes.append(f"No slices by {field}: it has {distinct:,} values, more than {MOST_DISTINCT}.")
        elif len(found) == MOST_FIELDS:
            notes.append(f"No slices by {field}: {MOST_FIELDS} fields are parted already.")
        else:
            found.append(_by_value(name, values))
    found.append(_by_length(wanted.length))
    if isinstance(spec, EventsSpec):
        found += _by_history(journeys, spec, wanted, split)
    found.append(Partition("customers", ("seen in training", "held out"), wanted.held_out.astype(np.int64)))
    return [one for one in found if len(np.unique(one.part)) > 1]


def by_slice(
    whole: Slice,
    parted: list[Partition],
    baseline: str | None,
    *,
    customer: NDArray[np.int64],
    smallest: int,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A dict a slice of `whole`, in the partitions' order; where fewer than `smallest` customers are in it, no figures.

    customer: int64 [n], codes of the table that whole's rows index; baseline: whose log loss is subtracted from the
    LSTM's, over the same draws of customers (None: no difference).
    """
    lstm = whole.models["lstm"]
    gap = None
    if baseline is not None:
        gap = np.subtract(*(log_losses(one.converted, one.probability) for one in (lstm, whole.models[baseline])))
    entries, measured = [], []
    for parting in parted:
        part = parting.part[whole.rows]
        for i, label in enumerate(parting.labels):
            here = np.flatnonzero(part == i)
            if not len(here):
                continue
            rows = whole.rows[here]
            customers = len(np.unique(customer[rows]))
            entry: dict[str, Any] = {"by": parting.name, "slice": label, "suppressed": None}
            entries.append(entry)
            if customers < smallest:
                entry["suppressed"] = f"fewer than {smallest} customers"
                continue
            scores = Scores(lstm.converted[here], lstm.probability[here])
            entry |= {"journeys": len(here), "customers": customers, "conversions": int(scores.converted.sum())}
            measured.append((entry, rows, scores, None if gap is None else gap[here]))
    drawn = np.full((len(measured), draws, len(METRICS) + 1), np.nan)
    for draw, weight in enumerate(customer_weights(customer, draws, seed) if measured else ()):
        for values, (_, rows, scores, difference) in zip(drawn, measured, strict=True):
            weights = weight[rows]
            values[draw, :-1] = scores.evaluate(weights)
            if difference is not None and weights.any():
                values[draw, -1] = weights @ difference / weights.sum()
    for values, (entry, _, scores, difference) in zip(drawn, measured, strict=True):
        point = scores.evaluate()
        tell = {name: interval(name, point[i], values[:, i]) for i, name in enumerate(METRICS)}
        entry["base_rate"] = tell["base_rate"]
        entry["lstm"] = {name: tell[name] for name in MEASURED}
        if difference is not None:
            bounds = interval("difference", float(difference.mean()), values[:, -1])
            entry["difference"] = {
                "model": baseline,
                "log_loss": {**bounds, "verdict": verdict("log_loss", bounds["low"], bounds["high"])},
            }
    return entries


def earlier_conversion(spec: EventsSpec) -> tuple[str, str] | None:
    """(field, value) where conversion.where is one equality on a sequence field, so that a journey shows its own."""
    match = _EQUALITY.fullmatch(spec.conversion.where)
    if match is None or match[1] not in spec.sequence.categorical:
        return None
    return match[1], match[2].replace("''", "'")


def _ends(batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Events of each journey, and where among the flat events the journey ends."""
    length = pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64)
    return length, np.cumsum(length)


def _values(journeys: Path, spec: AnySpec, wanted: Outcomes, split: str) -> dict[str, pa.Array]:
    """By categorical field its value for each wanted journey (of a sequence field the last; null: no event)."""
    fields = (*spec.sequence.categorical, *spec.customer_categorical)
    places, parts = [], {field: [pa.array([], pa.string())] for field in fields}
    for place, batch in matched(journeys, split, wanted, ("event_time", *fields)):
        length, ends = _ends(batch)
        last = pa.array(ends - 1, mask=length == 0)
        places.append(place)
        for field in fields:
            values = batch[field]
            if field in spec.sequence.categorical:
                values = pc.list_flatten(values).take(last)
            parts[field].append(values.cast(pa.string()))
    order = pa.array(np.argsort(np.concatenate(places))) if places else pa.array([], pa.int64())
    return {field: pa.concat_arrays(found).take(order) for field, found in parts.items()}


def _by_value(name: str, values: pa.Array) -> Partition:
    """The most frequent values, equally frequent ones by name; then the rest, and journeys without an event."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    counts.pop(None, None)
    kept = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_VALUES]
    place = pc.index_in(values, value_set=pa.array(kept, pa.string()), skip_nulls=True)
    part = pc.fill_null(place, len(kept)).to_numpy(zero_copy_only=False).astype(np.int64)
    part[values.is_null().to_numpy(zero_copy_only=False)] = len(kept) + 1
    return Partition(name, (*(_SPOKEN.get(value, value) for value in kept), "other", "no events"), part)


def _by_length(length: NDArray[np.int64]) -> Partition:
    labels = []
    for low, high in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        only = "none" if low == 0 else str(low)
        labels.append(f"{low} or more" if high is None else only if high == low + 1 else f"{low} to {high - 1}")
    return Partition("events", tuple(labels), np.searchsorted(LENGTHS, length, side="right").astype(np.int64) - 1)


def _by_history(journeys: Path, spec: EventsSpec, wanted: Outcomes, split: str) -> list[Partition]:
    """Whether a conversion lies in the visible journey, and how old its first visible event is."""
    asked = earlier_conversion(spec)
    before = np.zeros(len(wanted), dtype=np.int64)
    first_seen = np.full(len(wanted), 2)
    columns = ("as_of", "event_time", *((asked[0],) if asked else ()))
    for place, batch in matched(journeys, split, wanted, columns):
        length, ends = _ends(batch)
        full = length > 0
        if asked:
            held = pc.equal(pc.list_flatten(batch[asked[0]]), asked[1]).to_numpy(zero_copy_only=False)
            owner = np.repeat(np.arange(len(length)), length)
            before[place] = np.bincount(owner[held], minlength=len(length)) > 0
        first = microseconds(pc.list_flatten(batch["event_time"]))[(ends - length)[full]]
        old = microseconds(batch["as_of"])[full] - first > NEW_DAYS * DAY_US
        # a journey cut at max_events may have begun before what is left of it
        cut = length[full] >= spec.sequence.max_events
        first_seen[place[full]] = np.where(old, 1, np.where(cut, 3, 0))
    found = []
    if asked:
        found.append(Partition("earlier conversion in the journey", ("none (new)", "one or more (returning)"), before))
    if spec.snapshots.lookback_days > NEW_DAYS:
        labels = (
            f"within {NEW_DAYS} days (new)",
            "earlier (returning)",
            "no events",
            "cut at max_events",
        )
        found.append(Partition("first visible event", labels, first_seen))
    return found
