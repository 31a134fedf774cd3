"""Assignments as columns, whatever the customer's fields are called; and where their records lie meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from preprocessing.blocks import ASKED
from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from preprocessing.spec import parse_spec
from preprocessing.storage import scratch
from tests.trainer.synthetic_run import SPEC
from trainer import crossfit
from trainer.crossfit import FoldNetwork, cross_fit
from trainer.schema import RecordSchema
from trainer.settings import Settings

# names of columns that the code has for itself, and one of its own
CATEGORICAL = ("state", "network", "known", "segment")
NUMERIC = ("converted", "without", "with_it", "row", "customer", "bucket")
SCHEMA = RecordSchema(1, {}, (), {**dict.fromkeys(CATEGORICAL, 4), ASKED: 4}, NUMERIC)
VOCABULARY = {name: ["a", "__none__"] for name in CATEGORICAL} | {ASKED: ["__none__", "sale"]}


def _record(number: int, days: float) -> bytes:
    text = {"customer_key": f"c{number}", "journey_id": f"j{number}", "assigned_campaign": "sale"}
    whole = {"as_of": 100 + number, "held_out": 0, "treated": number % 2, "length": 0, ASKED: 3}
    whole |= dict.fromkeys(CATEGORICAL, 1 + number % 3)
    floats = {"days_to_conversion": days, "observed_days": 40.0, "weight": 1.0, "days_since_conversion": 3.0}
    floats |= {name: 1_000.0 + place for place, name in enumerate(NUMERIC)}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode()])) for key, v in text.items()}
    feature |= {key: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])) for key, v in whole.items()}
    feature |= {key: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for key, v in floats.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _written(path: Path, rows: int) -> str:
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for number in range(rows):
            writer.write(_record(number, 5.0 if number == 2 else float("inf")))
    return str(path)


def _scoring(scorer: Any, horizon: int) -> Any:
    """A network that answers the number of the row in a hundredth, and 0.9 with the campaign."""

    def score(features: dict[str, tf.Tensor], none: tf.Tensor, asked: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.shape(asked)[0]
        return tf.cast(tf.range(rows), tf.float32) / 100, tf.fill([rows], 0.9), tf.ones([rows, 5])

    return score


def test_a_customers_field_may_be_called_as_a_column_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossfit, "scoring", _scoring)
    network = FoldNetwork(1, SimpleNamespace())  # type: ignore[arg-type]
    part = crossfit._score(network, _written(tmp_path / "score", 4), SCHEMA, parse_spec(SPEC), VOCABULARY)
    found = crossfit._together([part])
    assert found.journey_id.tolist() == ["j0", "j1", "j2", "j3"]
    assert found.without == pytest.approx([0, 0.01, 0.02, 0.03])
    assert found.with_it == pytest.approx([0.9] * 4)
    assert found.state.tolist() == [[1.0] * 5] * 4
    assert found.network.tolist() == [1] * 4
    assert found.converted.tolist() == [False, False, True, False]
    assert found.known.tolist() == [True] * 4
    assert set(found.categories) == set(CATEGORICAL)
    assert all(values.tolist() == ["(other)", "a", "(none)", "(other)"] for values in found.categories.values())
    assert {name: set(values) for name, values in found.numbers.items()} == {
        name: {1_000.0 + place} for place, name in enumerate(NUMERIC)
    }


def test_dealt_records_lie_where_a_later_run_clears_them(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    with run_dir.lock():
        with crossfit._aside(run_dir) as place:
            assert place.parent == run_dir.path
            place.mkdir()
        assert not place.exists()
        place.mkdir()  # as a kill leaves it
        (place / "learn-0.tfrecord.gz").write_text("customers")
    with run_dir.lock():
        assert not place.exists()


def test_dealt_records_of_a_run_directory_in_a_store_lie_beside_its_copies() -> None:
    with crossfit._aside(SimpleNamespace(is_remote=True)) as place:  # type: ignore[arg-type]
        assert place.parent == scratch()
        assert place.is_dir()
    assert not place.exists()


def test_campaigns_are_heard_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was dealt is gone where that ends it."""
    run_dir = RunDir(tmp_path / "run")
    for name in ("records", "transform"):
        (run_dir.path / name).mkdir(parents=True)
    _written(run_dir.records / "train-00000-of-00001.tfrecord.gz", 20)
    fields = {
        name: {"kind": "categorical", "size": 4, "vocabulary": VOCABULARY[name]} for name in (*CATEGORICAL, ASKED)
    }
    fields |= {name: {"kind": "numeric"} for name in NUMERIC}
    content = {"max_events": 1, "sequence": {}, "customer": fields}
    (run_dir.transform / "features.json").write_text(json.dumps(content))
    monkeypatch.setattr(crossfit, "_trained", lambda *_: pytest.fail("trained"))
    heard = []

    def look(campaigns: Any) -> None:
        heard.extend(campaigns)
        assert (run_dir.path / "folds.partial").is_dir()
        raise UserError("no such campaign")

    with pytest.raises(UserError, match="no such campaign"):
        cross_fit(run_dir, parse_spec(SPEC), Settings(), 2, look=look)
    assert heard == ["sale"]
    assert not (run_dir.path / "folds.partial").exists()
