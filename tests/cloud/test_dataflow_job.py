"""Preprocessing and scoring on Dataflow: what is submitted, and that what its workers run needs gs:// and no more."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.cloud import dataflow_v1beta3 as api
from google.protobuf import json_format

from preprocessing import keys, storage
from tests.cloud.bigquery import BigQuery
from tests.cloud.bucket import put_files
from tests.cloud.dataflow import Dataflow
from tests.job import ROOT, SPEC, TEST_AS_OF, command
from tests.tfrecords import assert_same_records

ACCOUNT = "parcours-pipeline@local-project.iam.gserviceaccount.com"
KEY = "projects/local-project/locations/europe-west4/keyRings/parcours/cryptoKeys/runs"
IMAGE = "europe-west4-docker.pkg.dev/local-project/parcours/pipeline:1"
ENVIRONMENT = f"""
project: local-project
region: europe-west4
bucket: shop
dataset: parcours
network: projects/100000000001/global/networks/parcours
subnetwork: regions/europe-west4/subnetworks/parcours
training_account: {ACCOUNT}
pipeline_account: {ACCOUNT}
serving_account: {ACCOUNT}
cmek_key: {KEY}
tensorboard: projects/1/locations/europe-west4/tensorboards/1
trainer_image: europe-west4-docker.pkg.dev/local-project/parcours/trainer:1
serving_image: europe-west4-docker.pkg.dev/local-project/parcours/serving:1
pipeline_image: {IMAGE}
labels: {{application: parcours, environment: integration}}
cost_cap: 25
"""


@pytest.fixture
def dataflow(cloud):
    return cloud.service(Dataflow)


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "environment.yaml").write_text(ENVIRONMENT)
    return tmp_path / "environment.yaml"


def checked(job, pipeline, image):
    """The submitted job against the environment, field by field of the API's own types."""
    shown = json_format.MessageToDict(type(job).pb(job), preserving_proto_field_name=True)
    assert (shown["project_id"], shown["location"], shown["type_"] if "type_" in shown else shown["type"]) == (
        "local-project", "europe-west4", "JOB_TYPE_BATCH",
    )  # fmt: skip
    assert shown["labels"] == {"application": "parcours", "environment": "integration"}
    assert shown["environment"]["service_account_email"] == ACCOUNT
    assert shown["environment"]["service_kms_key_name"] == KEY
    assert "storage.googleapis.com/shop/dataflow/temp" in shown["environment"]["temp_storage_prefix"]
    (pool,) = shown["environment"]["worker_pools"]
    assert pool["ip_configuration"] == "WORKER_IP_PRIVATE"
    assert pool["subnetwork"] == "regions/europe-west4/subnetworks/parcours"
    images = {one["container_image"] for one in pool["sdk_harness_container_images"]}
    assert (image in images) is (image is not None), images
    assert b"/tmp/parcours-" not in pipeline.SerializeToString()  # a scratch directory of the submitting machine


@pytest.mark.slow
def test_preprocessing_on_dataflow_gives_the_same_records(shop, dataflow, job, environment):
    """By --setup_file: the job's process has what was staged, and this repository out of its reach."""
    put_files(shop, "source", job["base"] / "source")
    run = "gs://shop/runs/demo"
    said = command(
        "deploy.on_dataflow", "--env", environment, "preprocessing.task", "--spec", SPEC, "--key_file", job["key"],
        "--events", "gs://shop/source/events.parquet", "--run_dir", run, "--setup_file", ROOT / "setup.py",
    )  # fmt: skip
    assert "--runner=DataflowRunner" in said
    assert f"are in {run}/" in said
    ((identity, submitted),) = dataflow.jobs.items()
    assert submitted.current_state.name == "JOB_STATE_DONE"
    checked(submitted, dataflow.pipelines[identity], None)
    staged = [name.rpartition("/")[2] for name in shop.names("shop", "dataflow/staging/")]
    assert {"workflow.tar.gz", "requirements.txt"} <= set(staged)
    (wanted,) = [name for name in shop.names("shop", "dataflow/staging/") if name.endswith("/requirements.txt")]
    assert sorted(shop.data("shop", wanted).decode().split()) == [
        "tensorflow-transform<1.22,>=1.21",
        "tfx-bsl<1.22,>=1.21",
    ]
    for split in ("train", "eval", "test"):
        (local,) = (job["run_dir"] / "records").glob(f"{split}-*")
        assert_same_records(shop.data("shop", f"runs/demo/records/{local.name}"), local.read_bytes())
    names = shop.names("shop", "runs/demo/")
    assert "runs/demo/transform/transform_fn/saved_model.pb" in names
    assert (
        shop.data("shop", "runs/demo/transform/features.json")
        == (job["run_dir"] / "transform/features.json").read_bytes()
    )
    assert not [name for name in names if name.startswith("runs/demo/.")]


