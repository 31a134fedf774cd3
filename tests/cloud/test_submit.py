"""deploy.submit by Google's clients before the local Vertex AI; and gcloud itself, which must submit the same jobs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
import types
from pathlib import Path

import pytest
from google.cloud.aiplatform_v1 import JobState

from deploy import following, submit
from deploy.environment import load_environment
from preprocessing.cli import UserError
from tests.cloud.cloud_logging import Logging
from tests.cloud.house import House
from tests.cloud.oauth import OAuth
from tests.cloud.service import ApiError
from tests.cloud.storage import Storage
from tests.cloud.vertex import Vertex
from tests.deploy.test_job_files import JOB_CONFIGS, OF_VERTEX

ENVIRONMENT = load_environment("integration")
RUN_DIR = f"gs://{ENVIRONMENT.bucket}/runs/one"
MODEL = f"{ENVIRONMENT.parent}/models/parcours@champion"
JOB = """
workerPoolSpecs:
  - machineSpec: {machineType: n1-standard-4}
    replicaCount: 1
    diskSpec: {bootDiskType: pd-standard, bootDiskSizeGb: 100}
    containerSpec:
      imageUri: IMAGE
      command: [python, -c, 'CODE']
scheduling: {timeout: 60s}
serviceAccount: ${TRAINING_ACCOUNT}
network: ${NETWORK}
"""


@pytest.fixture
def vertex(cloud: House) -> Vertex:
    cloud.service(Storage).make_bucket(ENVIRONMENT.bucket)
    return cloud.service(Vertex)


def run(path: Path, tmp_path: Path, *flags: str) -> None:
    flags = ("--job", str(path), "--env", "integration", "--run_dir", RUN_DIR, "--poll_s", "0.05", *flags)
    submit.main([*flags, "--rendered", str(tmp_path / "rendered.yaml")])


def job_file(tmp_path: Path, code: str, image: str = "${TRAINER_IMAGE}", timeout: str = "60s") -> Path:
    path = tmp_path / "small_job.yaml"
    text = JOB.replace("CODE", code).replace(": IMAGE\n", f": {image}\n")
    path.write_text(text.replace("timeout: 60s", f"timeout: {timeout}"))
    return path


def test_a_job_from_its_price_to_its_end(vertex, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    run(job_file(tmp_path, 'print("learning")'), tmp_path)
    said = capsys.readouterr().out
    ((name, job),) = vertex.jobs.items()
    assert f"submitted {name}" in said
    assert f"succeeded: {RUN_DIR}/model" in said
    assert f"trainer image: {ENVIRONMENT.trainer_image}" in said
    assert "costs at most 0.01 USD (list prices of us-central1, 2026-11)" in said
    assert f"gcloud ai custom-jobs create --project={ENVIRONMENT.project} --region=us-central1" in said
    told = [record.message.strip() for record in caplog.records]
    assert "workerpool0-0  learning" in told
    assert told[-2].endswith("succeeded") or told[-1].endswith("succeeded")
    assert job.state == JobState.JOB_STATE_SUCCEEDED
    assert dict(job.labels) == ENVIRONMENT.labels | {"job": "small-job", "run": "runs_one"}
    assert job.encryption_spec.kms_key_name == ENVIRONMENT.cmek_key
    assert job.job_spec.service_account == ENVIRONMENT.training_account
    assert re.fullmatch(r"small-job-\d{8}-\d{6}-[0-9a-f]{4}", job.display_name)


def test_a_dry_run_asks_nobody(vertex, cloud, tmp_path, capsys):
    run(JOB_CONFIGS / "python_package_job.yaml", tmp_path, "--dry_run")
    assert "dry run: nothing was submitted" in capsys.readouterr().out
    assert not vertex.requests
    assert not cloud.service(Storage).requests


def test_the_package_is_uploaded_once_and_installed_by_the_job(vertex, cloud, tmp_path, caplog):
    """The whole route: sdist, bucket, pip, module. There is no run directory, and the trainer says so."""
    caplog.set_level("INFO")
    for _ in range(2):
        with pytest.raises(UserError, match="workerpool0-0 exited with a non-zero status of 2"):
            run(JOB_CONFIGS / "python_package_job.yaml", tmp_path)
    (name,) = cloud.service(Storage).names(ENVIRONMENT.bucket, "packages/")
    assert re.fullmatch(r"packages/[0-9a-f]{12}/parcours-[\d.]+\.tar\.gz", name)
    packages = [job.job_spec.worker_pool_specs[0].python_package_spec.package_uris for job in vertex.jobs.values()]
    assert [list(uris) for uris in packages] == [[f"gs://{ENVIRONMENT.bucket}/{name}"]] * 2
    assert any("error: " in record.message and "run directory" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run_dir", "runs/one"), f"--run_dir runs/one: expected gs://{ENVIRONMENT.bucket}/…"),
        (("--run_dir", "gs://other/one"), "the bucket of --env integration"),
        (("--set", "model=x"), "--set model=x: expected NAME=VALUE, the name in capitals"),
        (("--max_hours", "2"), "--max_hours: for batch predictions only"),
        (
            ("--job", "job_configs/batch_prediction.yaml", "--max_hours", "1", "--detach"),
            "--detach: a batch prediction is cancelled after --max_hours by this command",
        ),
        (("--env", "staging"), "--env staging: no job_configs/environments/staging.yaml"),
        (("--job", "job_configs/prices.yaml"), "expected workerPoolSpecs"),
        (("--job", "job_configs/batch_prediction.yaml"), "--max_hours: expected, since a batch prediction"),
        (
            ("--job", "job_configs/batch_prediction.yaml", "--max_hours", "1"),
            "${MODEL} has no value; give it with --set MODEL=…",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(vertex, tmp_path, flags, message):
    with pytest.raises(UserError) as told:
        run(JOB_CONFIGS / "smoke_job.yaml", tmp_path, *flags)
    assert message in str(told.value)
    assert not vertex.requests


def test_above_the_cap_the_flag_is_needed(vertex, tmp_path):
    cheap = tmp_path / "cheap.yaml"
    text = Path("job_configs/environments/integration.yaml").read_text()
    cheap.write_text(text.replace("cost_cap: 25", "cost_cap: 0.001"))
    path = job_file(tmp_path, "pass")
    with pytest.raises(UserError, match=r"may cost 0\.01 USD, above the 0\.001 of --env .*; .* or add --above_cap"):
        run(path, tmp_path, "--env", str(cheap))
    assert not vertex.jobs
    run(path, tmp_path, "--env", str(cheap), "--above_cap")
    assert len(vertex.jobs) == 1


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"code": "raise SystemExit(3)"}, r"workerpool0-0 exited with a non-zero status of 3\.+ The lines above"),
        (
            {"code": "pass", "image": "us-docker.pkg.dev/else/where/trainer:1"},
            "Failed to pull image us-docker.* Push the image, or mend trainer_image or serving_image",
        ),
        (
            {"code": "import threading; threading.Event().wait()", "timeout": "1s"},
            "stopped at its time limit of .* raise scheduling.timeout in the job file",
        ),
    ],
)
def test_why_a_job_failed_is_one_line(vertex, tmp_path, job, message):
    with pytest.raises(UserError, match=message) as told:
        run(job_file(tmp_path, **job), tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (403, "Permission 'aiplatform.customJobs.create' denied", "permission denied .*customJobs.create.*; grant"),
        (429, "The following quotas are exceeded: CustomModelTrainingT4GPUsPerProjectPerRegion", "a quota of project"),
        (401, "Request had invalid authentication credentials.", "credentials are refused .*gcloud auth application-"),
        (404, "Project 1 was not found", "not found .*; check the name, and project and region"),
        (400, "Location mars1 is not found", "us-central1 is no region for this .*; check region and cmek_key"),
    ],
)
def test_a_refusal_is_one_line_and_is_not_tried_again(vertex, tmp_path, status, said, message):
    vertex.fail(status, times=9, match="CreateCustomJob", message=said)
    with pytest.raises(UserError, match=message) as told:
        run(job_file(tmp_path, "pass"), tmp_path)
    assert "\n" not in str(told.value)
    assert len(vertex.seen("CreateCustomJob")) == 1


def test_expired_credentials(vertex, cloud, tmp_path):
    cloud.service(OAuth).expire()
    with pytest.raises(UserError, match=r"credentials are refused or have expired .*gcloud auth application-default"):
        run(job_file(tmp_path, "pass"), tmp_path)
    assert not vertex.jobs


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(vertex, cloud, tmp_path, status):
    vertex.fail(status, times=2, match="CreateCustomJob", message="slow down")
    vertex.fail(status, times=2, match="GetCustomJob", message="slow down")
    cloud.service(Logging).fail(status, times=1, match="ListLogEntries")
    run(job_file(tmp_path, "pass"), tmp_path)
    assert len(vertex.jobs) == 1
    assert len(vertex.seen("CreateCustomJob")) == 3


@pytest.mark.parametrize("status", [503, 504])
def test_an_answer_that_got_lost_makes_no_second_job(vertex, tmp_path, status):
    """The service made the job, the answer did not arrive: the next attempt finds it by its name."""
    call = next(call for call in vertex.calls if call.name == "CreateCustomJob")
    made = call.function

    def lost(request):
        made(request)
        raise ApiError(status, "connection reset")

    call.function = lost
    try:
        run(job_file(tmp_path, "pass"), tmp_path)
    finally:
        call.function = made
    assert len(vertex.jobs) == 1
    assert len(vertex.seen("CreateCustomJob")) == 1


def test_a_log_that_may_not_be_read_stops_nothing(vertex, cloud, tmp_path, caplog):
    cloud.service(Logging).fail(403, times=9, match="ListLogEntries")
    run(job_file(tmp_path, "pass"), tmp_path)
    assert [r.levelname for r in caplog.records if "log lines cannot be read" in r.message] == ["WARNING"]


def test_a_batch_prediction_is_cancelled_at_its_limit(vertex, cloud, tmp_path):
    cloud.service(Storage).put(ENVIRONMENT.bucket, "model/saved_model.pb", b"x")
    registered(vertex)
    vertex.held.set()
    with pytest.raises(UserError, match="cancelled after --max_hours 1e-06"):
        run(JOB_CONFIGS / "batch_prediction.yaml", tmp_path, "--set", f"MODEL={MODEL}", "--max_hours", "0.000001")
    assert [job.state for job in vertex.jobs.values()] == [JobState.JOB_STATE_CANCELLED]


def registered(vertex: Vertex) -> None:
    """A model version for batch_prediction.yaml to name."""
    from google.cloud.aiplatform_v1 import Model

    base = MODEL.partition("@")[0]
    vertex.models[base] = [Model(name=base, version_id="1", version_aliases=["default", "champion"])]


def interrupted(_seconds):
    raise KeyboardInterrupt


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_gcloud_submits_the_same_job(vertex, tmp_path, capsys, monkeypatch, path):
    """What gcloud, or curl where gcloud has no command, sends of the rendered file is what the SDK sends."""
    program = "curl" if path.stem == "batch_prediction" else "gcloud"
    for needed in {program, "gcloud"}:
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not on this machine: what it sends of {path.name} is NOT checked")
    registered(vertex)
    vertex.held.set()
    if path.stem == "batch_prediction":
        monkeypatch.setattr(following, "time", types.SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
        with pytest.raises(UserError, match=r"the job goes on, and nothing cancels it after --max_hours 2; cancel it"):
            run(path, tmp_path, "--set", f"MODEL={MODEL}", "--max_hours", "2")
    else:
        run(path, tmp_path, "--detach")
    command = capsys.readouterr().out.partition("the same by hand:\n  ")[2].splitlines()[0]
    assert shlex.split(command)[0] == program
    if program == "curl":  # the local proxy takes HTTP/2 for gRPC
        command = command.replace("curl", "curl --http1.1", 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = vertex.jobs.values()
    for job in (ours, theirs):
        for field in ("name", "create_time", "update_time"):
            setattr(job, field, None)
    assert type(ours) is type(theirs)
    assert ours == theirs
