"""The local Dataflow before Beam's DataflowRunner, the dataflow client and gcloud."""

import json
import subprocess
import sys

import pytest

from tests.cloud.dataflow import Dataflow
from tests.cloud.storage import Storage

OPTIONS = [
    "--runner=DataflowRunner",
    "--project=local-project",
    "--region=europe-west4",
    "--temp_location=gs://shop/tmp",
    "--job_name=count-words",
]
PIPELINE = (
    "import sys, logging, apache_beam as beam\n"
    "from apache_beam.options.pipeline_options import PipelineOptions\n"
    "logging.basicConfig(level=logging.INFO)\n"
    "with beam.Pipeline(options=PipelineOptions(sys.argv[1:])) as p:\n"
    "    _ = (p | beam.Create(['a', 'b', 'a']) | beam.Map({function})\n"
    "        | beam.combiners.Count.PerKey() | beam.MapTuple(lambda word, n: f'{{word}} {{n}}')\n"
    "        | beam.io.WriteToText('gs://shop/out/counts', num_shards=1))\n"
)


@pytest.fixture
def storage(cloud):
    server = cloud.service(Storage)
    server.make_bucket("shop")
    return server


@pytest.fixture
def dataflow(cloud, storage):
    yield cloud.service(Dataflow)
    assert cloud.proxy.refused == []


def submit(function, *more):
    code = PIPELINE.format(function=function)
    return subprocess.run(
        [sys.executable, "-c", code, *OPTIONS, *more], capture_output=True, text=True, check=False, timeout=240
    )


def test_a_pipeline_is_submitted_over_faults_checked_run_and_watched(dataflow, storage):
    storage.fail(503, match="/upload", times=2)
    dataflow.fail(503, match="CreateJob|GetJob|ListJobMessages", times=3)
    done = submit("lambda word: (word, 1)", "--max_num_workers=3", "--labels=team=crm", "--no_use_public_ips")
    assert done.returncode == 0, done.stderr
    assert "is in state JOB_STATE_DONE" in done.stderr
    assert len(dataflow.faults.struck) == 3
    (job,) = dataflow.jobs.values()
    assert (job.name, job.location, job.current_state.name) == ("count-words", "europe-west4", "JOB_STATE_DONE")
    assert dict(job.labels) == {"team": "crm"}
    (pool,) = job.environment.worker_pools
    assert pool.autoscaling_settings.max_num_workers == 3
    assert pool.ip_configuration.name == "WORKER_IP_PRIVATE"
    (name,) = storage.names("shop", "out/")
    assert sorted(storage.data("shop", name).decode().split("\n")[:2]) == ["a 2", "b 1"]


def test_a_failing_pipeline_tells_why(dataflow):
    done = submit("lambda word: (word, 1 // 0)")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert [job.current_state.name for job in dataflow.jobs.values()] == ["JOB_STATE_FAILED"]


def test_a_wrong_region_and_a_job_of_unknown_fields_are_refused(dataflow, cloud):
    import requests
    from google.api_core.exceptions import InvalidArgument
    from google.cloud import dataflow_v1beta3 as api

    job = api.Job(name="count-words")
    with pytest.raises(InvalidArgument, match="Unexpected location: mars"):
        api.JobsV1Beta3Client().create_job(api.CreateJobRequest(project_id="local-project", location="mars", job=job))
    where = f"{cloud.url}/v1b3/projects/local-project/locations/europe-west4/jobs"
    answer = requests.post(where, json={"name": "count-words", "machine": "large"}, timeout=10)
    assert answer.status_code == 400
    assert "machine" in answer.json()["error"]["message"]


def test_a_flex_template_is_launched_with_the_parameters_that_its_metadata_names(dataflow, storage, gcloud):
    template = {
        "image": "europe-west4-docker.pkg.dev/local-project/shop/preprocessing:1",
        "sdkInfo": {"language": "PYTHON"},
        "metadata": {"name": "preprocessing", "parameters": [{"name": "run_dir", "regexes": ["gs://.+"]}]},
    }
    storage.put("shop", "templates/preprocessing.json", json.dumps(template).encode())
    run = ("dataflow", "flex-template", "run", "nightly", "--region=europe-west4")
    where = "--template-file-gcs-location=gs://shop/templates/preprocessing.json"
    gcloud(*run, where, "--parameters=run_dir=gs://shop/run")
    (launch,) = dataflow.launches
    assert dict(launch.launch_parameter.parameters) == {"run_dir": "gs://shop/run"}
    with pytest.raises(AssertionError, match="spec: unknown parameter; run_dir: missing"):
        gcloud(*run, where, "--parameters=spec=demo")