@pytest.mark.slow
def test_journeys_out_of_bigquery_are_read_on_dataflow_too(shop, dataflow, cloud, job, environment):
    """Two jobs: one reads the Storage Read API's streams onto gs://, the other makes the records."""
    project, run = "local-project", "gs://shop/runs/warehouse"
    bigquery = cloud.service(BigQuery)
    for name in ("web", "keys"):
        resource = {"datasetReference": {"datasetId": name}, "location": "europe-west4"}
        bigquery.store.add_dataset(project, resource)
    for table in ("events", "customers", "assignments"):
        bigquery.store.put(f"{project}.web.{table}", pq.read_table(job["base"] / f"source/{table}.parquet"))
    inner, outer = keys.pads(keys.load_key(job["key"]))
    bigquery.store.put(f"{project}.keys.pads", pa.table({"inner_pad": [inner], "outer_pad": [outer]}))
    given = (
        "--env", environment, "preprocessing.task", "--spec", SPEC, "--run_dir", run,
        "--events", f"bigquery://{project}.web.events", "--pads", f"bigquery://{project}.keys.pads",
    )  # fmt: skip
    dataflow.fail(403, match="CreateJob|/jobs", message="Required permission dataflow.jobs.create is missing")
    said = command("deploy.on_dataflow", *given, code=2)
    assert "Dataflow refused the job: 403 Required permission dataflow.jobs.create is missing" in said
    assert {name[2] for name in bigquery.store.tables if name[1] == "web"} == {"events", "customers", "assignments"}

    dataflow.faults.clear()
    assert f"are in {run}/" in command("deploy.on_dataflow", *given)
    assert [one.current_state.name for one in dataflow.jobs.values()] == ["JOB_STATE_DONE"] * 2
    for identity, submitted in dataflow.jobs.items():
        checked(submitted, dataflow.pipelines[identity], IMAGE)
    assert bigquery.seen("GRPC .*/ReadRows")
    for split in ("train", "eval", "test"):
        (found,) = shop.names("shop", f"runs/warehouse/records/{split}-")
        (local,) = (job["run_dir"] / "records").glob(f"{split}-*")
        assert_same_records(shop.data("shop", found), local.read_bytes(), in_any_order=True)


def test_scoring_on_dataflow_gives_the_same_scores(shop, dataflow, job, environment):
    put_files(shop, "source", job["base"] / "source")
    put_files(shop, "model", job["run_dir"] / "model")
    output = "gs://shop/scores/today.parquet"
    given = ("--spec", SPEC, "--key_file", job["key"], "--events", "gs://shop/source/events.parquet")
    command(
        "deploy.on_dataflow", "--env", environment, "deploy.predict", *given, "--model", "gs://shop/model",
        "--as_of", TEST_AS_OF, "--output", output,
    )  # fmt: skip
    ((identity, submitted),) = dataflow.jobs.items()
    checked(submitted, dataflow.pipelines[identity], IMAGE)
    here = pq.read_table(storage.localised(output)).sort_by("journey_id")
    there = pq.read_table(job["base"] / "scores.parquet").sort_by("journey_id")
    assert here["journey_id"].equals(there["journey_id"])
    for name in ("p_7d", "p_14d", "p_30d"):
        assert abs(here[name].to_numpy() - there[name].to_numpy()).max() < 1e-6
    assert not [name for name in shop.names("shop") if "/predict-" in name]


def test_the_flex_templates_launcher_leaves_a_job_of_the_apis_type(shop, job):
    """As python_template_launcher runs it: the pipeline is left at --template_location, and nothing waits for it."""
    put_files(shop, "run", job["run_dir"])
    done = subprocess.run(
        [
            sys.executable, ROOT / "deploy/dataflow/launch.py", "--runner=DataflowRunner", "--project=local-project",
            "--region=europe-west4", "--job_name=nightly", "--temp_location=gs://shop/tmp",
            "--template_location=gs://shop/launches/job_object", f"--sdk_container_image={IMAGE}",
            "--model=gs://shop/run/model", "--journeys=gs://shop/run/journeys", "--output=gs://shop/scores",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = json.loads(shop.data("shop", "launches/job_object"))
    submitted = json_format.ParseDict(left, api.Job.pb()())
    assert submitted.name == "nightly"
    assert IMAGE in str(submitted.environment.worker_pools)
    assert done.stdout == ""


def test_a_refused_and_a_failed_job_are_one_line(shop, dataflow, job, environment):
    put_files(shop, "source", job["base"] / "source")
    given = (
        "--env", environment, "preprocessing.task", "--spec", SPEC, "--key_file", job["key"],
        "--events", "gs://shop/source/events.parquet", "--run_dir", "gs://shop/runs/demo",
    )  # fmt: skip
    dataflow.fail(403, match="CreateJob|/jobs", message="Required permission dataflow.jobs.create is missing")
    said = command("deploy.on_dataflow", *given, code=2)
    assert "Dataflow refused the job: 403 Required permission dataflow.jobs.create is missing" in said
    assert not [name for name in shop.names("shop", "runs/demo/") if not name.endswith(".lock")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run_dir", "runs/here"), "--runner DataflowRunner: its workers read and write gs:// only; runs/here is on"),
        (("--run_dir", "gs://shop/r"), "expected --project too"),
        (("--run_dir", "gs://shop/r", "--project=p"), "expected --region too"),
        (
            ("--run_dir", "gs://shop/r", "--project=p", "--region=r", "--temp_location=/tmp/x"),
            "--temp_location /tmp/x: Dataflow expects gs://",
        ),
    ],
)
@pytest.mark.usefixtures("shop")
def test_what_is_missing_is_said_before_anything_is_read(job, monkeypatch, tmp_path, flags, message):
    from preprocessing import task
    from preprocessing.cli import UserError

    monkeypatch.chdir(tmp_path)
    given = ["--spec", str(SPEC), "--events", "gs://shop/none.parquet", "--key_file", str(job["key"])]
    with pytest.raises(UserError, match=message):
        task.main([*given, "--runner=DataflowRunner", *flags])


def test_what_the_environment_says_is_not_said_twice(environment):
    from deploy import on_dataflow
    from preprocessing.cli import UserError

    with pytest.raises(UserError, match=r"--project: the environment's to say; .*, without deploy\.on_dataflow"):
        on_dataflow.main(["--env", str(environment), "preprocessing.task", "--project=other"])
