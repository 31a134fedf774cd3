"""A tuning job's file without a cloud: what is mapped onto Optuna, and what is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from preprocessing.cli import UserError
from tests.job import ROOT
from trainer.study import load_job

JOB: dict[str, Any] = {
    "maxTrialCount": 4,
    "parallelTrialCount": 2,
    "studySpec": {
        "metrics": [{"metricId": "eval_loss", "goal": "MINIMIZE"}],
        "parameters": [
            {
                "parameterId": "learning_rate",
                "doubleValueSpec": {"minValue": 0.001, "maxValue": 0.1},
                "scaleType": "UNIT_LOG_SCALE",
            },
            {"parameterId": "lstm_units", "integerValueSpec": {"minValue": 16, "maxValue": 32}},
            {"parameterId": "batch_size", "discreteValueSpec": {"values": [128, 256]}},
            {"parameterId": "dropout", "categoricalValueSpec": {"values": ["0", "0.1", "0.5"]}},
            {"parameterId": "epochs", "integerValueSpec": {"minValue": 1, "maxValue": 9, "defaultValue": 3}},
        ],
    },
    "trialJobSpec": {
        "workerPoolSpecs": [
            {
                "machineSpec": {"machineType": "n1-standard-8"},
                "replicaCount": 1,
                "containerSpec": {
                    "imageUri": "trainer:1",
                    "command": ["python", "-m", "trainer.task"],
                    "args": ["--run_dir", "${RUN_DIR}", "--no_baselines", "--bootstrap=0"],
                },
            }
        ],
        "scheduling": {"timeout": "90s"},
    },
}


def load(tmp_path, job):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    return load_job(str(tmp_path / "job.yaml"))


def changed(place, value):
    """JOB with another value at a.b.0.c."""
    job = copy.deepcopy(JOB)
    *steps, last = place.split(".")
    inside: Any = job
    for step in steps:
        inside = inside[int(step)] if step.isdecimal() else inside[step]
    inside[int(last) if last.isdecimal() else last] = value
    return job


def test_each_kind_of_parameter_is_the_distribution_of_its_values(tmp_path):
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    job = load(tmp_path, JOB)
    assert [parameter.distribution() for parameter in job.studySpec.parameters] == [
        FloatDistribution(0.001, 0.1, log=True),
        IntDistribution(16, 32),
        CategoricalDistribution((128.0, 256.0)),
        CategoricalDistribution(("0", "0.1", "0.5")),
        IntDistribution(1, 9),
    ]
    assert not job.maximizes
    assert job.trialJobSpec.seconds == 90
    assert job.trialJobSpec.flags == ["--no_baselines", "--bootstrap=0"]


def test_the_first_trial_is_the_default_setting_where_it_lies_among_the_values(tmp_path):
    job = load(tmp_path, JOB)
    first = {parameter.parameterId: parameter.default() for parameter in job.studySpec.parameters}
    # 64 units, the trainer's default, lie outside; how many epochs is the file's to say
    assert first == {"learning_rate": 0.002, "lstm_units": None, "batch_size": 256, "dropout": "0.1", "epochs": 3}


def test_values_become_what_the_flags_take(tmp_path):
    parameters = load(tmp_path, JOB).studySpec.parameters
    assert [one.flag_value(value) for one, value in zip(parameters, (0.01, 20, 128.0, "0.5", 2), strict=True)] == [
        *(0.01, 20, 128, 0.5, 2)
    ]


def test_the_shipped_job_is_read():
    job = load_job(str(ROOT / "job_configs/hptuning_job.yaml"))
    assert (job.maxTrialCount, job.parallelTrialCount, job.maxFailedTrialCount) == (16, 4, 3)
    assert job.metric.metricId == "eval_pr_auc" and job.maximizes
    assert None not in [parameter.default() for parameter in job.studySpec.parameters]


STUDY, POOL = "studySpec", "trialJobSpec.workerPoolSpecs.0"
FIRST = f"{STUDY}.parameters.0"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{FIRST}.scaleType", "UNIT_REVERSE_LOG_SCALE", "scaleType: UNIT_REVERSE_LOG_SCALE is not mapped"),
        (f"{FIRST}.conditionalParameterSpecs", [{}], "conditionalParameterSpecs: Vertex AI knows this field"),
        (f"{FIRST}.parameterId", "learning_rat", "parameterId: expected a setting of trainer.task, got 'learning_rat'"),
        (f"{FIRST}.doubleValueSpec.maxValue", 11.0, "--learning_rate: expected a number above 0 up to 10, got '11'"),
        (f"{FIRST}.doubleValueSpec.minValue", 0.0, "a logarithmic scale expects it above 0"),
        (f"{FIRST}.doubleValueSpec.minValue", 1.0, "minValue: expected at most maxValue, got 1 > 0.1"),
        (f"{FIRST}.doubleValueSpec.defaultValue", 1.0, "defaultValue: 1.0 is none of the parameter's values"),
        (f"{FIRST}.integerValueSpec", {"minValue": 1, "maxValue": 2}, "expected one of doubleValueSpec"),
        (f"{STUDY}.parameters.2.scaleType", "UNIT_LOG_SCALE", "mapped for a range, not for a list"),
        (f"{STUDY}.parameters.4.parameterId", "lstm_units", "lstm_units is given twice"),
        (f"{STUDY}.metrics.0.metricId", "accuracy", "metricId: expected one that the trainer reports, eval_pr_auc"),
        (f"{STUDY}.algorithm", "GRID_SEARCH", "learning_rate is a double"),
        (f"{STUDY}.transferLearningConfig", {}, "transferLearningConfig: Vertex AI knows this field"),
        (f"{STUDY}.medianAutomatedStoppingSpec", {"useElapsedDuration": True}, "useElapsedDuration"),
        (f"{STUDY}.decayCurveStoppingSpec", {}, "decayCurveStoppingSpec: Vertex AI knows this field"),
        (f"{POOL}.containerSpec.env", [], "env: Vertex AI knows this field"),
        (f"{POOL}.containerSpec.command", ["bash"], "command: expected python -m trainer.task, got 'bash'"),
        (f"{POOL}.replicaCount", 2, "less than or equal to 1, got 2"),
        ("trialJobSpec.scheduling.timeout", "2h", "timeout"),
        ("maxTrialCount", 0, "greater than or equal to 1, got 0"),
        ("maxTrialCounts", 1, "maxTrialCounts: unknown key; did you mean 'maxTrialCount'?"),
    ],
)
def test_what_is_not_mapped_is_refused_by_name(tmp_path, place, value, message):
    with pytest.raises(UserError) as refused:
        load(tmp_path, changed(place, value))
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path}/job.yaml:")
    assert "\n" not in str(refused.value)


def test_a_flag_that_waits_for_a_value_is_refused(tmp_path):
    job = load(tmp_path, changed(f"{POOL}.containerSpec.args", ["--run_dir=${RUN_DIR}", "--truth=${TRUTH}"]))
    with pytest.raises(UserError, match=r"args: --truth=\$\{TRUTH\}: only --run_dir"):
        _ = job.trialJobSpec.flags
