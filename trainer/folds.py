"""Records dealt out by customer, so that networks can be trained without a fold's customers.

The fold, and all that is drawn by customer within it, hang on a hash of the customer's key alone: they are the same in
every run, for every assignment of a customer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.assignments import BUCKETS, fold_of, stopping
from trainer.schema import RecordSchema

_SALT = (0x70617263, 0x6F757273)
_BATCH = 4_096
_FAST = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


@dataclass(frozen=True)
class Dealt:
    """Record files by fold: to learn from, to stop and calibrate by (for the networks of other folds), to score."""

    learn: list[str]
    stop: list[str]
    score: list[str]


def bucket(customer_key: NDArray[np.object_] | tf.Tensor) -> NDArray[np.int64]:
    """int64 [n] below BUCKETS: a hash (SipHash) of the customer's key."""
    return tf.strings.to_hash_bucket_strong(customer_key, BUCKETS, key=_SALT).numpy()


def deal(
    files: Sequence[str], schema: RecordSchema, folds: int, directory: Path, known_negative: tuple[float, float, float]
) -> Dealt:
    """Writes the records of `files` into one file a fold and purpose below `directory`.

    known_negative: (gap + longest horizon, longest horizon, weight): journeys observed for the first without a
    conversion before the second get at most this weight, where train was downsampled by it. Journeys that have an
    assignment are scored too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = {
        kind: [str(directory / f"{kind}-{fold}.tfrecord.gz") for fold in range(folds)] for kind in Dealt.__annotations__
    }
    keys = schema.label_parsing(keys=True) | schema.assignment_parsing()
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP", buffer_size=1 << 20).batch(_BATCH)
    with contextlib.ExitStack() as stack:
        writers = {
            kind: [stack.enter_context(tf.io.TFRecordWriter(path, _FAST)) for path in paths]
            for kind, paths in names.items()
        }
        for serialized in records.prefetch(2):
            parsed = tf.io.parse_example(serialized, keys)
            buckets = bucket(parsed["customer_key"])
            fold, stops = fold_of(buckets, folds), stopping(buckets, folds)
            assigned = parsed["treated"].numpy() >= 0
            lighter = _lighter(parsed, known_negative)
            for row, record in enumerate(serialized.numpy()):
                weighted = _with_weight(record, known_negative[2]) if lighter[row] else record
                writers["stop" if stops[row] else "learn"][fold[row]].write(weighted)
                if assigned[row]:
                    writers["score"][fold[row]].write(record)
    return Dealt(**names)


def _lighter(parsed: dict[str, tf.Tensor], known_negative: tuple[float, float, float]) -> NDArray[np.bool_]:
    known, horizon, weight = known_negative
    if weight == 1:
        return np.zeros(len(parsed["weight"]), bool)
    return (
        (parsed["observed_days"].numpy() >= known)
        & (parsed["days_to_conversion"].numpy() >= horizon)
        & (parsed["weight"].numpy() > weight)
    )


def _with_weight(record: bytes, weight: float) -> bytes:
    example = tf.train.Example.FromString(record)
    example.features.feature["weight"].float_list.value[:] = [weight]
    return example.SerializeToString()
