"""Cloud Monitoring, by Google's client against a local server: what is written, how often, and when it cannot be."""

import logging
import subprocess
import sys

import pytest

from tests.cloud.cloud_monitoring import Monitoring as Server
from tests.cloud.oauth import PROJECT
from trainer.gauges import Reading
from trainer.monitoring import PREFIX, Monitoring, job_monitoring
from trainer.watch import Watch

NOW = 1_790_000_000.0
TRAINED = """
import sys
from trainer.monitoring import job_monitoring
from trainer.watch import Watch
watch = Watch(None, tell=job_monitoring())
watch.steps(10, 2.0, 0.5)
watch.sample()
print("google.cloud.monitoring_v3" in sys.modules)
"""


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def server(cloud):
    return cloud.service(Server)


def written(server):
    return {kind.removeprefix(f"{PREFIX}/"): points for (kind, _), points in server.points.items()}


def test_a_sample_is_written_by_name_at_most_once_a_minute(server):
    clock, watched = Clock(), Clock()
    monitoring = Monitoring(PROJECT, "europe-west1", "77", "machine-0", clock)
    watch = Watch(None, read=lambda: Reading(0.25, 3_000_000_000), limit=10**10, clock=watched, tell=monitoring)
    watch.steps(10, 2.0, 0.5)
    watch.sample()
    assert written(server) == {
        "cpu": [(NOW, 0.25)],
        "memory_gb": [(NOW, 3.0)],
        "step_ms": [(NOW, 200.0)],
        "input_wait": [(NOW, 0.25)],
    }
    assert {labels for _, labels in server.points} == {
        (
            ("job", "77"),
            ("location", "europe-west1"),
            ("namespace", "parcours"),
            ("project_id", PROJECT),
            ("task_id", "machine-0"),
        )
    }
    for _ in range(12):  # every five seconds, as a training samples
        clock.now += 5
        watch.sample()
    assert [at for at, _ in written(server)["cpu"]] == [NOW, NOW + 60]
    assert len(written(server)["step_ms"]) == 1  # no steps since


@pytest.mark.parametrize(("status", "message"), [(403, "denied"), (503, "away")])
def test_what_cannot_be_written_is_said_once(server, caplog, status, message):
    clock = Clock()
    monitoring = Monitoring(PROJECT, "europe-west1", "77", "machine-0", clock)
    server.fail(status, times=2, message=message)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            monitoring({"cpu": 0.5})
            clock.now += 60
    assert [record.message for record in caplog.records] == [
        f"warning: Cloud Monitoring was not written: {status} {message}; training goes on"
    ]
    assert len(written(server)["cpu"]) == 1  # the third came through


def test_a_job_of_vertex_ai_writes_and_other_trainings_do_not(server, monkeypatch):
    def run():
        words = [sys.executable, "-c", TRAINED]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert job_monitoring() is None
    assert run() == "False"
    for name, value in (("PROJECT_ID", PROJECT), ("JOB_ID", "99"), ("REGION", "europe-west4"), ("TRIAL_ID", "3")):
        monkeypatch.setenv(f"CLOUD_ML_{name}", value)
    assert run() == "True"
    labels = dict(next(iter(server.points))[1])
    assert labels["job"] == "99" and labels["location"] == "europe-west4" and labels["task_id"].startswith("3-")
    assert written(server)["input_wait"][0][1] == 0.25
