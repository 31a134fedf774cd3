"""GPU habits, as far as a machine without a GPU can hold them: asked for and absent, cuDNN, precision, a trace."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import time
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from preprocessing.cli import UserError
from tests.trainer.test_fit import SETTINGS, habits, make_task, train, weights
from tests.trainer.test_model import BIAS, SCHEMA, features
from tests.trainer.test_model import SETTINGS as SMALL
from trainer.accelerators import cudnn_obstacles, require_gpu
from trainer.board import Board
from trainer.cluster import Cluster, local_strategy
from trainer.fit import _Training
from trainer.model import JourneyModel, copy_for_serving, in_float32
from trainer.optimizer import loss_scale
from trainer.profiler import Profiler

rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")  # the package has a function of that name
HALVES = ("mixed_float16", "mixed_bfloat16")


def test_a_gpu_that_was_asked_for_and_is_not_there_ends_the_job_at_once(prepared):
    """From the command line to the one line, imports and all, in far less than the minute that is allowed."""
    started = time.monotonic()
    command = [sys.executable, "-m", "trainer.task", "--run_dir", str(prepared.path), "--require_gpu"]
    environment = {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --require_gpu: TensorFlow ")
    assert "expected a GPU" in line
    assert time.monotonic() - started < 60


def test_a_gpu_that_is_there_is_enough():
    with mock.patch.object(tf.config, "list_physical_devices", lambda kind: [kind]):
        require_gpu()
    with mock.patch.object(tf.config, "list_physical_devices", lambda kind: []), pytest.raises(UserError):
        require_gpu()


@pytest.fixture
def on_a_gpu():
    """Keras' own check believes in a GPU; the kernel itself, which only a GPU has, says no, and Keras falls back."""
    with (
        mock.patch.object(rnn, "_is_gpu_available", lambda: True),
        mock.patch.object(rnn, "_cudnn_lstm", side_effect=NotImplementedError) as kernel,
    ):
        yield kernel


@pytest.mark.parametrize("precision", ["float32", *HALVES])
def test_keras_takes_cudnns_kernel_for_the_model_as_it_is_built(on_a_gpu, precision):
    settings = dataclasses.replace(SMALL, members=2, precision=precision)
    model = JourneyModel(SCHEMA, settings, BIAS)
    on_a_gpu.reset_mock()
    model(features([5, 3, 0]), training=True)
    assert on_a_gpu.call_count == 2  # a member, a kernel
    inputs, mask = on_a_gpu.call_args.args[0], on_a_gpu.call_args.args[6]
    assert mask is None
    assert inputs.dtype == {"float32": "float32", "mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}[precision]
    on_a_gpu.reset_mock()
    copy_for_serving(model, settings)(features([5, 3, 0]))
    assert not on_a_gpu.called


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({}, None),
        ({"activation": "relu"}, "an activation that is not tanh"),
        ({"recurrent_activation": "hard_sigmoid"}, "a recurrent activation that is not sigmoid"),
        ({"recurrent_dropout": 0.1}, "recurrent dropout"),
        ({"unroll": True}, "unrolling"),
        ({"use_bias": False}, "no bias"),
        ({"use_cudnn": False}, "use_cudnn=False"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_keeps_an_lstm_from_cudnn_is_what_keras_says(on_a_gpu, setting, reason):
    lstm = keras.layers.LSTM(4, **setting)
    assert cudnn_obstacles(lstm) == ([] if reason is None else [reason])
    lstm(np.zeros((2, 3, 4), np.float32), training=True)
    assert on_a_gpu.called == (reason is None)


def test_an_ineligible_model_is_not_built():
    """What anyone adds to the LSTM later is found when the model is built, not by its slowness."""
    made = keras.layers.LSTM
    with (
        mock.patch.object(keras.layers, "LSTM", lambda *args, **kwargs: made(*args, **kwargs, recurrent_dropout=0.2)),
        pytest.raises(AssertionError, match="recurrent dropout"),
    ):
        JourneyModel(SCHEMA, SMALL, BIAS)


@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_inside_float32_outside(precision):
    keras.utils.set_random_seed(3)
    settings = dataclasses.replace(SMALL, precision=precision)
    model = JourneyModel(SCHEMA, settings, BIAS)
    for variable in model.trainable_variables:
        assert variable.dtype == "float32"
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, seed=5))
    batch = features([5, 3, 1, 0])
    (member,) = model.members
    assert member.read(batch).dtype == member.represent(member.read(batch), batch).dtype == precision[6:]
    assert model(batch).dtype == tf.float32
    exact = in_float32(model, settings)
    assert exact.members[0].read(batch).dtype == tf.float32
    assert 0 < np.abs(model(batch) - exact(batch)).max() < 0.05
    np.testing.assert_array_equal(exact(batch), copy_for_serving(model, settings)(batch))
    plain = JourneyModel(SCHEMA, SMALL, BIAS)
    assert in_float32(plain, SMALL) is plain


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("records"))


