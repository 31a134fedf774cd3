"""Transformed records as tf.data: gzip TFRecord shards in, batches of features and labels out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tensorflow as tf

from preprocessing.cli import UserError
from preprocessing.storage import join, matching
from trainer import hazard
from trainer.schema import RecordSchema

SHUFFLE = 32_768  # records held for shuffling: at 64 events some 50 MB
_SCAN = 4_096
_FRAME = 16  # bytes of a TFRecord beside the record: its length, and a checksum of each
_GZIP_LEAST = 20  # header, an empty block, checksum and length
_ROW = "row#"  # among the columns of a batch, of which none can be called so: a field's name is a word
_READ_ANEW = "make the records anew with: python -m preprocessing.task"


def record_files(records: str | Path, split: str) -> list[str]:
    """The split's shards in order, of a directory on disk or under gs://.

    Raises UserError where one is missing; an absent split gives an empty list.
    """
    files = matching(records, f"{split}-*.tfrecord.gz")
    total = 0
    for file in files:
        match = re.fullmatch(rf"{split}-\d{{5,}}-of-(\d{{5,}})\.tfrecord\.gz", file.rpartition("/")[2])
        if match is None:
            raise UserError(f"{file}: expected a name such as {split}-00000-of-00004.tfrecord.gz")
        total = max(total, int(match[1]))
    names = [f"{split}-{number:05d}-of-{total:05d}.tfrecord.gz" for number in range(total)]
    wanted = [join(records, name) for name in names]
    missing = [name for name, file in zip(names, wanted, strict=True) if file not in files]
    if missing:
        raise UserError(f"{records}: {missing[0]} is missing; {_READ_ANEW}")
    if files != wanted:
        raise UserError(f"{records}: {split}: shards of different runs; {_READ_ANEW}")
    return wanted


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a split holds; the arrays are float64 [intervals], weighted journeys."""

    journeys: int
    at_risk: np.ndarray
    events: np.ndarray


def scan(files: Sequence[str], schema: RecordSchema, horizons: Sequence[int], gap: int) -> Counts:
    """Reads every record once, two shards at a time, so that an unreadable one is named before training starts.

    Raises UserError that names the shard where it is truncated, corrupt, or made for other features.
    """
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda file: _scan_shard(file, schema, horizons, gap), files))
    none = np.zeros(len(horizons))
    return Counts(
        sum(part.journeys for part in parts),
        sum((part.at_risk for part in parts), none),
        sum((part.events for part in parts), none),
    )


def _scan_shard(file: str, schema: RecordSchema, horizons: Sequence[int], gap: int) -> Counts:
    everything = schema.feature_parsing() | schema.label_parsing(keys=True)
    journeys, at_risk, events, inflated = 0, np.zeros(len(horizons)), np.zeros(len(horizons)), 0
    try:
        for serialized in _records([file]).batch(_SCAN).prefetch(2):
            batch = tf.io.parse_example(serialized, everything)
            counts, converts = hazard.targets(batch["days_to_conversion"], batch["observed_days"], horizons, gap)
            journeys += int(serialized.shape[0])
            inflated += int(tf.reduce_sum(tf.strings.length(serialized))) + _FRAME * int(serialized.shape[0])
            weight = batch["weight"].numpy().astype(np.float64)
            at_risk += weight @ counts.numpy()
            events += weight @ converts.numpy()
        _check_length(file, inflated)
    except tf.errors.DataLossError as error:
        raise UserError(f"{file}: truncated or corrupt ({_first_line(error)}); {_READ_ANEW}") from None
    except tf.errors.NotFoundError:
        raise UserError(f"{file}: gone while it was read; {_READ_ANEW}") from None
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{file}: not the records of this transform/ ({_first_line(error)}); {_READ_ANEW}") from None
    except UnicodeDecodeError:  # TensorFlow's error quotes the record, and cannot be made of bytes that are no text
        raise UserError(f"{file}: not the records of this transform/ (bytes, no tf.Example); {_READ_ANEW}") from None
    return Counts(journeys, at_risk, events)


def _check_length(file: str, inflated: int) -> None:
    """TensorFlow takes a shard that was cut off between two records for a shorter one; gzip's last four bytes say how
    many bytes there were (RFC 1952, ISIZE, modulo 2^32)."""
    with tf.io.gfile.GFile(file, "rb") as raw:
        size = raw.size()
        if size < _GZIP_LEAST:
            raise UserError(f"{file}: truncated or corrupt ({size} bytes, no gzip file); {_READ_ANEW}")
        raw.seek(size - 4)
        told = int.from_bytes(raw.read(4), "little")
    if told != inflated % 2**32:
        raise UserError(f"{file}: truncated or corrupt (it ends after {inflated:,} bytes of records); {_READ_ANEW}")


