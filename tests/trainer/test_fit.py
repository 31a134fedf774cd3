"""The training loop: it learns, it resumes exactly, and replicas do not change what is learnt."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from preprocessing.cli import UserError
from tests.trainer.test_dataset import SCHEMA, example, write
from trainer.board import Board
from trainer.dataset import scan
from trainer.fit import Habits, Task, fit
from trainer.model import Scorer
from trainer.predictions import Predictor
from trainer.settings import Settings

SETTINGS = Settings(
    epochs=3,
    batch_size=32,
    learning_rate=0.02,
    lstm_units=8,
    dense_units=8,
    length_window=2,
    patience=3,
    dropout=0.2,
    members=2,
    next_event=0.5,  # few steps: most of them for the task itself
)
HORIZONS = (7, 30)


DAYS = {3: 3.0, 2: 20.0}  # to the conversion, by length: four times in five


def records(path: Path, split: str, count: int, seed: int, days_by_length: dict[int, float]) -> list[str]:
    """Journeys of some lengths convert four times in five, others never."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        length = int(rng.integers(0, 4))
        days = days_by_length.get(length, math.inf) if rng.random() < 0.8 else math.inf
        age = tf.train.Feature(float_list=tf.train.FloatList(value=[float(rng.normal())]))
        examples.append(example(i, length=length, days=days, age=age))
    return [write(path / f"{split}-00000-of-00001.tfrecord.gz", examples)]


def make_task(path: Path, train: int = 330, eval_days: dict[int, float] = DAYS) -> Task:
    files = {
        "train": records(path, "train", train, 1, DAYS),
        "eval": records(path, "eval", 150, 2, eval_days),
    }
    counts = {split: scan(names, SCHEMA, HORIZONS, 0) for split, names in files.items()}
    return Task(SCHEMA, HORIZONS, 0, 30, 1.0, files["train"], counts["train"], files["eval"], counts["eval"])


def habits(path: Path, **changes) -> Habits:
    default = Habits(
        checkpoints=str(path / "checkpoints"),
        settings_file=str(path / "settings.json"),
        logs=str(path / "logs"),
        identity={"seed": 0},
        checkpoint_every=4,
        log_every=3,
    )
    return dataclasses.replace(default, **changes)


def train(path: Path, task: Task, settings: Settings = SETTINGS, **changes):
    keras.utils.set_random_seed(settings.seed)
    return fit(task, settings, habits(path, **changes))


def weights(model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.weights]