@pytest.mark.slow
def test_half_precision_learns(task, tmp_path):
    half = dataclasses.replace(SETTINGS, members=1, dropout=0.0, precision="mixed_float16")
    model, history = train(tmp_path, task, half)
    assert history[-1]["eval_roc_auc"] > 0.85  # as test_fit.py asks of float32
    assert history[-1]["eval_loss"] < history[0]["eval_loss"]
    assert {value.dtype for value in weights(model)} == {np.dtype("float32")}
    assert train(tmp_path, task, half)[1] == history  # the scale is in the checkpoint, which is whole


def test_the_loss_is_scaled_in_float16_and_an_overflow_leaves_the_step_out(task, tmp_path):
    settings = dataclasses.replace(SETTINGS, members=1, max_steps=9, precision="mixed_float16")
    training = _Training(task, settings, habits(tmp_path), Cluster(local_strategy()))
    assert float(loss_scale(training.optimizer)) == 2**15
    labels = next(iter(_one_batch(task, training.batch_size)))
    for _ in range(3):  # at first the rate is 0 and so is the output's kernel, and with it every gradient behind it
        training.strategy.run(training.step.one, args=labels)
    before = weights(training.model)
    training.optimizer.dynamic_scale.assign(2.0**100)  # what no gradient stands in float16
    training.strategy.run(training.step.one, args=labels)
    assert float(loss_scale(training.optimizer)) == 2.0**99
    for found, kept in zip(weights(training.model), before, strict=True):
        if found.dtype == np.float32:
            np.testing.assert_array_equal(found, kept)
    assert loss_scale(_Training(task, SETTINGS, habits(tmp_path / "b"), Cluster(local_strategy())).optimizer) == 1.0


def _one_batch(task, batch_size):
    from trainer.dataset import train_batches

    return train_batches(task.train_files, task.schema, batch_size=batch_size, window=2, seed=0, epoch=1)


def test_a_trace_of_the_steps_that_were_asked_for(task, tmp_path):
    """Steps 3 to 5 and no others: a trace file for TensorBoard's Profile page."""
    settings = dataclasses.replace(SETTINGS, members=1, max_steps=8)
    calls = []
    start, stop = tf.profiler.experimental.start, tf.profiler.experimental.stop
    with (
        mock.patch.object(tf.profiler.experimental, "start", lambda logs: (calls.append("start"), start(logs))),
        mock.patch.object(tf.profiler.experimental, "stop", lambda: (calls.append("stop"), stop())),
        mock.patch.object(Board, "tell_steps", lambda self, step, *_: calls.append(step)),
    ):
        train(tmp_path, task, settings, profile_steps=(3, 5))
    assert calls == ["start", 2, 4, "stop", 5, 8]  # after step 2, after step 5; 4 and 8 are checkpoints
    (trace,) = (tmp_path / "logs").rglob("*.xplane.pb")
    assert trace.relative_to(tmp_path / "logs").parts[:2] == ("plugins", "profile")
    assert trace.stat().st_size > 10_000


def test_a_trace_ends_with_training_and_is_not_made_after_it(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt), Profiler(str(tmp_path), (4, 900)) as profiler:
        assert [profiler.at(step) for step in (0, 3, 5)] == [3, 897, 895]
        raise KeyboardInterrupt
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
    with Profiler(str(tmp_path / "none"), (2, 3)) as profiler:
        assert profiler.at(7) == profiler.at(8) == sys.maxsize
    assert "--profile_steps 2,3: training is past them, at step 7" in caplog.text
    assert not (tmp_path / "none").exists()
