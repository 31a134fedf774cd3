"""What a trial reports, in the format of cloudml-hypertune's file."""

import json

import pytest

from trainer import tuning

ENTRY = {"epoch": 2, "eval_pr_auc": 0.25, "eval_roc_auc": 0.75, "eval_loss": 0.5, "train_loss": 0.4}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "there/output.metrics"))
    return tmp_path / "there/output.metrics"


def test_a_line_a_metric(file):
    """Fields and types as hypertune's report_hyperparameter_tuning_metric writes them: values are text."""
    tuning.report(ENTRY, 40)
    tuning.report(ENTRY | {"eval_pr_auc": 0.5}, 80)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [next(name for name in line if name in tuning.METRICS) for line in lines] == [*tuning.METRICS] * 2
    first = lines[0]
    assert isinstance(first.pop("timestamp"), float)
    assert first == {"trial": "7", "eval_pr_auc": "0.25", "global_step": "40", "checkpoint_path": ""}
    assert lines[3]["eval_pr_auc"] == "0.5"
    assert lines[3]["global_step"] == "80"


def test_outside_a_trial_nothing_is_written(file, monkeypatch):
    monkeypatch.delenv("CLOUD_ML_TRIAL_ID")
    tuning.report(ENTRY, 40)
    assert not file.exists()


def test_a_metric_that_eval_does_not_define_is_left_out_and_said_so(file, caplog):
    tuning.report(ENTRY | {"eval_pr_auc": None}, 40)
    assert "eval_pr_auc" not in file.read_text()
    assert "trial 7 reports no eval_pr_auc: eval holds one outcome only" in caplog.text
