"""Watching a training: gauges, what is made of them, and what is warned of, by hand and on a real training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import time
from unittest import mock

import psutil
import pynvml
import pytest
import tensorflow as tf

from tests.trainer.test_fit import SETTINGS, make_task, train
from trainer.gauges import Reading, cores, gauges, memory_limit
from trainer.monitoring import Monitoring
from trainer.resources import resource_lines, resource_plot
from trainer.watch import Watch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watching(readings, clock=None, limit=1000):
    taken = iter(readings)
    return Watch(None, read=lambda: next(taken), limit=limit, clock=clock or Clock())


def test_a_summary_by_hand():
    clock = Clock()
    watch = watching([Reading(0.5, 300), Reading(1.0, 500), Reading(0.3, 400)], clock)
    clock.now = 5.0
    watch.steps(10, 2.0, 0.5)
    watch.steps(10, 2.0, 0.3)
    watch.sample()
    clock.now = 10.0
    watch.sample()
    assert watch.latest() == {"cpu": 1.0, "memory_gb": 5e-7}
    clock.now = 15.0
    watch.steps(5, 1.0, 0.0)
    watch.sample()
    found = watch.summary()
    assert found == {
        "samples": 3,
        "steps": 25,
        "step_seconds": 0.2,
        "input_wait": 0.16,
        "cpu": {"mean": 0.6, "highest": 1.0},
        "gpu": None,
        "gpu_memory": None,
        "memory": {"highest": 500, "limit": 1000},
        "warnings": [],
        "columns": ["seconds", "cpu", "memory", "gpu", "step_seconds", "input_wait"],
        "series": [
            [5.0, 0.5, 300, None, 0.2, 0.2],
            [10.0, 1.0, 500, None, None, None],
            [15.0, 0.3, 400, None, 0.2, 0.0],
        ],
    }
    json.dumps(found, allow_nan=False)
    assert resource_lines(found)[0] == ("CPU, of all cores", "60% on the mean, 100% at most")
    assert resource_lines(found)[-1] == ("A step", "200 ms, 16.0% of it waiting for input")
    assert resource_plot(found).startswith("<svg")
    assert resource_lines(watching([]).summary()) == [] and resource_plot(watching([]).summary()) == ""
    assert resource_lines(None) == [] and resource_plot(None) == ""


def test_a_long_training_keeps_few_samples_and_forgets_no_highest():
    clock = Clock()
    watch = watching([Reading(0.1, 700 if i == 7 else 1) for i in range(2000)], clock)
    for i in range(2000):
        clock.now = float(i)
        watch.sample()
    found = watch.summary()
    assert found["samples"] == 2000 and found["memory"]["highest"] == 700
    seconds = [row[0] for row in found["series"]]
    assert 200 <= len(seconds) < 400
    assert len({b - a for a, b in itertools.pairwise(seconds)}) == 1  # evenly, from end to end
    assert seconds[-1] > 1980


@pytest.mark.parametrize(
    ("memory", "gpu", "waited", "warning"),
    [
        (899, 0.9, 0.29, None),
        (900, 0.9, 0.29, "memory is 90% full (0.0 of 0.0 GB)"),
        (899, 0.19, 0.29, "the GPU idles (19% of the time a kernel runs): raise --batch_size"),
        (899, 0.9, 0.31, "a step waits 31% of its time for input"),
        (899, None, 0.31, "a step waits 31% of its time for input"),
    ],
)
def test_what_is_warned_of(memory, gpu, waited, warning, caplog):
    clock = Clock()
    share = None if gpu is None else 0.5
    watch = watching([Reading(0.5, memory, gpu, share)] * 40, clock)
    for i in range(40):
        clock.now = 5.0 * i
        watch.steps(10, 1.0, waited)
        watch.sample()
    assert [message.startswith(warning) for message in watch.summary()["warnings"]] == ([True] if warning else [])
    assert caplog.text.count("warning: ") == bool(warning)  # once
    if warning:
        assert ("To change", watch.summary()["warnings"][0]) in resource_lines(watch.summary())


def test_nothing_is_warned_of_while_a_training_warms_up():
    watch = watching([Reading(0.5, 1, 0.0, 0.0)] * 5)
    watch.steps(100, 1.0, 1.0)
    for _ in range(5):
        watch.sample()
    assert watch.summary()["warnings"] == []


def test_the_limit_is_the_containers_where_it_is_lower(tmp_path):
    total = psutil.virtual_memory().total
    assert memory_limit(tmp_path) == total
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path) == total
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory_limit(tmp_path) == 1 << 20
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("4096\n")
    assert memory_limit(tmp_path) == 4096


def test_gauges_of_this_process(caplog):
    caplog.set_level(logging.INFO)
    read = gauges()
    kept = bytearray(200 << 20)
    until = time.process_time() + 0.3
    while time.process_time() < until:
        kept[5] += 1 if kept[5] < 100 else -1
    found = read()
    assert found.memory > 200 << 20
    assert 0 < found.cpu <= 1.5 and cores() >= 1
    assert found.gpu is None or 0 <= found.gpu <= 1
    assert len(caplog.records) == (found.gpu is None)  # that there is no driver, or nothing


def test_gauges_of_gpus():
    """NVIDIA's library answers for two GPUs, 30 % and 50 % busy, the second one three quarters full."""
    busy = {0: mock.Mock(gpu=30), 1: mock.Mock(gpu=50)}
    memory = {0: mock.Mock(used=1, total=8), 1: mock.Mock(used=6, total=8)}
    with mock.patch.multiple(
        pynvml,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUtilizationRates=busy.get,
        nvmlDeviceGetMemoryInfo=memory.get,
    ):
        found = gauges()()
    assert (found.gpu, found.gpu_memory) == (0.4, 0.75)


