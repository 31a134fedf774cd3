"""The command, from flags to artefacts."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from preprocessing.cli import UserError
from trainer import task
from trainer.settings import Settings, parse

BRIEF = ["--epochs=1", "--max_steps=4", "--batch_size=32", "--lstm_units=4", "--no_baselines", "--bootstrap=0"]


def main(run_dir, *flags):
    task.main(["--run_dir", str(run_dir.path), *BRIEF, *flags])


def rewrite(run_dir, split, change, keep=lambda example: True):
    """Writes a split's records anew, each changed in place by `change`."""
    for file in run_dir.records.glob(f"{split}-*"):
        examples = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(file), "GZIP")]
        with tf.io.TFRecordWriter(str(file), options="GZIP") as writer:
            for example in filter(keep, examples):
                change(example.features.feature)
                writer.write(example.SerializeToString())


def never(feature):
    feature["days_to_conversion"].float_list.value[:] = [math.inf]


def test_help_is_quick_and_imports_nothing_heavy():
    def seconds():
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "trainer.task", "--help"], check=True, capture_output=True)
        return time.monotonic() - started

    assert min(seconds() for _ in range(3)) < 1
    heavy = (
        "import sys, trainer.task\ntry:\n    trainer.task.main(['--help'])\nfinally:\n    "
        "assert not {'tensorflow', 'keras', 'numpy', 'pyarrow', 'sklearn', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", heavy], check=True)


