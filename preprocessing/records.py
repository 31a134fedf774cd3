"""TFRecord shards of transformed journeys, and what a summary says about them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindows

from preprocessing import wire
from preprocessing.features import OUT_OF_VOCABULARY, PADDING
from preprocessing.sources import AS_OF_ALONGSIDE
from preprocessing.spec import AnySpec
from preprocessing.storage import join

log = logging.getLogger(__name__)

RECORDS_PER_SHARD = 1 << 16
BATCHES_WAITING = 4  # for the thread that writes: some tens of megabytes
# zlib at level 1 takes half the time that it takes at level 6, its default, for files 9 % larger.
_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
Stats = dict[str, Any]


class WriteShards(beam.DoFn):
    """Writes transformed batches of one split to gzip TFRecord shards; yields (name aside, Stats) for each.

    Shards get a random name aside, since Beam may run a bundle twice; `finalise` names those that count.
    """

    def __init__(self, directory: str, split: str, spec: AnySpec) -> None:
        self._directory, self._split, self._spec = directory, split, spec

    def setup(self) -> None:
        # One thread, which keeps the order; numpy, zlib and TensorFlow let go of the interpreter, and so the next batch
        # is transformed while this one is written.
        self._thread = ThreadPoolExecutor(1)

    def teardown(self) -> None:
        self._thread.shutdown()

    def start_bundle(self) -> None:
        self._writer: tf.io.TFRecordWriter | None = None
        self._waiting: list[Future[None]] = []

    def process(self, element: tuple[pa.RecordBatch, dict[str, Any]]) -> Iterator[tuple[str, Stats]]:
        batch, _ = element
        if self._writer is None:
            self._name = f"{self._split}-{uuid.uuid4().hex}.aside"
            self._writer = tf.io.TFRecordWriter(join(self._directory, self._name), _OPTIONS)
            self._stats = empty_stats(self._spec)
        names = ["as_of" if name == AS_OF_ALONGSIDE else name for name in batch.schema.names]
        renamed = pa.RecordBatch.from_arrays(batch.columns, names=names)
        self._waiting.append(self._thread.submit(_write, self._writer, renamed))
        if len(self._waiting) > BATCHES_WAITING:
            self._waiting.pop(0).result()
        self._stats = merge_stats([self._stats, batch_stats(batch, self._spec)])
        if self._stats["journeys"] >= RECORDS_PER_SHARD:
            yield self._close()

    def finish_bundle(self) -> Iterator[Any]:
        if self._writer is not None:
            yield GlobalWindows.windowed_value(self._close())

    def _close(self) -> tuple[str, Stats]:
        assert self._writer is not None
        while self._waiting:
            self._waiting.pop(0).result()  # raises what the thread met
        self._writer.close()
        self._writer = None
        log.info("    %s journeys of %s written", f"{self._stats['journeys']:,}", self._split)
        return self._name, self._stats


def _write(writer: tf.io.TFRecordWriter, batch: pa.RecordBatch) -> None:
    for record in wire.examples(batch):
        writer.write(record)


def finalise(shards: Iterable[tuple[str, Stats]], directory: str, split: str, spec: AnySpec) -> tuple[str, Stats]:
    """Names a split's shards `train-00000-of-00003.tfrecord.gz`, by their first journey; returns their Stats."""
    ordered = sorted(shards, key=lambda shard: shard[1]["first"])
    for i, (name, _) in enumerate(ordered):
        target = join(directory, f"{split}-{i:05d}-of-{len(ordered):05d}.tfrecord.gz")
        if tf.io.gfile.exists(join(directory, name)):  # absent where Beam runs this a second time
            tf.io.gfile.rename(join(directory, name), target, overwrite=True)
        elif not tf.io.gfile.exists(target):
            raise FileNotFoundError(f"{target}: neither there nor aside as {name}")
    return split, merge_stats([empty_stats(spec), *(stats for _, stats in ordered)])


def empty_stats(spec: AnySpec) -> Stats:
    """Stats of no journey at all."""
    horizons = [str(h) for h in spec.horizons_days]
    return {
        "journeys": 0,
        "known": dict.fromkeys(horizons, 0),
        "conversions": dict.fromkeys(horizons, 0),
        "lengths": np.zeros(spec.sequence.max_events + 1, np.int64),
        "values": dict.fromkeys((*spec.sequence.categorical, *spec.customer_categorical), 0),
        "out_of_vocabulary": dict.fromkeys((*spec.sequence.categorical, *spec.customer_categorical), 0),
        "first": "~",  # sorts after every hexadecimal key
    }


def batch_stats(batch: pa.RecordBatch, spec: AnySpec) -> Stats:
    """Counts over one transformed batch."""

    def flat(name: str) -> np.ndarray:
        return batch.column(name).flatten().to_numpy(zero_copy_only=False)

    stats = empty_stats(spec)
    stats["journeys"] = batch.num_rows
    observed, days = flat("observed_days"), flat("days_to_conversion")
    for h in spec.horizons_days:
        known = observed >= spec.gap_days + h
        stats["known"][str(h)] = int(known.sum())
        stats["conversions"][str(h)] = int((known & (days < h)).sum())
    stats["lengths"] += np.bincount(flat("length"), minlength=spec.sequence.max_events + 1)
    for name in stats["values"]:
        ids = flat(name)
        stats["values"][name] = int((ids != PADDING).sum())
        stats["out_of_vocabulary"][name] = int((ids == OUT_OF_VOCABULARY).sum())
    if batch.num_rows:
        stats["first"] = batch.column("journey_id")[0].as_py()[0].decode()
    return stats


def merge_stats(many: Iterable[Stats]) -> Stats:
    """Sums counts; `first` is the least."""

    def merge(a: Any, b: Any) -> Any:
        if isinstance(a, dict):
            return {key: merge(a[key], b[key]) for key in a}
        return min(a, b) if isinstance(a, str) else a + b

    first, *rest = many
    for stats in rest:
        first = merge(first, stats)
    return first


def describe(stats: Stats) -> dict[str, Any]:
    """Stats as transform/summary.json holds them: rates, and the lengths' mean, median, 90th percentile and maximum."""
    lengths, n = stats["lengths"], max(stats["journeys"], 1)
    cumulative = np.cumsum(lengths)

    def quantile(q: float) -> int:
        return int(np.searchsorted(cumulative, q * stats["journeys"]))

    return {
        "journeys": stats["journeys"],
        "known": stats["known"],
        "conversions": stats["conversions"],
        "label_rate": {h: c / max(stats["known"][h], 1) for h, c in stats["conversions"].items()},
        "length": {
            "mean": float((lengths * np.arange(len(lengths))).sum() / n),
            "p50": quantile(0.5),
            "p90": quantile(0.9),
            "max": int(np.flatnonzero(lengths).max(initial=0)),
            "empty": int(lengths[0]),
            "histogram": lengths.tolist(),
        },
        "out_of_vocabulary": {
            name: count / max(stats["values"][name], 1) for name, count in stats["out_of_vocabulary"].items()
        },
    }
