"""deploy.upload and deploy.endpoint before the local Vertex AI; its containers are our own server with a real model."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format

from deploy import endpoint, registry, upload
from deploy.environment import load_environment
from preprocessing.cli import UserError
from preprocessing.manifest import check_manifest, write_manifest
from tests.cloud.house import House
from tests.cloud.storage import Storage
from tests.cloud.vertex import Vertex

ENVIRONMENT = load_environment("integration")
BUCKET = ENVIRONMENT.bucket
NAME = f"{ENVIRONMENT.parent}/models/parcours"
RUNS = (f"gs://{BUCKET}/runs/one", f"gs://{BUCKET}/runs/two")


@pytest.fixture
def vertex(cloud: House, job) -> Vertex:
    """Two run directories in the bucket: the main job's, and the same again under another model version."""
    storage = cloud.service(Storage)
    storage.make_bucket(BUCKET)
    for number, version in enumerate((None, "f" * 12)):
        put(storage, Path(job["run_dir"]), f"runs/{('one', 'two')[number]}", version)
    return cloud.service(Vertex)


def put(storage: Storage, run_dir: Path, place: str, version: str | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(run_dir / "model", copy / "model")
        (copy / "evaluation").mkdir()
        shutil.copy(run_dir / "evaluation/metrics.json", copy / "evaluation")
        if version:
            for path in (copy / "model/parcours.json", copy / "evaluation/metrics.json"):
                path.write_text(json.dumps(json.loads(path.read_text()) | {"model_version": version}))
            write_manifest(copy / "model")
        for path in copy.rglob("*"):
            if path.is_file():
                storage.put(BUCKET, f"{place}/{path.relative_to(copy).as_posix()}", path.read_bytes())


def register(run_dir: str, *flags: str) -> None:
    upload.main(["--run_dir", run_dir, "--env", "integration", *flags])


def at_endpoint(*flags: str) -> None:
    endpoint.main([*flags, "--env", "integration"])


def test_a_model_is_registered_once_with_what_was_measured(vertex, job, capsys):
    register(RUNS[0])
    register(RUNS[0], "--alias", "champion")
    register(RUNS[1])
    said = capsys.readouterr().out.splitlines()
    about = json.loads((job["run_dir"] / "model/parcours.json").read_text())
    measured = json.loads((job["run_dir"] / "evaluation/metrics.json").read_text())["test"]["30"]["lstm"]
    assert said[0] == f"model {about['model_version']} registered as {NAME}@1, alias candidate"
    assert "was registered before as" in said[1]
    first, second = vertex.models[NAME]
    assert list(first.version_aliases) == ["default", "champion"]
    assert list(second.version_aliases) == ["candidate"]
    assert first.labels["model_version"] == about["model_version"]
    assert int(first.labels["test_pr_auc"]) == round(measured["pr_auc"]["value"] * 10_000)
    assert first.labels["environment"] == "integration"
    assert first.artifact_uri == f"{RUNS[0]}/model"
    assert first.encryption_spec.kms_key_name == ENVIRONMENT.cmek_key
    container = first.container_spec
    assert list(container.command) == ["python", "-m", "deploy.serve"]
    assert list(container.args) == ["--manifest_sha256", check_manifest(job["run_dir"] / "model", "")]
    assert (container.predict_route, container.health_route) == ("/predict", "/health")
    (evaluation,) = vertex.evaluations[f"{NAME}@1"]
    shown = json_format.MessageToDict(v1.ModelEvaluation.pb(evaluation))
    assert shown["metrics"]["auPrc"] == pytest.approx(measured["pr_auc"]["value"])
    assert shown["metadata"]["test"]["7"]["roc_auc"]["low"] < shown["metadata"]["test"]["7"]["roc_auc"]["high"]


def test_an_altered_model_is_not_registered(vertex, cloud):
    storage = cloud.service(Storage)
    data = storage.data(BUCKET, "runs/one/model/statistics.json")
    storage.put(BUCKET, "runs/one/model/statistics.json", data.replace(b"1", b"2", 1))
    with pytest.raises(UserError, match=r"runs/one/model: statistics\.json: altered since the export"):
        register(RUNS[0])
    assert not vertex.models


def test_a_busy_registry_makes_one_version(vertex):
    vertex.fail(503, times=2, match="UploadModel")
    vertex.fail(429, times=1, match="MergeVersionAliases", message="slow down")
    register(RUNS[0])
    assert [version.version_id for version in vertex.models[NAME]] == ["1"]


def test_an_evaluation_that_was_not_imported_is_imported_by_the_next_attempt(vertex, capsys):
    vertex.fail(403, match="ImportModelEvaluation", message="Permission 'aiplatform.modelEvaluations.import' denied")
    with pytest.raises(UserError, match=r"parcours@1: registered, without its evaluation: permission denied"):
        register(RUNS[0])
    assert not vertex.evaluations
    for _ in range(2):
        register(RUNS[0])
        assert "was registered before as" in capsys.readouterr().out
        assert len(vertex.evaluations[f"{NAME}@1"]) == 1
    assert list(vertex.models[NAME][0].version_aliases) == ["default", "candidate"]


@pytest.mark.parametrize("call", ["UploadModel", "ImportModelEvaluation"])
def test_an_answer_that_got_lost_makes_neither_a_second_version_nor_a_second_evaluation(vertex, call):
    vertex.lose(503, match=call)
    register(RUNS[0])
    assert len(vertex.seen(call)) == len(vertex.faults.struck) == 1
    assert len(vertex.models[NAME]) == len(vertex.evaluations[f"{NAME}@1"]) == 1


def test_an_upload_that_goes_on_is_told_with_how_to_look_at_it(vertex, monkeypatch, capsys):
    goes_on, below = threading.Event(), vertex.objects_below
    monkeypatch.setattr(vertex, "objects_below", lambda uri: goes_on.wait(60) and below(uri))
    monkeypatch.setattr(registry, "_PATIENCE_S", 0.06)
    with pytest.raises(UserError) as told:
        register(RUNS[0])
    ((name, operation),) = vertex.operations.items()
    assert str(told.value) == (
        f"{RUNS[0]}/model: not registered: not seen to end within 0.001 minutes, and goes on; look at it with: "
        f"{look(name)}; once it is done: run the same command again"
    )
    assert not is_done(name)
    goes_on.set()
    until(lambda: operation.done)
    assert is_done(name)
    register(RUNS[0])
    assert f"was registered before as {NAME}@1" in capsys.readouterr().out
    assert len(vertex.models[NAME]) == len(vertex.evaluations[f"{NAME}@1"]) == 1


def look(name: str) -> str:
    url = f"https://us-central1-aiplatform.googleapis.com/v1/{name}"
    return f'curl -H "Authorization: Bearer $(gcloud auth print-access-token)" {url}'


def is_done(name: str) -> bool:
    """What the command that `look` gives tells of an operation."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    answer = AuthorizedSession(credentials).get(look(name).rpartition(" ")[2])
    assert answer.ok, answer.text
    return bool(answer.json().get("done"))


def until(holds) -> None:
    for _ in range(600):
        if holds():
            return
        threading.Event().wait(0.05)
    raise AssertionError("30 s passed")


def test_who_is_not_logged_in_is_told_how_to_log_in(cloud, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(
        UserError, match=r"parcours\.json: the credentials are refused .*; log in with: gcloud auth app"
    ):
        registry.read_run(RUNS[0], ENVIRONMENT)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run_dir", f"gs://{BUCKET}/runs/none"), "model/parcours.json: not there; train first"),
        (("--run_dir", "runs/demo"), f"expected gs://{BUCKET}/…, the bucket of --env integration"),
        (("--alias", "The Best"), "--alias The Best: expected letters"),
        (("--model_id", "Parcours!"), "--model_id Parcours!: expected small letters"),
    ],
)
def test_upload_tells_mistakes(vertex, flags, message):
    with pytest.raises(UserError) as told:
        register(RUNS[0], *flags)
    assert message in str(told.value)
    assert not vertex.models


def test_a_model_and_an_evaluation_of_two_trainings(vertex, cloud):
    storage = cloud.service(Storage)
    storage.put(BUCKET, "runs/one/evaluation/metrics.json", storage.data(BUCKET, "runs/two/evaluation/metrics.json"))
    with pytest.raises(UserError, match=r"model/ is \w{12}, evaluation/ of ffffffffffff; train anew"):
        register(RUNS[0])


def test_permission_denied_is_told(vertex):
    vertex.fail(403, match="UploadModel", message="Permission 'aiplatform.models.upload' denied")
    with pytest.raises(UserError, match=r"not registered: permission denied .*models\.upload.*; grant the account"):
        register(RUNS[0])


def test_an_endpoint_from_first_model_to_rollback(vertex, job, capsys):
    """Deploy, predict with a key, deploy a second at 20 %, split, roll back twice, undeploy."""
    register(RUNS[0])
    register(RUNS[1])
    at_endpoint("show")
    assert f"no endpoint parcours in {ENVIRONMENT.parent}" in capsys.readouterr().out
    at_endpoint("deploy", "--version", "1")
    assert "version 1: 100 %, 1 to 2 n1-standard-2" in capsys.readouterr().out
    ((name, found),) = vertex.endpoints.items()
    first = found.deployed_models[0]
    assert first.service_account == ENVIRONMENT.serving_account
    assert found.encryption_spec.kms_key_name == ENVIRONMENT.cmek_key

    answer = predict(name, job)
    assert answer.model_version_id == "1"
    (prediction,) = json_format.MessageToDict(v1.PredictResponse.pb(answer))["predictions"]
    assert prediction["key"] == "a key"
    assert 0 <= prediction["probabilities"]["7"] <= prediction["probabilities"]["30"] <= 1

    at_endpoint("deploy", "--version", "candidate", "--traffic", "20")
    said = capsys.readouterr().out
    assert "version 1: 80 % (before: 100 %)" in said
    assert "version 2: 20 % (before: 0 %)" in said
    assert {predict(name, job).model_version_id for _ in range(40)} == {"1", "2"}

    at_endpoint("split", "--traffic", "1=0", "2=100")
    assert "version 2: 100 % (before: 20 %)" in capsys.readouterr().out
    assert predict(name, job).model_version_id == "2"
    with pytest.raises(UserError, match="version 2 is deployed already"):
        at_endpoint("deploy", "--version", "2")
    with pytest.raises(UserError, match="--version 2: still gets 100 % of the traffic"):
        at_endpoint("undeploy", "--version", "2")
    at_endpoint("rollback")
    assert "version 1: 80 % (before: 0 %)" in capsys.readouterr().out
    at_endpoint("rollback")
    assert "version 1: 0 % (before: 80 %)" in capsys.readouterr().out
    at_endpoint("undeploy", "--version", "1")
    assert len(vertex.endpoints[name].deployed_models) == 1
    with pytest.raises(UserError, match=r"deployed model \d+ of the split before is gone; give one with: split"):
        at_endpoint("rollback")


def predict(name: str, job) -> v1.PredictResponse:
    from deploy.explanation import sample

    about = json.loads((job["run_dir"] / "model/parcours.json").read_text())
    client = v1.PredictionServiceClient(client_options={"api_endpoint": "us-central1-aiplatform.googleapis.com"})
    request = v1.PredictRequest(endpoint=name)
    json_format.ParseDict({"instances": [sample(about) | {"key": "a key"}]}, v1.PredictRequest.pb(request))
    return client.predict(request=request)


@pytest.mark.parametrize("unlisted", [0, 2])
def test_an_answer_that_got_lost_makes_no_second_endpoint(vertex, monkeypatch, unlisted):
    """Neither where the endpoint is there when it is looked for, nor where it comes into the list later."""
    vertex.lose(503, match="CreateEndpoint")
    call = next(call for call in vertex.calls if call.name == "ListEndpoints")
    listed, empty = call.function, [v1.ListEndpointsResponse()] * unlisted
    monkeypatch.setattr(call, "function", lambda request: empty.pop() if empty else listed(request))
    register(RUNS[0])
    at_endpoint("deploy", "--version", "1")
    assert vertex.faults.struck
    assert len(vertex.seen("CreateEndpoint")) == (2 if unlisted else 1)
    ((_, found),) = vertex.endpoints.items()
    assert list(found.traffic_split.values()) == [100]


def test_machines_that_take_too_long_are_told_with_how_to_look(vertex, monkeypatch):
    """The wait is over before the model's server has started."""
    register(RUNS[0])
    monkeypatch.setattr(endpoint, "_PATIENCE_S", 0.06)
    with pytest.raises(UserError) as told:
        at_endpoint("deploy", "--version", "1")
    *_, (name, operation) = vertex.operations.items()
    assert str(told.value) == (
        f"endpoint parcours: not seen to end within 0.001 minutes, and goes on; look at it with: {look(name)}; once it "
        "is done: python -m deploy.endpoint show tells what came of it"
    )
    until(lambda: operation.done)
    assert is_done(name)


def test_a_container_that_does_not_start_is_told(vertex, monkeypatch):
    register(RUNS[0])
    vertex.models[NAME][0].container_spec.command = ["python", "-c", "raise SystemExit(1)"]
    with pytest.raises(UserError, match=r"endpoint parcours: .*Model server exited unexpectedly"):
        at_endpoint("deploy", "--version", "1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("deploy",), "--version: expected a version's number or alias"),
        (("deploy", "--version", "9"), r"parcours@9: no such version; there are 1/"),
        (("deploy", "--version", "1", "--traffic", "a"), "--traffic: expected one percentage"),
        (
            ("deploy", "--version", "1", "--traffic", "30"),
            "--traffic 30: no other version gets traffic there, so this one gets all of it; expected 100",
        ),
        (("deploy", "--version", "1", "--traffic", "101"), "--traffic: expected a percentage, 0 to 100, got 101"),
        (("deploy", "--version", "1", "--replicas", "3"), "--replicas: expected 1 to --max_replicas 2, got 3"),
        (("deploy", "--version", "1", "--machine", "huge"), "prices: no machine 'huge'"),
        (("split", "--traffic", "1=100"), "--endpoint parcours: no such endpoint"),
        (("rollback",), "--endpoint parcours: no such endpoint"),
    ],
)
def test_endpoint_tells_mistakes(vertex, flags, message):
    register(RUNS[0])
    with pytest.raises(UserError, match=message):
        at_endpoint(*flags)
    assert not vertex.endpoints


