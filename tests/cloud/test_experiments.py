"""A training in Vertex AI Experiments, by Google's client against a local server: what is written, and what if not."""

import json
import logging
import shutil

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform
from google.cloud.aiplatform_v1 import EncryptionSpec, MetadataServiceClient, types

from preprocessing.cli import UserError
from tests.cloud.oauth import PROJECT
from tests.cloud.vertex import Vertex
from tests.job import command
from trainer.settings import parse
from trainer.tracking import Experiment, Tracker, final_metrics, run_name

REGION = "europe-west4"  # not the client's own default
PARENT = f"projects/{PROJECT}/locations/{REGION}"
STORE = f"{PARENT}/metadataStores/default"
SHOP = Experiment(PROJECT, REGION, "shop")
KEY = f"projects/{PROJECT}/locations/{REGION}/keyRings/parcours/cryptoKeys/runs"
ENTRY = {"epoch": 1, "train_loss": 0.5, "eval_loss": 0.25, "eval_pr_auc": None, "eval_roc_auc": float("nan")}


@pytest.fixture
def client(cloud):
    return MetadataServiceClient(client_options={"api_endpoint": f"{REGION}-aiplatform.googleapis.com"})


@pytest.fixture
def empty(cloud, monkeypatch):
    """Vertex AI without a store, and a client that holds no token of another test."""
    monkeypatch.setattr(aiplatform.initializer.global_config, "_credentials", None)
    return cloud.service(Vertex)


@pytest.fixture
def vertex(empty, client):
    store = types.MetadataStore(encryption_spec=EncryptionSpec(kms_key_name=KEY))
    client.create_metadata_store(parent=PARENT, metadata_store=store, metadata_store_id="default").result()
    empty.requests.clear()
    return empty


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def written(run="one"):
    """(params, metrics, state) as Google's client reads them."""
    aiplatform.init(project=PROJECT, location=REGION)
    found = aiplatform.ExperimentRun(run, experiment="shop")
    return found.get_params(), found.get_metrics(), found.get_state()


def test_a_training_is_a_run_with_its_settings_and_metrics(vertex):
    tracker = Tracker(SHOP, "one", "gs://b/runs/one")
    tracker.begin({"learning_rate": 0.002, "precision": "float32", "max_steps": None})
    assert written() == (
        {"run_dir": "gs://b/runs/one", "learning_rate": 0.002, "precision": "float32"},
        {},
        "RUNNING",
    )
    tracker.epoch(ENTRY)
    tracker.epoch(ENTRY | {"epoch": 2, "eval_pr_auc": 0.75})
    assert written()[1] == {"epoch": 2, "train_loss": 0.5, "eval_loss": 0.25, "eval_pr_auc": 0.75}
    tracker.finish({"epoch": 1, "test_pr_auc_30d": 0.5})
    _, metrics, state = written()
    assert (metrics["epoch"], metrics["test_pr_auc_30d"], state) == (1, 0.5, "COMPLETE")
    assert tracker.told == {"experiment": {"context": f"{STORE}/contexts/shop", "run": "one", "written": True}}
    experiment, run = (vertex.contexts[f"{STORE}/contexts/{name}"] for name in ("shop", "shop-one"))
    assert (experiment.schema_title, run.schema_title) == ("system.Experiment", "system.ExperimentRun")
    assert list(run.parent_contexts) == [experiment.name]
    assert not [r for r in vertex.requests if "Tensorboard" in r.path]


def test_an_attempt_takes_up_its_run_and_no_other_run_directory_s(vertex, caplog):
    Tracker(SHOP, "one", "gs://b/runs/one").begin({"epochs": 1})
    again = Tracker(SHOP, "one", "gs://b/runs/one")
    again.begin({"epochs": 2})
    again.finish({"epoch": 2})
    other = Tracker(SHOP, "one", "gs://b/other/one")
    with caplog.at_level(logging.WARNING):
        other.begin({"epochs": 3})
        other.finish({"epoch": 3})
    assert warnings(caplog) == [
        "warning: run one of the experiment shop was not written: it belongs to gs://b/runs/one; name another run with "
        "--experiment_run; training goes on"
    ]
    assert not other.told["experiment"]["written"]
    params, metrics, state = written()
    assert (params["epochs"], metrics["epoch"], state) == (2, 2, "COMPLETE")


