"""Machines that train together: who is who, and that two learn what one does."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from preprocessing.cli import UserError
from tests.trainer.test_fit import SETTINGS, make_task, train, weights
from trainer.cluster import Cluster, is_chief, local_strategy
from trainer.dataset import train_batches

ONE = {"chief": ["127.0.0.1:1"]}
TWO = {**ONE, "worker": ["127.0.0.1:2"]}
SETTING = dataclasses.replace(SETTINGS, dropout=0.0, epochs=2)


def config(cluster, role, index=0):
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}, "environment": "cloud"})


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("TF_CONFIG", "CLUSTER_SPEC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "value", "chief"),
    [
        ("TF_CONFIG", config(TWO, "chief"), True),
        ("TF_CONFIG", config(TWO, "worker"), False),
        ("TF_CONFIG", config(ONE, "chief"), True),
        ("TF_CONFIG", config({"worker": ["a:1", "b:1"]}, "worker", 0), True),
        ("TF_CONFIG", config({"worker": ["a:1", "b:1"]}, "worker", 1), False),
        ("CLUSTER_SPEC", config({"workerpool0": ["a:1"], "workerpool1": ["b:1"]}, "workerpool0"), True),
        ("CLUSTER_SPEC", config({"workerpool0": ["a:1"], "workerpool1": ["b:1"]}, "workerpool1"), False),
        ("CLUSTER_SPEC", config({"workerpool0": ["a:1"]}, "workerpool0"), True),
        ("CLUSTER_SPEC", "{}", True),
        ("CLUSTER_SPEC", "", True),
    ],
)
def test_who_is_the_chief(monkeypatch, name, value, chief):
    monkeypatch.setenv(name, value)
    assert is_chief() is chief


def test_alone_nothing_needs_agreement():
    cluster = Cluster.join()
    assert (cluster.machines, cluster.is_chief) == (1, True)
    assert cluster.agree(0.25) == 0.25


@pytest.mark.parametrize("value", ["no JSON", '{"cluster": {"chief": ["a:1"]}}', '{"cluster": 3, "task": {}}'])
def test_an_environment_that_cannot_be_read(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match="TF_CONFIG: expected JSON with cluster and task"):
        is_chief()


def test_machines_that_do_not_train_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({**TWO, "ps": ["127.0.0.1:3"]}, "chief"))
    with pytest.raises(UserError, match="TF_CONFIG: expected chief and worker alone, got ps"):
        Cluster.join()


MACHINE = """
import os
import signal
import sys
from pathlib import Path
from trainer.cluster import Cluster
cluster = Cluster.join()
import keras
import numpy as np
from tests.trainer.test_cluster import SETTING, ages
from tests.trainer.test_fit import habits, make_task, weights
from trainer.board import Board
from trainer.fit import fit
shared, own = Path(sys.argv[1]), Path(sys.argv[2])
if own.name == os.environ.get("NOTICED"):
    tell = Board.tell_steps
    def noticed(self, step, *more):
        tell(self, step, *more)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
    Board.tell_steps = noticed
task = make_task(own)
np.save(own / "ages.npy", ages(task, cluster.strategy))
keras.utils.set_random_seed(0)
model, history = fit(task, SETTING, habits(shared), cluster)
np.savez(own / "weights.npz", *weights(model), history=[entry["train_loss"] for entry in history])
cluster.wait()
"""


def ages(task, strategy):
    """What tells a journey from every other, float32 [steps, journeys of this machine a step], of the second epoch."""
    keras.utils.set_random_seed(0)  # shuffling has its own, to which TensorFlow adds this one
    batches = train_batches(task.train_files, task.schema, batch_size=32, window=2, seed=0, epoch=2)
    parts = [
        np.concatenate([part.numpy() for part in strategy.experimental_local_results(features["age"])])
        for features, _ in strategy.experimental_distribute_dataset(batches)
    ]
    return np.stack(parts)


def together(shared, places, code=0, noticed=""):
    """The same program on two machines, as processes; returns what they said. noticed: the one that gets SIGTERM."""
    cluster = {"chief": [f"127.0.0.1:{free_port()}"], "worker": [f"127.0.0.1:{free_port()}"]}
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", MACHINE, str(shared), str(place)],
            env=os.environ | {"TF_CONFIG": config(cluster, role), "NOTICED": noticed},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for role, place in zip(cluster, places, strict=True)
    ]
    try:
        said = [machine.communicate(timeout=900)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [code, code], said
    return said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_machines_learn_what_one_does(tmp_path):
    """Half of each batch a machine; only the chief writes."""
    places = [tmp_path / name for name in ("shared", "chief", "worker", "one")]
    for place in places:
        place.mkdir()
    shared, chief, worker, alone = places
    together(shared, (chief, worker))
    task = make_task(alone)
    one, history = train(alone, task, SETTING)
    # of every batch each machine sees its half: no journey is lost, none doubled, although there is one file for two
    whole, halves = ages(task, local_strategy()), [np.load(place / "ages.npy") for place in (chief, worker)]
    assert whole.shape == (10, 32) and len(np.unique(whole)) == 320
    assert [half.shape for half in halves] == [(10, 16), (10, 16)]
    np.testing.assert_array_equal(np.sort(np.concatenate(halves, axis=1)), np.sort(whole))
    found = [np.load(place / "weights.npz") for place in (chief, worker)]
    for machine in found:
        np.testing.assert_allclose(machine["history"], [entry["train_loss"] for entry in history], rtol=1e-4)
    for number, (variable, expected) in enumerate(zip(one.weights, weights(one), strict=True)):
        np.testing.assert_allclose(found[0][f"arr_{number}"], expected, rtol=1e-3, atol=1e-4, err_msg=variable.path)
    assert sorted(path.name for path in shared.iterdir()) == ["checkpoints", "logs", "settings.json"]
    assert sorted(path.name for path in worker.iterdir() if path.is_dir()) == []


@pytest.mark.slow
def test_a_machine_that_is_taken_away_stops_all_and_none_forgets(tmp_path):
    """The worker alone gets SIGTERM; the chief saves, both leave, and the same command ends as if nothing had been."""
    shared, chief, worker, alone = places = [tmp_path / name for name in ("shared", "chief", "worker", "one")]
    for place in places:
        place.mkdir()
    said = together(shared, (chief, worker), code=143, noticed="worker")
    assert all("stopped by SIGTERM after step 7" in text for text in said)
    together(shared, (chief, worker))
    one, _ = train(alone, make_task(alone), SETTING)
    found = np.load(chief / "weights.npz")
    for number, (variable, expected) in enumerate(zip(one.weights, weights(one), strict=True)):
        np.testing.assert_allclose(found[f"arr_{number}"], expected, rtol=1e-3, atol=1e-4, err_msg=variable.path)


@pytest.mark.slow
def test_the_same_command_again_finds_a_finished_training(tmp_path):
    """Every machine learns from the chief that there is nothing left to do, and nothing is written anew."""
    shared, chief, worker = places = [tmp_path / name for name in ("shared", "chief", "worker")]
    for place in places:
        place.mkdir()
    together(shared, (chief, worker))
    before = {path: path.stat().st_mtime_ns for path in (shared / "logs").rglob("*")}
    found = np.load(chief / "weights.npz")["arr_0"]
    together(shared, (chief, worker))
    assert {path: path.stat().st_mtime_ns for path in (shared / "logs").rglob("*")} == before
    np.testing.assert_array_equal(np.load(chief / "weights.npz")["arr_0"], found)