def test_prices_are_checked_before_anything_else(tmp_path):
    with pytest.raises(UserError, match="--contact_cost: expected --conversion_value beside it"):
        task.main(["--run_dir", str(tmp_path / "nowhere"), "--contact_cost", "2"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs: expected a whole number from 1 up to 100,000, got '0'"),
        (["--epochs", "2.5"], "--epochs: expected a whole number from 1"),
        (["--learning_rate", "0"], "--learning_rate: expected a number above 0 up to 10, got '0'"),
        (["--learning_rate", "nan"], "--learning_rate: expected a number above 0"),
        (["--dropout", "1"], "--dropout: expected a number from 0 up to 0.95, got '1'"),
        (["--batch_size", "many"], "--batch_size: expected a whole number from 1"),
        (["--precision", "half"], "--precision: expected one of float32, mixed_float16, mixed_bfloat16, got 'half'"),
        (["--profile_steps", "9"], "--profile_steps: expected two steps from 1 on, FIRST,LAST, got '9'"),
        (["--profile_steps", "9,8"], "--profile_steps: expected two steps from 1 on, FIRST,LAST, got '9,8'"),
        (["--profile_steps", "0,8"], "--profile_steps: expected two steps from 1 on, FIRST,LAST, got '0,8'"),
        (["--learning-rate", "1"], "unrecognized arguments: --learning-rate"),
        (["--epoch", "1"], "unrecognized arguments: --epoch"),  # no abbreviations
    ],
)
def test_wrong_flags_are_named(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--run_dir", "x", *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_every_setting_is_a_flag_that_arrives():
    values = {"float": 0.5, "str": "mixed_bfloat16"}
    given = {field.name: values.get(field.type, 1) for field in dataclasses.fields(Settings)}
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    found = parse(["--run_dir", "x", *flags])
    assert dataclasses.asdict(found.settings(1_000, 300)) == given
    assert found.baselines
    assert (found.require_gpu, found.profile_steps) == (False, None)
    assert parse(["--run_dir", "x", "--profile_steps", "10,20"]).profile_steps == (10, 20)
    assert not parse(["--run_dir", "x", "--no_baselines"]).baselines


@pytest.mark.parametrize(
    ("journeys", "flags", "epochs", "patience"),
    [
        (2_560, [], 60, 15),  # 10 steps an epoch
        (12_800, [], 40, 10),  # 50 steps
        (85_195, [], 10, 3),  # 332 steps
        (2_560, ["--epochs", "8"], 8, 3),
        (2_560, ["--patience", "5"], 60, 5),
        (100, ["--batch_size", "1"], 20, 5),
    ],
)
def test_how_long_to_train_follows_from_the_size_of_train(journeys, flags, epochs, patience):
    settings = parse(["--run_dir", "x", *flags]).settings(journeys, 300)
    assert (settings.epochs, settings.patience) == (epochs, patience)


def test_several_networks_where_the_table_is_small():
    def members(train: int, evaluation: int, *flags: str) -> int:
        return parse(["--run_dir", "x", *flags]).settings(train, evaluation).members

    assert members(40_000, 10_000) == 4
    assert members(40_000, 10_001) == 1  # of a downsampled train, eval tells how large the table is
    assert members(40_000, 10_001, "--members", "3") == 3


def test_the_command_ends_with_numbers_and_places(trained):
    assert "test, 30 days: 1,200 journeys" in trained.said
    for place in (
        "model",
        "training",
        "evaluation/report.html",
        "evaluation/metrics.json",
        "evaluation/predictions.parquet",
    ):
        assert f"/run/{place}  " in trained.said


def test_predictions_are_those_of_the_test_split(trained):
    table = pq.read_table(trained.predictions)
    wanted = [
        pq.read_table(path, filters=[("split", "==", "test")]) for path in trained.journeys.glob("part-*.parquet")
    ]
    assert sorted(table["journey_id"].to_pylist()) == sorted(key for t in wanted for key in t["journey_id"].to_pylist())
    assert set(table["split"].to_pylist()) == {"test"}
    assert any(table["held_out"].to_pylist())


def test_run_directory_absent_or_half_made(tmp_path, run_dir):
    with pytest.raises(UserError, match=r"no such run directory; make it with: python -m preprocessing\.task"):
        task.main(["--run_dir", str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()
    (run_dir.records / "whole.json").unlink()
    with pytest.raises(UserError, match="no whole records/ here"):
        main(run_dir)


def test_a_truth_that_will_not_do_is_refused_before_training(run_dir, tmp_path):
    with pytest.raises(UserError, match=r"--truth .*nowhere\.parquet: no such file"):
        main(run_dir, "--truth", str(tmp_path / "nowhere.parquet"))
    truth = tmp_path / "truth.parquet"
    truth.write_text("no Parquet")
    with pytest.raises(UserError, match=r"--truth .*truth\.parquet: expected a Parquet file"):
        main(run_dir, "--truth", str(truth))
    journeys = pq.read_table(next(run_dir.journeys.glob("part-*.parquet")), columns=["customer_key", "as_of"])
    pq.write_table(journeys.append_column("p_30d", [["a lot"] * len(journeys)]), truth)
    with pytest.raises(UserError, match=r"truth\.parquet: column p_30d: expected a number from 0 to 1, found string"):
        main(run_dir, "--truth", str(truth))
    assert not run_dir.training.exists()


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_an_empty_split_is_named(run_dir, split):
    rewrite(run_dir, split, never, keep=lambda example: False)
    with pytest.raises(UserError, match=f"the {split} split holds no journey"):
        main(run_dir)
    assert not run_dir.training.exists()
    assert not run_dir.model.exists()


def test_train_without_a_conversion(run_dir):
    rewrite(run_dir, "train", never)
    with pytest.raises(
        UserError, match=r"none of the [0-9,]+ train journeys converts within 30 days: there is nothing to"
    ):
        main(run_dir)
    assert not run_dir.training.exists()


def test_a_horizon_that_train_never_sees(run_dir):
    def short(feature):
        feature["observed_days"].float_list.value[:] = [20.0]

    rewrite(run_dir, "train", short)
    with pytest.raises(UserError, match=r"no train journey is observed for 30 days .* so 30 days can't be learnt"):
        main(run_dir)


def test_the_job_on_vertex_and_again(run_dir, tmp_path, monkeypatch, capsys):
    """Directories of Vertex AI; a failure that leaves the old artefacts; the same command once more."""
    for name in ("MODEL", "CHECKPOINT", "TENSORBOARD_LOG"):
        monkeypatch.setenv(f"AIP_{name}_DIR", str(tmp_path / name.lower()))
    main(run_dir)
    assert (tmp_path / "model/saved_model.pb").is_file()
    assert (tmp_path / "checkpoint/settings.json").is_file()
    assert list((tmp_path / "checkpoint/latest").glob("ckpt-*.index"))
    assert list((tmp_path / "tensorboard_log/train").glob("events*"))
    assert f"published to {tmp_path / 'model'}" in capsys.readouterr().out

    first = {name: (run_dir.path / name / "whole.json").read_text() for name in ("model", "evaluation")}
    metrics = (run_dir.evaluation / "metrics.json").read_bytes()
    with monkeypatch.context() as failing:
        failing.setattr("trainer.evaluate.evaluate", mock.Mock(side_effect=UserError("no evaluation today")))
        with pytest.raises(UserError, match="no evaluation today"):
            main(run_dir)
    assert {name: (run_dir.path / name / "whole.json").read_text() for name in first} == first
    assert not list(run_dir.path.glob("*.partial"))

    main(run_dir)
    assert (run_dir.evaluation / "metrics.json").read_bytes() == metrics
    assert {name: (run_dir.path / name / "whole.json").read_text() for name in first} != first


@pytest.mark.slow
def test_a_trial_writes_into_a_place_of_its_own_and_reports(run_dir, tmp_path, monkeypatch):
    """The metric ids of job_configs/hptuning_job.yaml are reported an epoch, and last of all for the epoch kept."""
    from deploy.jobs import load_job

    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "output.metrics"))
    main(run_dir, "--epochs=2", "--max_steps=100")
    assert (run_dir.path / "trials/3/model/saved_model.pb").is_file()
    assert (run_dir.path / "trials/3/training/checkpoints").is_dir()
    assert not run_dir.model.exists()
    assert not run_dir.training.exists()
    lines = [json.loads(line) for line in (tmp_path / "output.metrics").read_text().splitlines()]
    study = load_job("job_configs/hptuning_job.yaml").content["studySpec"]
    for metric in study["metrics"]:
        values = [float(line[metric["metricId"]]) for line in lines if metric["metricId"] in line]
        assert len(values) == 3
        assert values[-1] in values[:-1]
    assert [line["global_step"] for line in lines] == sorted((line["global_step"] for line in lines), key=int)


def test_another_run_holds_the_directory(run_dir):
    with run_dir.lock():
        held = subprocess.run(
            [sys.executable, "-m", "trainer.task", "--run_dir", str(run_dir.path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ,
        )
    assert held.returncode == 2
    assert held.stderr.strip().endswith("in use by another run; wait for it, or give this one a --run_dir of its own")


def test_model_version_says_what_the_model_is(trained):
    version = json.loads((Path(trained.model) / "parcours.json").read_text())["model_version"]
    assert len(version) == 12
    int(version, 16)