def test_batch_prediction_answers_every_instance_with_its_key(vertex, cloud, job, tmp_path, capsys):
    """The job file itself, to the lines in the bucket."""
    from deploy import submit
    from deploy.explanation import sample

    register(RUNS[0], "--alias", "champion")
    about = json.loads((job["run_dir"] / "model/parcours.json").read_text())
    lines = [json.dumps(sample(about) | {"key": f"k{number}"}) for number in range(70)]
    cloud.service(Storage).put(BUCKET, "runs/one/instances/part-0.jsonl", "\n".join(lines).encode())
    submit.main([
        "--job", "job_configs/batch_prediction.yaml", "--env", "integration", "--run_dir", RUNS[0], "--max_hours", "1",
        "--set", f"MODEL={NAME}@champion", "--poll_s", "0.2", "--rendered", str(tmp_path / "job.json"),
    ])  # fmt: skip
    assert "succeeded: 70 predictions, 0 errors in gs://" in capsys.readouterr().out
    storage = cloud.service(Storage)
    (results,) = [name for name in storage.names(BUCKET, "runs/one/predictions/") if "results" in name]
    rows = [json.loads(line) for line in storage.data(BUCKET, results).splitlines()]
    assert [row["prediction"]["key"] for row in rows] == [f"k{number}" for number in range(70)]
    (done,) = vertex.jobs.values()
    assert done.model_version_id == "1"
    assert done.manual_batch_tuning_parameters.batch_size == 64