class NotSupported(pynvml.NVMLError):
    """What the driver says of a quantity that a GPU, or a part of one (MIG), does not have."""

    def __new__(cls):
        return super().__new__(cls, pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("utilisation", "memory", "expected"),
    [
        (NotSupported(), mock.Mock(used=6, total=8), (None, 0.75)),
        (mock.Mock(gpu=30), NotSupported(), (0.3, None)),
        (NotSupported(), NotSupported(), (None, None)),
    ],
)
def test_what_a_driver_does_not_tell_is_said_once_and_the_rest_is_read(utilisation, memory, expected, caplog):
    caplog.set_level(logging.INFO)
    with mock.patch.multiple(
        pynvml,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUtilizationRates=mock.Mock(side_effect=[utilisation] * 3),
        nvmlDeviceGetMemoryInfo=mock.Mock(side_effect=[memory] * 3),
    ):
        read = gauges()
        found = [read() for _ in range(3)]
    assert {(one.gpu, one.gpu_memory) for one in found} == {expected}
    assert all(one.memory > 0 for one in found)
    assert len(caplog.records) == expected.count(None)
    assert all("does not tell it (Not Supported)" in record.message for record in caplog.records)


def test_a_gpu_whose_utilisation_nobody_tells_is_not_said_to_idle(caplog):
    clock = Clock()
    watch = watching([Reading(0.5, 1, None, 0.5)] * 40, clock)
    for i in range(40):
        clock.now = 5.0 * i
        watch.sample()
    assert watch.summary()["warnings"] == [] and "idles" not in caplog.text
    assert (watch.summary()["gpu"], watch.summary()["gpu_memory"]) == (None, {"mean": 0.5, "highest": 0.5})


def test_a_mean_is_over_the_samples_that_knew_the_value():
    watch = watching([Reading(0.5, 1, 0.2, 0.4), Reading(0.5, 1, None, 0.6), Reading(0.5, 1, 0.6, None)])
    for _ in range(3):
        watch.sample()
    found = watch.summary()
    assert (found["gpu"], found["gpu_memory"]) == ({"mean": 0.4, "highest": 0.6}, {"mean": 0.5, "highest": 0.6})


def broken(*values):
    raise RuntimeError("the service is of another opinion\nand says more")


@pytest.mark.parametrize(
    ("what", "samples"), [({"read": broken}, 0), ({"read": lambda: Reading(0.5, 1), "tell": broken}, 3)]
)
def test_a_look_that_fails_is_said_once_and_ends_neither_watching_nor_training(what, samples, caplog):
    watch = Watch(0.01, limit=1000, **what)
    with watch:
        time.sleep(0.2)
    assert watch.summary()["samples"] >= samples  # in the thread, again and again
    said = "warning: a look at the machine failed: RuntimeError: the service is of another opinion"
    assert [record.message for record in caplog.records] == [said]
    with pytest.raises(ValueError, match="of the training itself"), Watch(None, limit=1000, **what):
        raise ValueError("of the training itself")


@pytest.mark.parametrize("kind", [OSError, RuntimeError, TypeError, ValueError])
def test_whatever_keeps_monitoring_from_writing_is_said_once(kind, caplog):
    """Google's client raises Python's own errors, too: of a certificate that is not there, a wrong key file, a URL."""
    clock = Clock()
    monitoring = Monitoring("shop", "europe-west1", "77", "machine-0", clock)
    with mock.patch("google.cloud.monitoring_v3.MetricServiceClient", side_effect=kind("no such file\nmore")):
        for _ in range(3):
            clock.now += 60
            monitoring({"cpu": 0.5})
    said = "warning: Cloud Monitoring was not written: no such file; training goes on"
    assert [record.message for record in caplog.records] == [said]


def test_a_training_is_watched_and_slow_input_is_seen(tmp_path):
    from trainer import fit
    from trainer.dataset import train_batches

    task = make_task(tmp_path)
    one = dataclasses.replace(SETTINGS, members=1, epochs=1)
    watch = Watch(0.2)
    train(tmp_path / "quick", task, one, watch=watch)
    quick = watch.summary()
    assert quick["steps"] == 10 and quick["samples"] >= 1
    assert quick["step_seconds"] > 0 and 0 <= quick["input_wait"] < 1
    logged = {
        value.tag
        for file in (tmp_path / "quick/logs/train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"resources/cpu", "resources/memory_gb", "loss"} <= logged

    def slow(*args, **named):
        def wait(*batch):
            tf.numpy_function(lambda: time.sleep(0.2), [], [])
            return batch

        return train_batches(*args, **named).map(wait)

    watch = Watch(0.2)
    with mock.patch.object(fit, "train_batches", slow):
        train(tmp_path / "slow", task, one, watch=watch)
    starved = watch.summary()
    waited = starved["input_wait"] * starved["step_seconds"] * starved["steps"]
    assert 1.5 < waited < 4  # ten batches, 0.2 s each; the first ones are made while the graph is traced
    assert waited > 5 * quick["input_wait"] * quick["step_seconds"] * quick["steps"] or quick["input_wait"] < 0.05
