"""`python -m trainer.tune` as a command: killed, taken up again, and what it leaves."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from preprocessing.rundir import RunDir
from tests.job import ROOT, command
from tests.trainer.test_study import changed
from trainer import tune

TINY = ("--max_steps=4", "--epochs=2", "--members=1", "--dense_units=8", "--embedding_dim=4")


@pytest.fixture(scope="module")
def place(job, tmp_path_factory):
    """A copy of the main job's journeys and records, and the file of a small tuning job."""
    base = tmp_path_factory.mktemp("tune")
    for name in ("journeys", "records", "transform"):
        shutil.copytree(job["run_dir"] / name, base / "run" / name)
    small = changed("studySpec.metrics", [{"metricId": "eval_pr_auc", "goal": "MAXIMIZE"}])
    small["studySpec"]["parameters"] = [
        {"parameterId": "lstm_units", "integerValueSpec": {"minValue": 4, "maxValue": 8, "defaultValue": 6}},
        {"parameterId": "learning_rate", "doubleValueSpec": {"minValue": 0.001, "maxValue": 0.01}},
    ]
    small |= {"maxTrialCount": 2, "parallelTrialCount": 1}
    small["trialJobSpec"]["scheduling"]["timeout"] = "600s"
    (base / "job.yaml").write_text(yaml.safe_dump(small))
    return base


