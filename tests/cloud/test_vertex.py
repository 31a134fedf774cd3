"""The local Vertex AI, asked by Google's clients over gRPC and REST: the documented states, errors and variables."""

from __future__ import annotations

import json

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform_v1 as v1

from tests.cloud.cloud_logging import Logging
from tests.cloud.house import House
from tests.cloud.storage import Storage
from tests.cloud.vertex import Vertex

PARENT = "projects/parcours-integration/locations/us-central1"
HOST = {"api_endpoint": "us-central1-aiplatform.googleapis.com"}
IMAGE = "us-central1-docker.pkg.dev/parcours-integration/parcours/trainer:0.1.0"
DUMP = (
    "import json, os; "
    "print(json.dumps({k: v for k, v in os.environ.items() if k[:4] in ('AIP_', 'CLOU', 'CLUS', 'TF_C')}))"
)


@pytest.fixture
def vertex(cloud: House) -> Vertex:
    return cloud.service(Vertex)


@pytest.fixture(params=["grpc", "rest"])
def jobs(request, cloud) -> v1.JobServiceClient:
    return v1.JobServiceClient(client_options=HOST, transport=request.param)


def custom_job(*command, pools=1, image=IMAGE, timeout_s=60, base="gs://b/out"):
    container = {"image_uri": image, "command": list(command)}
    pool = {"machine_spec": {"machine_type": "n1-standard-4"}, "replica_count": 1, "container_spec": container}
    return v1.CustomJob(
        display_name="a job",
        job_spec={
            "worker_pool_specs": [pool] * pools,
            "scheduling": {"timeout": {"seconds": timeout_s}},
            "base_output_directory": {"output_uri_prefix": base},
        },
    )


def said(cloud, name):
    job_id = name.rpartition("/")[2]
    found = [e for e in cloud.service(Logging).entries if e.resource.labels["job_id"] == job_id]
    return [(e.resource.labels["task_name"], e.json_payload["message"]) for e in found]


def test_a_job_runs_with_the_documented_environment(cloud, vertex, jobs):
    made = jobs.create_custom_job(parent=PARENT, custom_job=custom_job("python", "-c", DUMP))
    assert made.state == v1.JobState.JOB_STATE_PENDING
    assert vertex.wait(made.name).state == v1.JobState.JOB_STATE_SUCCEEDED
    found = jobs.get_custom_job(name=made.name)
    assert found.create_time <= found.start_time <= found.end_time
    ((task, line),) = said(cloud, made.name)
    environment = json.loads(line)
    assert task == "workerpool0-0"
    assert environment["AIP_MODEL_DIR"] == "gs://b/out/model/"
    assert environment["AIP_CHECKPOINT_DIR"] == "gs://b/out/checkpoints/"
    assert environment["AIP_TENSORBOARD_LOG_DIR"] == "gs://b/out/logs/"
    assert json.loads(environment["CLUSTER_SPEC"])["task"] == {"type": "workerpool0", "index": 0}
    assert "TF_CONFIG" not in environment
    assert environment["CLOUD_ML_JOB_ID"] == made.name.rpartition("/")[2]


def test_every_replica_knows_the_cluster(cloud, vertex, jobs):
    made = jobs.create_custom_job(parent=PARENT, custom_job=custom_job("python", "-c", DUMP, pools=2))
    assert vertex.wait(made.name).state == v1.JobState.JOB_STATE_SUCCEEDED
    configs = {task: json.loads(json.loads(line)["TF_CONFIG"]) for task, line in said(cloud, made.name)}
    assert configs["workerpool0-0"]["task"] == {"type": "chief", "index": 0}
    assert set(configs["workerpool0-0"]["cluster"]) == {"chief", "worker"}
    if "workerpool1-0" in configs:  # the job ends with its primary replica, maybe before the other has spoken
        assert configs["workerpool1-0"]["cluster"] == configs["workerpool0-0"]["cluster"]


@pytest.mark.parametrize(
    ("job", "code", "message"),
    [
        (custom_job("python", "-c", "raise SystemExit(7)"), 3, "workerpool0-0 exited with a non-zero status of 7"),
        (custom_job("python", "-c", "pass", image="example.com/other/image:1"), 5, "Failed to pull image example.com"),
        (custom_job("python", "-c", "import threading; threading.Event().wait()", timeout_s=1), 4, "timeout of 1s"),
    ],
)
def test_failures_have_a_state_and_a_reason(vertex, jobs, job, code, message):
    made = jobs.create_custom_job(parent=PARENT, custom_job=job)
    ended = vertex.wait(made.name)
    assert ended.state == v1.JobState.JOB_STATE_FAILED
    assert ended.error.code == code
    assert message in ended.error.message