def train_batches(
    files: Sequence[str], schema: RecordSchema, *, batch_size: int, window: int, seed: int, epoch: int, skip: int = 0
) -> tf.data.Dataset:
    """One epoch of whole batches, in an order that seed and epoch alone decide; the rest waits for another.

    `window` batches at a time are sorted by length and cut, then shuffled: a batch then holds journeys of like length,
    and the model computes less padding. `skip` batches are passed over, to go on in the middle of an epoch.
    Yields (features, labels): dicts of [batch_size, …] tensors.
    """
    features, labels = schema.feature_parsing(), schema.label_parsing()
    order = _seed_of(seed, epoch)
    shards = np.random.default_rng(order).permutation(np.asarray(files)).tolist()

    def cut(number: tf.Tensor, serialized: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        whole = tf.shape(serialized)[0] // batch_size * batch_size
        batch = tf.io.parse_example(serialized[:whole], features | labels)
        rows = tf.reshape(tf.argsort(batch["length"], stable=True), [-1, batch_size])
        mixed = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(rows)[0]), seed=[order, tf.cast(number, tf.int32)]
        )
        rows = tf.gather(rows, mixed)
        batch = {name: tf.gather(value, rows) for name, value in batch.items()}
        return {name: batch[name] for name in features}, {name: batch[name] for name in labels}

    dataset = _records(shards, at_once=min(4, max(1, len(shards)))).shuffle(
        SHUFFLE, seed=order, reshuffle_each_iteration=False
    )
    dataset = dataset.batch(batch_size * window).enumerate().map(cut, num_parallel_calls=2).unbatch()
    dataset = _distributable(dataset.skip(skip)).prefetch(4)
    options = tf.data.Options()
    options.experimental_warm_start = True  # reading begins while the step is traced
    return dataset.with_options(options)


def ordered_batches(
    files: Sequence[str],
    schema: RecordSchema,
    *,
    batch_size: int,
    window: int = 8,
    extra: Mapping[str, tf.io.FixedLenFeature] = MappingProxyType({}),
) -> tf.data.Dataset:
    """Every record once, keys and all, the last batch as small as it comes; like lengths together, as in training.

    extra: what else rides along and is wanted among the labels. Yields (features, labels): dicts of [up to batch_size,
    …] tensors; labels["row"], int64, is the place in the files.
    """
    features, labels = schema.feature_parsing(), schema.label_parsing(keys=True) | dict(extra)

    def by_length(number: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = tf.io.parse_example(serialized, features | labels)
        batch[_ROW] = number * batch_size * window + tf.range(tf.shape(serialized)[0], dtype=tf.int64)
        rows = tf.argsort(batch["length"], stable=True)
        return {name: tf.gather(value, rows) for name, value in batch.items()}

    def cut(window_batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(window_batch).batch(batch_size)

    dataset = _records(files).batch(batch_size * window).enumerate().map(by_length, num_parallel_calls=2).flat_map(cut)

    def parted(batch: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        return {name: batch[name] for name in features}, {name: batch[name] for name in labels} | {"row": batch[_ROW]}

    return _distributable(dataset.map(parted)).prefetch(4)


def _records(files: Sequence[str], at_once: int = 1) -> tf.data.Dataset:
    """Serialized records in the order of the files, or of `at_once` files interleaved: never an order by luck."""
    paths = tf.constant(list(files), tf.string)
    if at_once == 1:  # the interleaving of one file costs 4 µs a record
        records = _shards(paths)
    else:
        records = tf.data.Dataset.from_tensor_slices(paths).interleave(
            _shards, cycle_length=at_once, block_length=64, num_parallel_calls=2, deterministic=True
        )
    options = tf.data.Options()
    # All parallelism is set here. Autotuning would tune nothing, and its thread, which looks ever less often, holds up
    # the end of an epoch until it wakes: 7 s after one of 14 s, up to a minute after longer ones.
    options.autotune.enabled = False
    return records.with_options(options)


def _shards(paths: tf.Tensor) -> tf.data.Dataset:
    """Serialized records of one shard, or of several one after the other."""
    return tf.data.TFRecordDataset(paths, compression_type="GZIP", buffer_size=1 << 20)


def _distributable(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Several workers share the records, not the shards, of which there may be fewer than workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.deterministic = True
    return dataset.with_options(options)


def _seed_of(seed: int, epoch: int) -> int:
    """One int32 a (seed, epoch), far from its neighbours'."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


def _first_line(error: tf.errors.OpError) -> str:
    return error.message.splitlines()[0][:200]