@pytest.mark.slow
def test_a_killed_search_goes_on_and_repeats_no_finished_trial(place):
    flags = ("--config", place / "job.yaml", "--run_dir", place / "run", *TINY)
    killed = subprocess.Popen(
        [sys.executable, "-m", "trainer.tune", *map(str, flags)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for line in killed.stderr:
        if line.startswith("trial 2 of 2"):
            break
    metrics, first = place / "run/tuning/2.metrics", (place / "run/tuning/1.metrics").read_text()
    until = time.monotonic() + 240
    while not metrics.exists() and time.monotonic() < until:
        time.sleep(0.1)  # trial 2 has trained an epoch
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stderr.close()
    assert metrics.exists()

    said = command("trainer.tune", *flags)  # the killed one's trial has ended with it: its directory is free
    assert "going on: 1 trials are done, 1 were under way" in said
    assert "trial 2 of 2 again" in said and "trial 1 of 2" not in said
    assert (place / "run/tuning/1.metrics").read_text() == first
    assert "best of 2 trials" in said
    best = json.loads((place / "run/tuning/best.json").read_text())
    assert set(best) == {
        "max_steps",
        "epochs",
        "members",
        "dense_units",
        "embedding_dim",
        "lstm_units",
        "learning_rate",
    }
    for trial in ("1", "2"):
        assert (place / f"run/trials/{trial}/model/saved_model.pb").exists()
    values = [json.loads((place / f"run/tuning/{trial}.metrics").read_text().splitlines()[-3]) for trial in (1, 2)]
    highest = max(float(value["eval_pr_auc"]) for value in values)
    assert f"eval_pr_auc {highest:.4f}" in said
    page = (place / "run/tuning/tuning.html").read_text()
    assert f"<td>{highest:.4f}</td>" in page and page.count('<th scope="row">') == 2
    assert "http://" not in page and "<script" not in page

    assert "holds a study of other flags; to begin anew remove it" in command(
        "trainer.tune", *flags, "--patience=1", code=2
    )


def test_a_trial_that_fails_is_told_with_its_own_words(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run", ignore=shutil.ignore_patterns("trials", "tuning"))
    for records in (tmp_path / "run/records").glob("eval-*"):
        records.write_bytes(b"no gzip")
    flags = ("--config", place / "job.yaml", "--run_dir", tmp_path / "run", *TINY)
    said = command("trainer.tune", *flags, code=2)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "1 trials failed, the last one: " in line and "maxFailedTrialCount 0" in line


class Measured:
    """In place of a trial's process: the metric is worked out from the flags, and there at once."""

    begun: list[dict[str, str]]  # a trial each, the flags that were searched

    def __init__(self, number, place, flags, metric, *, again=False):
        self.number, self.returncode, self.seconds = number, 0, 1.0
        given = dict(flag.removeprefix("--").split("=") for flag in flags if "=" in flag)
        self.own = {name: given[name] for name in ("lstm_units", "dropout", "batch_size")}
        self.begun.append(self.own)

    def measurements(self):
        return [int(self.own["lstm_units"]) / 100 + float(self.own["dropout"]) + int(self.own["batch_size"]) / 1e4]

    def stop(self):
        pass


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """The flags of a grid of 12 points in a run directory of its own: `lstm_units` has a default, outside of its range,
    `batch_size` one among its values, `dropout` one of its own."""
    job = changed("studySpec.metrics", [{"metricId": "eval_pr_auc", "goal": "MAXIMIZE"}])
    job["studySpec"] |= {
        "algorithm": "GRID_SEARCH",
        "parameters": [
            {"parameterId": "lstm_units", "integerValueSpec": {"minValue": 4, "maxValue": 6}},
            {"parameterId": "dropout", "categoricalValueSpec": {"values": ["0", "0.5"], "defaultValue": "0.5"}},
            {"parameterId": "batch_size", "discreteValueSpec": {"values": [128, 256]}},
        ],
    }
    job |= {"maxTrialCount": 20, "parallelTrialCount": 3}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    run_dir = RunDir(tmp_path / "run")
    with run_dir.lock(), run_dir.stage("journeys", "records", "transform"):
        pass
    monkeypatch.setattr(tune, "TrialProcess", Measured)
    monkeypatch.setattr(tune, "_POLL_S", 0.0)
    monkeypatch.setattr(Measured, "begun", [], raising=False)
    return [f"--config={tmp_path / 'job.yaml'}", f"--run_dir={tmp_path / 'run'}"]


def points(begun):
    return sorted((int(one["lstm_units"]), float(one["dropout"]), int(one["batch_size"])) for one in begun)


ALL = sorted(itertools.product((4, 5, 6), (0.0, 0.5), (128, 256)))


def test_a_grid_search_tries_each_point_once(grid, tmp_path, capsys):
    tune.main(grid)
    assert points(Measured.begun) == ALL
    assert "best of 12 trials" in capsys.readouterr().out
    best = json.loads((tmp_path / "run/tuning/best.json").read_text())
    assert (best["lstm_units"], best["dropout"], best["batch_size"]) == (6, 0.5, 256)
    tune.main(grid)  # again: nothing is left to try
    assert len(Measured.begun) == 12


def test_a_grid_search_that_was_cut_short_goes_on_with_the_other_points(grid):
    tune.main([*grid, "--trials=5", "--parallel=1"])
    assert len(set(points(Measured.begun))) == 5
    tune.main(grid)
    assert points(Measured.begun) == ALL


def test_mistakes_end_in_one_line(place, tmp_path):
    flags = ("--config", place / "job.yaml", "--run_dir", place / "run")
    assert "--lstm_units: tuned by" in command("trainer.tune", *flags, "--lstm_units=4", code=2)
    assert "expected a directory on disk" in command(
        "trainer.tune", "--config", place / "job.yaml", "--run_dir", "gs://bucket/run", code=2
    )
    assert "no such run directory" in command(
        "trainer.tune", "--config", place / "job.yaml", "--run_dir", tmp_path / "none", code=2
    )
    assert "--trials: expected a whole number from 1" in command("trainer.tune", *flags, "--trials=0", code=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"lstm_unit": 4}', "lstm_unit: unknown; expected any of epochs"),
        ('{"lstm_units": "4"}', 'lstm_units: expected a number, got "4"'),
        ('{"lstm_units": 0}', "lstm_units: expected a whole number from 1"),
        ("[]", "expected an object of settings"),
        ("{", "not JSON"),
    ],
)
def test_settings_from_a_file(tmp_path, content, message):
    from preprocessing.cli import UserError
    from trainer.settings import parse

    file = tmp_path / "settings.json"
    file.write_text('{"lstm_units": 4, "dropout": 0.25}')
    assert parse(["--run_dir=x", f"--settings={file}", "--dropout=0"]).given == {"lstm_units": 4, "dropout": 0.0}
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        parse(["--run_dir=x", f"--settings={file}"])
