"""Records dealt out by customer, so that networks can be trained without a fold's customers.

The fold, and all that is drawn by customer within it, hang on a hash of the customer's key alone: they are the same in
every run, for every assignment of a customer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
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
_THINNED = "train"  # the split whose known negatives sampling.negative_rate takes away; in every other all are there


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
    files: Mapping[str, Sequence[str]],
    schema: RecordSchema,
    folds: int,
    directory: Path,
    known_negative: tuple[float, float, float],
) -> Dealt:
    """Writes the records of `files`, by split, into one file a fold and purpose below `directory`.

    known_negative: (gap + longest horizon, longest horizon, rate): of train's journeys observed for the first without a
    conversion before the second, a share `rate` was kept. To learn from, those of other splits weigh `rate`, as if all
    were thinned alike, which the network's correction undoes; to stop and calibrate by, train's weigh 1 / rate and all
    others 1, which is the population that the corrected network speaks of. Journeys that have an assignment are scored
    too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = {
        kind: [str(directory / f"{kind}-{fold}.tfrecord.gz") for fold in range(folds)] for kind in Dealt.__annotations__
    }
    keys = schema.label_parsing(keys=True) | schema.assignment_parsing()
    with contextlib.ExitStack() as stack:
        writers = {
            kind: [stack.enter_context(tf.io.TFRecordWriter(path, _FAST)) for path in paths]
            for kind, paths in names.items()
        }
        for split, shards in files.items():
            for serialized in _batches(shards):
                parsed = tf.io.parse_example(serialized, keys)
                buckets = bucket(parsed["customer_key"])
                fold, stops = fold_of(buckets, folds), stopping(buckets, folds)
                assigned, had = parsed["treated"].numpy() >= 0, parsed["weight"].numpy()
                weight = _weights(parsed, stops, known_negative, thinned=split == _THINNED)
                for row, record in enumerate(serialized.numpy()):
                    weighted = record if weight[row] == had[row] else _with_weight(record, float(weight[row]))
                    writers["stop" if stops[row] else "learn"][fold[row]].write(weighted)
                    if assigned[row]:
                        writers["score"][fold[row]].write(record)
    return Dealt(**names)


def campaigns_of(files: Sequence[str], schema: RecordSchema) -> list[str]:
    """The campaigns that the records of these files are assigned to, sorted; of files dealt out to be scored."""
    found: set[bytes] = set()
    for serialized in _batches(files):
        parsed = tf.io.parse_example(serialized, schema.assignment_parsing())
        found.update(parsed["assigned_campaign"].numpy().tolist())
    return sorted(campaign.decode() for campaign in found)


def _batches(files: Sequence[str]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(list(files), compression_type="GZIP", buffer_size=1 << 20).batch(_BATCH).prefetch(2)


def _weights(
    parsed: dict[str, tf.Tensor],
    stops: NDArray[np.bool_],
    known_negative: tuple[float, float, float],
    *,
    thinned: bool,
) -> NDArray[np.float32]:
    """float32 [n]: what each record weighs where it goes. stops: bool [n], by which a network stops."""
    known, horizon, rate = known_negative
    had = parsed["weight"].numpy()
    if rate == 1:
        return had
    never = (parsed["observed_days"].numpy() >= known) & (parsed["days_to_conversion"].numpy() >= horizon)
    learning, natural = (1.0, 1 / rate) if thinned else (rate, 1.0)
    return np.where(never, np.where(stops, natural, learning), 1.0).astype(np.float32)


def _with_weight(record: bytes, weight: float) -> bytes:
    example = tf.train.Example.FromString(record)
    example.features.feature["weight"].float_list.value[:] = [weight]
    return example.SerializeToString()