def test_no_store_is_made_on_the_way(empty, caplog):
    tracker = Tracker(SHOP, "one", "runs/one")
    tracker.begin({})
    assert f"there is no {STORE}; make it first, under your key" in caplog.text
    assert not empty.stores
    assert not empty.contexts


@pytest.mark.parametrize(("status", "message"), [(403, "denied"), (404, "away"), (429, "slowly"), (500, "broken")])
def test_what_is_missed_in_between_is_said_once_and_written_in_the_end(vertex, caplog, status, message):
    tracker = Tracker(SHOP, "one", "runs/one")
    tracker.begin({"epochs": 2})
    vertex.fail(status, match="UpdateContext", message=message)
    with caplog.at_level(logging.WARNING):
        tracker.epoch(ENTRY)
        tracker.epoch(ENTRY)
        tracker.finish({"epoch": 1})
    assert warnings(caplog) == [
        f"warning: run one of the experiment shop was not written: {status} {message}; training goes on"
    ]
    assert tracker.told["experiment"]["written"]
    assert tracker.told["experiment"]["error"] == f"{status} {message}"
    assert written()[1:] == ({"epoch": 1}, "COMPLETE")


def test_a_service_that_does_not_answer_holds_no_training(vertex, caplog):
    tracker = Tracker(SHOP, "one", "runs/one", timeout_s=2)
    tracker.begin({})
    with vertex.lock:  # the server's handlers wait for it
        tracker.epoch(ENTRY)
        tracker.finish({"epoch": 1})
    assert "no answer within 2 s" in caplog.text
    assert tracker.told["experiment"]["written"] is False


def test_a_training_that_fails_is_said_to_have_failed_and_one_that_is_stopped_is_not(vertex):
    for name, error in (("one", UserError("no loss")), ("two", SystemExit(143)), ("three", KeyboardInterrupt())):
        with pytest.raises(type(error)), Tracker(SHOP, name, f"runs/{name}") as tracker:
            tracker.begin({})
            raise error
    assert [written(name)[2] for name in ("one", "two", "three")] == ["FAILED", "RUNNING", "RUNNING"]


def test_what_someone_else_writes_meanwhile_stays(vertex):
    tracker = Tracker(SHOP, "one", "runs/one")
    tracker.begin({})
    aiplatform.ExperimentRun("one", experiment="shop").log_params({"note": "mine"})
    tracker.epoch(ENTRY)
    params, metrics, _ = written()
    assert params["note"] == "mine"
    assert metrics["train_loss"] == 0.5


def test_trainings_without_an_experiment_write_nothing(empty):
    with Tracker() as tracker:
        tracker.begin({})
        tracker.epoch(ENTRY)
        tracker.finish({})
    assert tracker.told == {}
    assert not empty.requests


@pytest.mark.parametrize("denied", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_trainer_writes_and_run_json_says_whether(vertex, job, tmp_path, denied, monkeypatch):
    run_dir = tmp_path / "One run"
    run_dir.mkdir()
    for name in ("journeys", "records", "transform"):
        shutil.copytree(job["run_dir"] / name, run_dir / name)
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "metrics"))
    if denied:
        vertex.fail(403, times=100, message="denied")
    small = ("--epochs", 2, "--members", 1, "--lstm_units", 4, "--no_baselines", "--bootstrap", 0, "--batch_size", 1024)
    said = command("trainer.task", "--run_dir", run_dir, "--experiment", SHOP, *small)
    ran = json.loads((run_dir / "trials/3/evaluation/run.json").read_text())["experiment"]
    assert (ran["run"], ran["written"]) == ("one-run-3", not denied)
    if denied:
        assert said.count("was not written: 403 denied; training goes on") == 1
        assert ran["error"] == "403 denied"
        assert not vertex.contexts
        return
    params, metrics, state = written("one-run-3")
    measured = json.loads((run_dir / "trials/3/evaluation/metrics.json").read_text())
    assert state == "COMPLETE"
    assert (params["run_dir"], params["lstm_units"], params["epochs"]) == (f"{run_dir}/trials/3", 4, 2)
    assert metrics["test_pr_auc_30d"] == measured["test"]["30"]["lstm"]["pr_auc"]["value"]
    assert metrics["epochs"] == 2
    kinds = {type(value) for value in (*params.values(), *metrics.values())}
    assert kinds <= {str, int, float}