def test_a_job_is_cancelled(vertex, jobs):
    endless = custom_job("python", "-c", "import threading; threading.Event().wait()")
    made = jobs.create_custom_job(parent=PARENT, custom_job=endless)
    jobs.cancel_custom_job(name=made.name)
    assert vertex.wait(made.name).state == v1.JobState.JOB_STATE_CANCELLED
    assert all(process.poll() is not None for run in vertex.started[made.name] for process in run.processes)


def test_refusals_are_those_of_the_service(cloud, jobs):
    with pytest.raises(exceptions.NotFound):
        jobs.get_custom_job(name=f"{PARENT}/customJobs/1")
    with pytest.raises(exceptions.BadRequest, match="display_name"):
        jobs.create_custom_job(parent=PARENT, custom_job=v1.CustomJob())
    with pytest.raises(exceptions.BadRequest, match="Location mars1"):
        jobs.create_custom_job(parent=PARENT.replace("us-central1", "mars1"), custom_job=custom_job("true"))
    cloud.service(Vertex).fail(429, match="CreateCustomJob|customJobs")
    with pytest.raises(exceptions.TooManyRequests):
        jobs.create_custom_job(parent=PARENT, custom_job=custom_job("true"))


def test_rest_refuses_a_field_that_the_type_has_not(cloud, house):
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    session = AuthorizedSession(credentials)
    answer = session.post(
        f"https://us-central1-aiplatform.googleapis.com/v1/{PARENT}/customJobs",
        json={"displayName": "a", "jobSpec": {"workerPoolSpecs": [{}], "labels": {"a": "b"}}},
    )
    assert answer.status_code == 400
    assert 'no field named "labels"' in answer.json()["error"]["message"]


def test_a_tuning_job_tries_and_keeps_the_last_measurement(cloud, vertex, jobs):
    write = (
        "import json, os, sys; rate = float(sys.argv[1].split('=')[1]); out = os.environ['CLOUD_ML_HP_METRIC_FILE']; "
        "trial = os.environ['CLOUD_ML_TRIAL_ID']; print(trial, os.environ['AIP_MODEL_DIR']); "
        "open(out, 'a').write(json.dumps({'score': str(rate), 'global_step': '1', 'trial': trial}) + '\\n'); "
        "open(out, 'a').write(json.dumps({'score': str(2 * rate), 'global_step': '2', 'trial': trial}) + '\\n')"
    )
    spec = custom_job("python", "-c", write).job_spec
    job = v1.HyperparameterTuningJob(
        display_name="tuning",
        max_trial_count=3,
        parallel_trial_count=1,
        study_spec={
            "metrics": [{"metric_id": "score", "goal": "MAXIMIZE"}],
            "parameters": [{"parameter_id": "rate", "double_value_spec": {"min_value": 0.0, "max_value": 1.0}}],
        },
        trial_job_spec=spec,
    )
    made = jobs.create_hyperparameter_tuning_job(parent=PARENT, hyperparameter_tuning_job=job)
    vertex.wait(made.name)
    ended = jobs.get_hyperparameter_tuning_job(name=made.name)
    assert ended.state == v1.JobState.JOB_STATE_SUCCEEDED
    assert [trial.state.name for trial in ended.trials] == ["SUCCEEDED"] * 3
    for trial in ended.trials:
        assert trial.final_measurement.metrics[0].value == pytest.approx(2 * trial.parameters[0].value)
        assert len(trial.measurements) == 2
    assert {line for _, line in said(cloud, made.name)} == {f"{n} gs://b/out/{n}/model/" for n in (1, 2, 3)}


def test_models_have_versions_and_aliases(cloud):
    storage = cloud.service(Storage)
    storage.make_bucket("b")
    models = v1.ModelServiceClient(client_options=HOST)
    model = v1.Model(
        display_name="m", artifact_uri="gs://b/model", container_spec={"image_uri": IMAGE}, version_aliases=["champion"]
    )
    with pytest.raises(exceptions.GoogleAPICallError, match="no object below"):
        models.upload_model(parent=PARENT, model=model).result(30)
    storage.put("b", "model/saved_model.pb", b"x")
    first = models.upload_model({"parent": PARENT, "model": model, "model_id": "m"}).result(30)
    assert (first.model, first.model_version_id) == (f"{PARENT}/models/m", "1")
    second = models.upload_model({"parent": PARENT, "model": model, "parent_model": first.model}).result(30)
    assert second.model_version_id == "2"
    assert models.get_model(name=f"{first.model}@champion").version_id == "2"
    assert models.get_model(name=first.model).version_id == "1"
    models.merge_version_aliases(name=f"{first.model}@1", version_aliases=["champion"])
    assert models.get_model(name=f"{first.model}@champion").version_id == "1"
    assert [m.version_id for m in models.list_model_versions(name=first.model)] == ["1", "2"]
