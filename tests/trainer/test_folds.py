"""Records dealt out by customer: nobody in two folds, nothing lost, the same in every run, each weighed for its use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.assignments import fold_of, part_of, stopping
from trainer.folds import Dealt, bucket, campaigns_of, deal
from trainer.schema import RecordSchema

FOLDS = 3
SCHEMA = RecordSchema(1, {}, (), {}, ())


NEVER = float("inf")


def _record(number: int, treated: int, days: float = NEVER, *, name: str = "j", observed=40.0, weight=1.0) -> bytes:
    campaign = "" if treated < 0 else "été" if number % 2 else "sale"
    text = {"customer_key": f"customer {number // 2}", "journey_id": f"{name}{number}", "assigned_campaign": campaign}
    whole = {"as_of": number, "held_out": 0, "treated": treated}
    floats = {"days_to_conversion": days, "observed_days": observed, "weight": weight, "days_since_conversion": 3.0}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode()])) for key, v in text.items()}
    feature |= {key: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])) for key, v in whole.items()}
    feature |= {key: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for key, v in floats.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _values(file: str, name: str) -> list:
    found = []
    for record in tf.data.TFRecordDataset(file, compression_type="GZIP").as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature[name]
        found += list(feature.bytes_list.value) + list(feature.float_list.value)
    return found


@pytest.fixture
def source(tmp_path: Path) -> str:
    """600 journeys of 300 customers: snapshots (-1), held out and treated; every tenth converts on day 5."""
    return _written(
        tmp_path / "source.tfrecord.gz",
        [_record(number, number % 3 - 1, 5.0 if number % 10 == 0 else NEVER) for number in range(600)],
    )


def _written(path: Path, records: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def _dealt(source: str, directory: Path) -> Dealt:
    return deal({"eval": [source]}, SCHEMA, FOLDS, directory, (30.0, 30.0, 1.0))


def test_every_journey_is_dealt_once_and_every_customer_to_one_fold(source: str, tmp_path: Path) -> None:
    dealt = _dealt(source, tmp_path / "dealt")
    owners: dict[bytes, set[int]] = {}
    journeys: list[bytes] = []
    for kind in (dealt.learn, dealt.stop):
        for fold, file in enumerate(kind):
            journeys += _values(file, "journey_id")
            for key in _values(file, "customer_key"):
                owners.setdefault(key, set()).add(fold)
    assert sorted(journeys) == sorted(f"j{n}".encode() for n in range(600))
    assert all(len(folds) == 1 for folds in owners.values())
    stop = {key for file in dealt.stop for key in _values(file, "customer_key")}
    assert stop.isdisjoint({key for file in dealt.learn for key in _values(file, "customer_key")})
    assert 10 < len(stop) < 60
    scored = [journey for file in dealt.score for journey in _values(file, "journey_id")]
    assert sorted(scored) == sorted(f"j{n}".encode() for n in range(600) if n % 3)
    for fold, file in enumerate(dealt.score):
        assert all(owners[key] == {fold} for key in _values(file, "customer_key"))


def test_each_record_weighs_what_it_stands_for(tmp_path: Path) -> None:
    """A quarter of train's known negatives was kept. To learn from, all known negatives count a quarter of what there
    were: train's by being few, others by weight. To stop and calibrate by, all count as often as there were."""
    files = {
        split: [
            _written(
                tmp_path / split,
                [_record(n, treated, name=f"{split} never ", weight=weight) for n in range(200)]
                + [_record(n, treated, 5.0, name=f"{split} converts ") for n in range(200)]
                + [_record(n, treated, name=f"{split} unknown ", observed=20.0) for n in range(200)],
            )
        ]
        for split, treated, weight in (("train", -1, 1.0), ("eval", -1, 1.0), ("assigned_train", 1, 0.25))
    }
    dealt = deal(files, SCHEMA, FOLDS, tmp_path / "dealt", (30.0, 30.0, 0.25))
    found = {
        kind: {
            (journey.decode().rpartition(" ")[0], weight)
            for file in getattr(dealt, kind)
            for journey, weight in zip(_values(file, "journey_id"), _values(file, "weight"), strict=True)
        }
        for kind in ("learn", "stop", "score")
    }
    others = {(f"{split} {fate}", 1.0) for split in files for fate in ("converts", "unknown")}
    assert found["learn"] == others | {("train never", 1.0), ("eval never", 0.25), ("assigned_train never", 0.25)}
    assert found["stop"] == others | {("train never", 4.0), ("eval never", 1.0), ("assigned_train never", 1.0)}
    assert ("assigned_train never", 0.25) in found["score"]  # as it was: no weight has a part in scoring
    whole = deal(files, SCHEMA, FOLDS, tmp_path / "whole", (30.0, 30.0, 1.0))
    assert set(_values(whole.stop[0], "weight")) == {1.0, 0.25}  # nothing was thinned, and nothing is changed


def test_the_campaigns_of_the_assignments(source: str, tmp_path: Path) -> None:
    assert campaigns_of(_dealt(source, tmp_path / "dealt").score, SCHEMA) == ["sale", "été"]


def test_folds_parts_and_stopping_are_independent_of_one_another() -> None:
    buckets = bucket(tf.constant([f"customer {n}" for n in range(20_000)]))
    fold, part, stop = fold_of(buckets, 2), part_of(buckets, 2, 5), stopping(buckets, 2)
    assert np.bincount(fold) / 20_000 == pytest.approx([0.5, 0.5], abs=0.02)
    for kept in (stop, ~stop):
        for one in range(2):
            shares = np.bincount(part[kept & (fold == one)], minlength=5) / (kept & (fold == one)).sum()
            assert shares == pytest.approx([0.2] * 5, abs=0.05)
    assert stop.mean() == pytest.approx(0.1, abs=0.01)
    assert bucket(tf.constant(["a"])).tolist() == bucket(tf.constant(["a"])).tolist()