def test_the_kept_epoch_is_what_a_run_is_compared_by():
    history = [{"epoch": 1, "eval_loss": 0.3}, {"epoch": 2, "eval_loss": 0.1}, {"epoch": 3, "eval_loss": 0.1}]
    measured = {"horizons_days": [7], "test": {"7": {"base_rate": {"value": 1}, "lstm": {"pr_auc": {"value": 0.5}}}}}
    assert final_metrics(history, measured) == {"epoch": 2, "eval_loss": 0.1, "epochs": 3, "test_pr_auc_7d": 0.5}


def test_names_are_what_the_service_takes():
    given = parse(["--run_dir=x", f"--experiment={SHOP}", "--experiment_run=a-1"])
    assert (given.experiment, given.experiment_run) == (SHOP, "a-1")
    assert parse(["--run_dir=x", "--experiment="]).experiment is None
    assert run_name(SHOP, "gs://b/runs/Été 2026_b/", None, None) == "t-2026-b"
    assert run_name(SHOP, "runs/x", "mine", "3") == "mine-3"
    assert len(run_name(SHOP, "x" * 116, None, None)) == 116
    for place in ("x" * 117, "///", "_"):
        with pytest.raises(UserError, match="at most 116 of them beside that experiment's name: give one"):
            run_name(SHOP, place, None, None)


@pytest.mark.parametrize(
    "flag",
    ["--experiment=shop", f"--experiment={STORE}/contexts/Shop", "--experiment_run=One", "--experiment_run=-"],
)
def test_other_names_are_one_line(flag, capsys):
    with pytest.raises(SystemExit):
        parse(["--run_dir=x", flag])
    assert "expected " in capsys.readouterr().err.splitlines()[-1]


def test_the_local_server_refuses_what_google_s_would(vertex, client):
    def make(name="a", parent=STORE, schema="system.Experiment"):
        made = types.Context(schema_title=schema, schema_version="0.0.1")
        return client.create_context(parent=parent, context=made, context_id=name)

    first = make()
    for error, given in (
        (exceptions.AlreadyExists, {}),
        (exceptions.InvalidArgument, {"name": "A"}),
        (exceptions.InvalidArgument, {"name": "a" * 129}),
        (exceptions.InvalidArgument, {"name": "b", "schema": "system.Other"}),
        (exceptions.NotFound, {"name": "b", "parent": f"{PARENT}/metadataStores/other"}),
    ):
        with pytest.raises(error):
            make(**given)
    client.update_context(context=first)
    with pytest.raises(exceptions.Aborted, match="Specified Context `etag`"):
        client.update_context(context=first)  # whose etag is now the one before
    with pytest.raises(exceptions.NotFound):
        client.update_context(context=types.Context(name=f"{STORE}/contexts/none"))
    with pytest.raises(exceptions.NotFound):
        client.add_context_children(context=first.name, child_contexts=[f"{STORE}/contexts/none"])
    with pytest.raises(exceptions.InvalidArgument):
        client.add_context_children(context=first.name, child_contexts=[first.name])
    with pytest.raises(exceptions.AlreadyExists):
        client.create_metadata_store(parent=PARENT, metadata_store=types.MetadataStore(), metadata_store_id="default")
