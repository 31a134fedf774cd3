"""Beam's portable protocol: a job service takes the pipeline, worker processes run it, the records are the same.

The job service is Beam's own, in Python. Flink and Spark speak the same protocol and are not tested here.
"""

import os
import shlex
import sys

import pytest

from tests.job import ROOT, SPEC, command
from tests.tfrecords import assert_same_records


@pytest.fixture
def job_service(tmp_path):
    """The address of a job service."""
    from apache_beam.runners.portability.local_job_service import LocalJobServicer

    service = LocalJobServicer(str(tmp_path / "staging"))
    port = service.start_grpc_server()
    yield f"localhost:{port}"
    service.stop()


@pytest.mark.slow
def test_a_job_services_worker_processes_make_the_same_records(job, job_service, tmp_path):
    python = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"
    worker = f"echo $$ >> {tmp_path}/workers; {python} -m apache_beam.runners.worker.sdk_worker_main"
    command(
        "preprocessing.task", "--spec", SPEC, "--events", job["base"] / "source/events.parquet",
        "--key_file", job["key"], "--run_dir", tmp_path / "run",
        "--runner=PortableRunner", f"--job_endpoint={job_service}",
        "--environment_type=beam:env:harness_subprocess_python:v1", f"--environment_config={worker}",
    )  # fmt: skip
    workers = {int(line) for line in (tmp_path / "workers").read_text().split()}
    assert workers
    assert os.getpid() not in workers
    for split in ("train", "eval", "test"):
        (here,), (there,) = ((run / "records").glob(f"{split}-*") for run in (tmp_path / "run", job["run_dir"]))
        assert here.name == there.name
        assert_same_records(here.read_bytes(), there.read_bytes())
    for name in ("features.json", "summary.json"):
        assert (tmp_path / "run/transform" / name).read_text() == (job["run_dir"] / "transform" / name).read_text()
