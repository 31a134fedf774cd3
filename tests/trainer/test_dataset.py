"""Records on disk, in and out: nothing lost, nothing double, the same order for the same seed."""

import dataclasses
import gzip
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.cli import UserError
from trainer.dataset import ordered_batches, record_files, scan, train_batches
from trainer.schema import RecordSchema

SCHEMA = RecordSchema(3, {"event_type": 5}, ("amount", "log_gap"), {"segment": 4}, ("age",))
INF = math.inf


def example(number, length=1, days=INF, observed=100.0, weight=1.0, **extra):
    def ints(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(*values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def text(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    steps = [2] * length + [0] * (3 - length)
    features = {
        "event_type": ints(*steps),
        "amount": floats(*steps),
        "log_gap": floats(*steps),
        "segment": ints(1),
        "age": floats(number),  # tells records apart where batches bear no keys
        "length": ints(length),
        "days_to_conversion": floats(days),
        "observed_days": floats(observed),
        "weight": floats(weight),
        "held_out": ints(number % 2),
        "as_of": ints(number),
        "journey_id": text(f"j{number}"),
        "customer_key": text(f"c{number}"),
    } | extra
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path, examples):
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for serialized in examples:
            writer.write(serialized)
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """50 records in three shards, the last of which is empty."""
    rng = np.random.default_rng(0)
    examples = [example(i, length=int(rng.integers(0, 4))) for i in range(50)]
    parts = (examples[:30], examples[30:], [])
    return [write(tmp_path / f"train-{i:05d}-of-00003.tfrecord.gz", part) for i, part in enumerate(parts)]


def test_files_in_order_and_complete(shards, tmp_path):
    assert record_files(tmp_path, "train") == shards
    assert record_files(tmp_path, "eval") == []
    (tmp_path / "train-00001-of-00003.tfrecord.gz").unlink()
    with pytest.raises(UserError, match=r"train-00001-of-00003\.tfrecord\.gz is missing"):
        record_files(tmp_path, "train")


def test_a_directory_may_be_called_what_would_be_a_pattern(shards, tmp_path):
    """A glob of the whole path would read run1 in place of `run[1]`."""
    (tmp_path / "run1").mkdir()
    (tmp_path / "run[1]").mkdir()
    write(tmp_path / "run1/train-00000-of-00001.tfrecord.gz", [example(1)])
    assert record_files(tmp_path / "run[1]", "train") == []
    own = [shutil.copy(shard, tmp_path / "run[1]") for shard in shards]
    assert record_files(tmp_path / "run[1]", "train") == own
    assert scan(own, SCHEMA, (7,), 0).journeys == 50
    assert len(list(ordered_batches(own, SCHEMA, batch_size=50))) == 1


def test_shards_of_two_runs_are_refused(shards, tmp_path):
    shutil.copy(shards[0], tmp_path / "train-00000-of-00001.tfrecord.gz")
    with pytest.raises(UserError, match="shards of different runs"):
        record_files(tmp_path, "train")


def test_scan_counts_by_hand(tmp_path):
    file = write(
        tmp_path / "train-00000-of-00001.tfrecord.gz",
        [
            example(0, days=3.0, weight=2.0),
            example(1, days=10.0),
            example(2),
            example(3, observed=20.0),  # the second interval is not observed to its end
        ],
    )
    counts = scan([file], SCHEMA, horizons=(7, 30), gap=0)
    assert counts.journeys == 4
    assert counts.at_risk.tolist() == [5.0, 2.0]
    assert counts.events.tolist() == [2.0, 1.0]
    assert scan([], SCHEMA, (7, 30), 0).journeys == 0


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.99])
def test_a_shard_cut_off_is_named(shards, share):
    """Wherever it was cut: unzipped, what is left may end between two records, or hold none."""
    broken = Path(shards[1])
    whole = broken.read_bytes()
    broken.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"train-00001-of-00003\.tfrecord\.gz: truncated or corrupt"):
        scan(shards, SCHEMA, (7,), 0)


def test_a_damaged_record_is_named(shards):
    broken = Path(shards[1])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-6] + bytes([whole[-6] ^ 0xFF]) + whole[-5:])  # in gzip's checksum
    with pytest.raises(UserError, match=r"train-00001-of-00003\.tfrecord\.gz: truncated or corrupt"):
        scan(shards, SCHEMA, (7,), 0)
    record = bytearray(gzip.decompress(whole))
    record[40] ^= 0xFF
    broken.write_bytes(gzip.compress(bytes(record)))  # in the record: TensorFlow's checksum
    with pytest.raises(UserError, match=r"train-00001-of-00003\.tfrecord\.gz: truncated or corrupt"):
        scan(shards, SCHEMA, (7,), 0)


def test_records_of_other_features_are_named(shards):
    other = RecordSchema(4, {"event_type": 5}, ("amount",), {"segment": 4}, ("age",))
    with pytest.raises(UserError, match=r"train-00000-of-00003\.tfrecord\.gz: not the records of this transform"):
        scan(shards, other, (7,), 0)


def test_an_epoch_holds_each_record_once_but_for_the_rest(shards):
    seen = set()
    for epoch in (1, 2):
        batches = train_batches(shards, SCHEMA, batch_size=8, window=2, seed=0, epoch=epoch)
        found = [features["event_type"].shape for features, _ in batches]
        assert found == [(8, 3)] * 6  # 50 records, 6 whole batches
        order = _identities(batches)
        assert len(order) == len(set(order)) == 48
        seen |= set(order)
    assert len(seen) > 48  # another two are left over in another epoch


def _identities(batches):
    return [float(value) for features, _ in batches for value in features["age"].numpy()]


def test_order_follows_from_seed_and_epoch(shards):
    def order(seed, epoch, skip=0):
        return _identities(train_batches(shards, SCHEMA, batch_size=8, window=2, seed=seed, epoch=epoch, skip=skip))

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1)[16:] == order(0, 1, skip=2)


def test_batches_hold_like_lengths(shards):
    def spread(window):
        return sum(
            int(np.ptp(f["length"].numpy()))
            for f, _ in train_batches(shards, SCHEMA, batch_size=8, window=window, seed=0, epoch=1)
        )

    assert spread(window=6) <= 6
    assert spread(window=1) >= 15


def test_ordered_batches_give_every_record_once_with_its_place(shards):
    batches = list(ordered_batches(shards, SCHEMA, batch_size=8, window=2))
    rows = np.concatenate([labels["row"].numpy() for _, labels in batches])
    keys = np.concatenate([labels["customer_key"].numpy() for _, labels in batches])
    assert sorted(rows.tolist()) == list(range(50))
    assert keys[np.argsort(rows)].tolist() == [f"c{i}".encode() for i in range(50)]
    for features, labels in batches:
        assert [f"c{int(age)}".encode() for age in features["age"].numpy()] == labels["customer_key"].numpy().tolist()


def test_a_field_may_be_called_as_the_place_of_a_record_is(tmp_path):
    schema = dataclasses.replace(SCHEMA, customer_numeric=("age", "row"))
    other = [tf.train.Feature(float_list=tf.train.FloatList(value=[100.0 - i])) for i in range(20)]
    examples = [example(i, length=i % 4, row=other[i]) for i in range(20)]
    file = write(tmp_path / "eval-00000-of-00001.tfrecord.gz", examples)
    for features, labels in ordered_batches([file], schema, batch_size=8, window=2):
        np.testing.assert_array_equal(features["row"].numpy(), 100 - features["age"].numpy())
        np.testing.assert_array_equal(labels["row"].numpy(), features["age"].numpy())