def untimed(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def uninterrupted(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    return *train(path, task), path


def test_learns_and_tells(uninterrupted, task):
    model, history, path = uninterrupted
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[-1]["eval_roc_auc"] > 0.85
    assert history[-1]["eval_loss"] < history[0]["eval_loss"]
    best = min(history, key=lambda entry: entry["eval_loss"])
    predictor = Predictor(Scorer(model, 1.0), SCHEMA, HORIZONS, 0)
    scored = predictor(task.eval_files, "eval", task.eval.journeys)
    assert scored.mean_loss() == pytest.approx(best["eval_loss"], rel=1e-5)  # the weights are those of the best epoch
    assert list(path.glob("logs/train/events*"))
    assert list(path.glob("logs/eval/events*"))


def test_predictions_keep_the_order_of_the_records(uninterrupted, task):
    predictor = Predictor(Scorer(uninterrupted[0], 1.0), SCHEMA, HORIZONS, 0)
    table = predictor(task.eval_files, "eval", task.eval.journeys).table("eval", "v1")
    assert table["journey_id"].to_pylist() == [f"j{i}" for i in range(150)]
    assert table["held_out"].to_pylist() == [bool(i % 2) for i in range(150)]
    assert [str(field.type) for field in table.schema][-2:] == ["float", "float"]
    assert table.schema.names[-2:] == ["p_7d", "p_30d"]
    assert table["split"].unique().to_pylist() == ["eval"]
    assert table["model_version"].unique().to_pylist() == ["v1"]


def stopped_after(step: int):
    """What Ctrl-C does in the midst of an epoch."""
    tell = Board.tell_steps

    def stop(self, at, *more):
        tell(self, at, *more)
        if at >= step:
            raise KeyboardInterrupt

    return mock.patch.object(Board, "tell_steps", stop)


def test_resumes_exactly(uninterrupted, task, tmp_path, caplog):
    """The same weights and history as without the stop: place in the data, optimizer and dropout's random state."""
    with stopped_after(17), pytest.raises(KeyboardInterrupt):  # in the second epoch of ten steps
        train(tmp_path, task)
    tf.random.set_seed(99)  # nothing may hang on the state of this process
    with caplog.at_level(logging.INFO):
        model, history = train(tmp_path, task)
    assert "stopped after step 16" in caplog.text
    for found, expected in zip(weights(model), weights(uninterrupted[0]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert untimed(history) == untimed(uninterrupted[1])


def test_finished_is_not_trained_again_unless_asked(task, tmp_path, caplog):
    brief = dataclasses.replace(SETTINGS, max_steps=2)
    first, history = train(tmp_path, task, brief)
    with caplog.at_level(logging.INFO):
        again, same = train(tmp_path, task, brief)
    assert "an earlier run with these settings finished" in caplog.text
    assert same == history
    for found, expected in zip(weights(again), weights(first), strict=True):
        np.testing.assert_array_equal(found, expected)
    with caplog.at_level(logging.INFO):
        train(tmp_path, task, brief, identity={"seed": 1})
    assert "training anew: seed was 0, is 1" in caplog.text
    with caplog.at_level(logging.INFO):
        train(tmp_path, task, brief, identity={"seed": 1}, restart=True)
    assert "training anew: --restart" in caplog.text


def test_broken_checkpoint_is_named(task, tmp_path):
    brief = dataclasses.replace(SETTINGS, max_steps=2)
    train(tmp_path, task, brief)
    for data in (tmp_path / "checkpoints/latest").glob("*.data*"):
        data.write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot restore this checkpoint .*--restart"):
        train(tmp_path, task, brief)


def test_stops_at_max_steps(task, tmp_path):
    _, history = train(tmp_path, task, dataclasses.replace(SETTINGS, max_steps=13))
    assert [entry["epoch"] for entry in history] == [1, 2]  # ten steps, then three


def test_patience_ends_training_with_the_weights_of_the_best_epoch(tmp_path):
    """In this eval split the other journeys convert, so that learning makes it worse."""
    task = make_task(tmp_path, eval_days={0: 3.0, 1: 20.0})
    model, history = train(tmp_path, task, dataclasses.replace(SETTINGS, patience=1, epochs=9))
    assert len(history) < 9
    best = min(history, key=lambda entry: entry["eval_loss"])
    assert best is history[-2]
    scored = Predictor(Scorer(model, 1.0), SCHEMA, HORIZONS, 0)(task.eval_files, "eval", task.eval.journeys)
    assert scored.mean_loss() == pytest.approx(best["eval_loss"], rel=1e-5)
    assert scored.mean_loss() != pytest.approx(history[-1]["eval_loss"], rel=1e-3)


def test_less_than_a_batch_and_no_conversion_in_eval(tmp_path):
    """Train is one short batch; training stops by the loss, since there is no PR-AUC."""
    few = make_task(tmp_path, train=20, eval_days={})
    _, history = train(tmp_path, few, dataclasses.replace(SETTINGS, epochs=2))
    assert [entry["eval_pr_auc"] for entry in history] == [None, None]
    assert all(math.isfinite(entry["eval_loss"]) for entry in history)
    json.dumps(history, allow_nan=False)


def test_a_loss_out_of_the_numbers_ends_training(tmp_path):
    broken = write(tmp_path / "broken.tfrecord.gz", [example(i, weight=math.inf) for i in range(40)])
    task = dataclasses.replace(make_task(tmp_path, train=40), train_files=[broken])
    with pytest.raises(UserError, match="no longer a number at step 1: lower --learning_rate"):
        train(tmp_path, task)


REPLICAS = """
import dataclasses
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import trainer.fit
from tests.trainer.test_fit import SETTINGS, make_task, train, weights
trainer.fit.local_strategy = lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
path = Path(sys.argv[1])
path.mkdir()
settings = dataclasses.replace(SETTINGS, dropout=0.0, epochs=2, precision=sys.argv[2])
model, history = train(path, make_task(path), settings)
np.savez(path / "weights.npz", *weights(model), history=[entry["train_loss"] for entry in history])
"""


@pytest.mark.parametrize(
    ("precision", "rtol", "atol"),
    [("float32", 1e-3, 1e-4), pytest.param("mixed_float16", 0.05, 0.01, marks=pytest.mark.slow)],
)
def test_two_replicas_learn_what_one_does(tmp_path, precision, rtol, atol):
    """The same global batch over two devices: clipping, decay, the loss's scale and the sum of gradients do not count
    them."""
    settings = dataclasses.replace(SETTINGS, dropout=0.0, epochs=2, precision=precision)
    one, history = train(tmp_path, make_task(tmp_path), settings)
    command = [sys.executable, "-c", REPLICAS, str(tmp_path / "two"), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    two = np.load(tmp_path / "two/weights.npz")
    np.testing.assert_allclose(two["history"], [entry["train_loss"] for entry in history], rtol=rtol / 10)
    for number, (variable, expected) in enumerate(zip(one.weights, weights(one), strict=True)):
        np.testing.assert_allclose(two[f"arr_{number}"], expected, rtol=rtol, atol=atol, err_msg=variable.path)
