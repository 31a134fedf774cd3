"""Schedules are Vertex AI's own type; their steps are commands of ours, in order, and promotion comes after a go."""

import importlib
import re
from pathlib import Path

import pytest
from google.protobuf import json_format

from deploy import schedule
from deploy.environment import load_environment
from deploy.jobs import load_job, to_message
from preprocessing.cli import UserError

JOB_CONFIGS = Path(__file__).parent.parent.parent / "job_configs"
SCHEDULES = sorted(JOB_CONFIGS.glob("schedule_*.yaml"))
GIVEN = {
    "SPEC": "gs://bucket/specs/demo.yaml",
    "EVENTS": "gs://bucket/events/*.parquet",
    "KEY_FILE": "gs://keys/customer.key",
    "THRESHOLDS": "gs://bucket/specs/double_run.yaml",
}


def message_of(path, environment="integration"):
    job, env = load_job(path), load_environment(environment)
    return to_message(job, job.render(env.variables() | GIVEN), env, "a name")


def spec_of(path):
    return json_format.MessageToDict(message_of(path).create_pipeline_job_request.pipeline_job.pipeline_spec)


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_schedule_is_the_apis_type_in_each_environment(path):
    for name in ("integration", "production"):
        message, env = message_of(path, name), load_environment(name)
        assert message.DESCRIPTOR.full_name == "google.cloud.aiplatform.v1.Schedule"
        assert re.fullmatch(r"TZ=\S+ (\S+ ){4}\S+", message.cron)
        assert message.max_concurrent_run_count == 1
        request = message.create_pipeline_job_request
        assert request.parent == env.parent
        job = request.pipeline_job
        assert (job.service_account, job.network) == (env.pipeline_account, env.network)
        assert job.encryption_spec.kms_key_name == env.cmek_key
        assert dict(job.labels) == env.labels | {"job": path.stem.replace("_", "-")}
        assert "${" not in str(message)


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_every_step_has_a_component_an_executor_and_a_command_that_knows_its_flags(path):
    spec = spec_of(path)
    assert set(spec) == {"schemaVersion", "pipelineInfo", "root", "components", "deploymentSpec"}
    tasks = spec["root"]["dag"]["tasks"]
    executors = spec["deploymentSpec"]["executors"]
    assert set(tasks) == set(spec["components"]) == set(executors)
    for name, task in tasks.items():
        assert task["componentRef"]["name"] == task["taskInfo"]["name"] == name
        assert task["cachingOptions"] == {}
        assert set(task.get("dependentTasks", [])) <= set(tasks)
        container = executors[spec["components"][name]["executorLabel"]]["container"]
        python, m, module = container["command"]
        assert (python, m) == ("python", "-m")
        assert container["image"].rpartition("/")[2].startswith("trainer" if module == "trainer.task" else "pipeline")
        check_flags(module, container["args"])


def check_flags(module, flags):
    """The step's own parser takes its flags, and Beam all others."""
    from preprocessing.beam_options import beam_options

    parser = importlib.import_module("trainer.settings" if module == "trainer.task" else module)._parser()
    _, others = parser.parse_known_args(flags)
    if module in ("deploy.predict", "preprocessing.task"):
        beam_options(others, module)
    else:
        assert others == []


def test_flags_that_nobody_knows_are_seen():
    with pytest.raises(AssertionError):
        check_flags("deploy.promote", ["--candidate=a", "--to=b", "--force"])
    with pytest.raises(UserError, match="--no_such_flag"):
        check_flags("preprocessing.task", ["--spec=a", "--events=b", "--run_dir=c", "--no_such_flag=1"])


def test_a_candidate_is_promoted_after_its_double_run_said_go_and_no_other_way():
    spec = spec_of(JOB_CONFIGS / "schedule_retraining.yaml")
    tasks, executors = spec["root"]["dag"]["tasks"], spec["deploymentSpec"]["executors"]
    order = ["prepare", "train", "double-run", "promote"]
    assert [tasks[name].get("dependentTasks", []) for name in order] == [[], ["prepare"], ["train"], ["double-run"]]

    def flags(name):
        return dict(flag.removeprefix("--").partition("=")[::2] for flag in executors[name]["container"]["args"])

    double_run, promote = flags("double-run"), flags("promote")
    assert "fail_unless_go" in double_run
    assert "first" not in promote
    assert (promote["candidate"], promote["double_run"], promote["to"]) == (
        double_run["candidate"], double_run["output"], double_run["incumbent"],
    )  # fmt: skip
    assert flags("train")["run_dir"] == flags("prepare")["run_dir"] == double_run["journeys"]
    assert promote["candidate"] == f"{flags('train')['run_dir']}/model"


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_the_header_names_places_that_a_step_is_given(path):
    """But for those that --set gives."""
    text = path.read_text()
    header = "".join(line for line in text.splitlines(True) if line.startswith("#") and "--set" not in line)
    named = set(re.findall(r"gs://BUCKET/([\w./-]*\w)", header))
    assert named
    given = {flag.partition("=")[2] for flag in re.findall(r"- (--\S+)", text)}
    assert {f"gs://${{BUCKET}}/{place}" for place in named} <= given


def test_mistakes_are_one_line(tmp_path):
    given = ["--env", "integration", "--job", str(JOB_CONFIGS / "schedule_scoring.yaml"), "--dry_run"]
    with pytest.raises(UserError, match=r"\$\{EVENTS\} has no value"):
        schedule.main(given)
    with pytest.raises(UserError, match="--set events=x: expected NAME=VALUE"):
        schedule.main([*given, "--set", "events=x"])
    with pytest.raises(UserError, match="expected a schedule"):
        schedule.main(["--env", "integration", "--job", str(JOB_CONFIGS / "smoke_job.yaml")])
    text = (JOB_CONFIGS / "schedule_scoring.yaml").read_text().replace("allowQueueing", "allowQueuing")
    (tmp_path / "schedule.yaml").write_text(text)
    flags = [part for name, value in GIVEN.items() for part in ("--set", f"{name}={value}")]
    with pytest.raises(UserError, match="allowQueuing"):
        schedule.main(["--env", "integration", "--job", str(tmp_path / "schedule.yaml"), *flags])


def test_a_dry_run_shows_the_schedule(capsys):
    flags = [part for name, value in GIVEN.items() for part in ("--set", f"{name}={value}")]
    job = str(JOB_CONFIGS / "schedule_retraining.yaml")
    schedule.main(["--env", "production", "--job", job, "--dry_run", *flags])
    said = capsys.readouterr().out
    assert '"displayName": "parcours-schedule-retraining"' in said
    assert "deploy.promote" in said
