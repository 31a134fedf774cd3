"""The example of a KFP pipeline compiles, chains commands that know their flags, and is the schedule's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.cloud import aiplatform_v1 as api
from google.protobuf import json_format

from tests.deploy.test_schedules import check_flags, spec_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/kfp/retraining.py"
SCHEDULE = ROOT / "job_configs/schedule_retraining.yaml"
IMAGES = ("--pipeline_image", "r/pipeline:1", "--trainer_image", "r/trainer:1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The pipeline's specification, as the example's own command writes it."""
    output = tmp_path_factory.mktemp("kfp") / "retraining.yaml"
    subprocess.run([sys.executable, "-W", "ignore", EXAMPLE, *IMAGES, "--output", output], check=True, cwd=ROOT)
    return yaml.safe_load(output.read_text())


def steps(spec):
    """By task: its command's module, its flags with what is filled in as x, and the tasks that it waits for."""
    found = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][label]["container"]
        flags = [re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", r"x", flag) for flag in container["args"]]
        found[name] = container["command"][2], flags, task.get("dependentTasks", [])
    return found


def test_every_step_is_a_command_that_knows_its_flags(compiled):
    for module, flags, _ in steps(compiled).values():
        check_flags(module, flags)


def test_the_steps_are_those_of_the_schedule(compiled):
    """In the same order, by the same commands with the same flags; its key of Dataflow's disks apart."""
    scheduled = steps(spec_of(SCHEDULE))
    ours = steps(compiled)
    assert set(ours) == set(scheduled)
    for name, (module, flags, before) in scheduled.items():
        names = {flag.partition("=")[0] for flag in flags} - {"--dataflow_kms_key"}
        assert ours[name][0] == module
        assert {flag.partition("=")[0] for flag in ours[name][1]} == names
        assert ours[name][2] == before


def test_nothing_is_cached_and_every_parameter_is_used(compiled):
    tasks = compiled["root"]["dag"]["tasks"].values()
    assert all(task["cachingOptions"] == {} for task in tasks)
    used = {value["componentInputParameter"] for task in tasks for value in task["inputs"]["parameters"].values()}
    assert used == set(compiled["root"]["inputDefinitions"]["parameters"])


def test_it_is_what_a_pipeline_job_of_vertex_ai_takes(compiled):
    parameters = dict.fromkeys(compiled["root"]["inputDefinitions"]["parameters"], "gs://bucket/x")
    job = {"pipelineSpec": compiled, "runtimeConfig": {"parameterValues": parameters, "gcsOutputDirectory": "gs://b/p"}}
    message = json_format.ParseDict(json.loads(json.dumps(job)), api.PipelineJob.pb(api.PipelineJob()))
    assert message.pipeline_spec["pipelineInfo"]["name"] == "parcours-retraining"
    assert message.pipeline_spec["schemaVersion"] == spec_of(SCHEDULE)["schemaVersion"]
