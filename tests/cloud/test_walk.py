"""The whole way in the cloud, without any dry run: the commands of `make run`, then registry, endpoint and prediction.

Each command is a process that knows the cloud by its environment alone; after each the servers' state is looked at.
"""

import io
import re
import shlex
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from preprocessing.keys import customer_key, load_key
from tests.cloud.bigquery import BigQuery
from tests.cloud.storage import Storage
from tests.cloud.vertex import Vertex
from tests.job import ROOT, TEST_AS_OF, command

PROJECT, REGION, BUCKET = "parcours-integration", "us-central1", "parcours-integration-runs"
RUN_DIR = f"gs://{BUCKET}/runs/walk"
DATASET = f"{PROJECT}.parcours"
COLUMNS = ("p_7d", "p_14d", "p_30d")


class Walk:
    """The servers, and the commands of `make run` that are still to come, as (module, flags)."""

    def __init__(self, cloud, place):
        self.storage, self.bigquery, self.vertex = (cloud.service(kind) for kind in (Storage, BigQuery, Vertex))
        self.place = place
        (place / "source").mkdir()
        self.storage.make_bucket(BUCKET)
        for name in ("parcours", "parcours_keys"):
            resource = {"datasetReference": {"datasetId": name}, "location": REGION}
            self.bigquery.store.add_dataset(PROJECT, resource)
        given = {"CUSTOMERS": 500, "RUN_DIR": RUN_DIR, "EVENTS": f"bigquery://{DATASET}.events"}
        given |= {"LOCAL": place, "AS_OF": TEST_AS_OF}
        asked = ["make", "--dry-run", "run", *(f"{name}={value}" for name, value in given.items())]
        said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        commands = re.finditer(r"python -m ((?:preprocessing|trainer|deploy)\.\w+)(.*)", said)
        self.steps = [(found[1], shlex.split(found[2])) for found in commands]

    def step(self, module):
        """Runs the next command of `make run`, which must be this module's."""
        name, flags = self.steps.pop(0)
        assert name == module
        return command(module, *flags)

    def rows(self, table):
        return self.bigquery.store.get(f"{PROJECT}.{table}")

    def read(self, prefix):
        """The Parquet files below the run directory whose names begin so, as one table."""
        names = [n for n in self.storage.names(BUCKET, f"runs/walk/{prefix}") if n.endswith(".parquet")]
        return pa.concat_tables([pq.read_table(io.BytesIO(self.storage.data(BUCKET, name))) for name in names])

    def holds(self, *names):
        there = self.storage.names(BUCKET, "runs/walk/")
        return all(f"runs/walk/{name}" in there for name in names)


@pytest.mark.slow
def test_from_rows_in_bigquery_to_scores_in_bigquery(cloud, tmp_path):
    walk = Walk(cloud, tmp_path)
    rows_into_bigquery(walk)
    journeys_and_records(walk)
    a_model_from_the_sdist(walk)
    scores = scores_into_bigquery(walk)
    walk.step("trainer.summary")
    assert walk.steps == []
    endpoint = a_deployed_version(walk)
    predictions_with_keys(walk, endpoint, scores)
    assert cloud.proxy.refused == []


def rows_into_bigquery(walk):
    walk.step("preprocessing.simulate")
    walk.step("preprocessing.keys")
    walk.step("preprocessing.loading")
    for table in ("events", "customers", "assignments"):
        local = pq.read_metadata(walk.place / f"source/{table}.parquet")
        assert walk.rows(f"parcours.{table}").num_rows == local.num_rows > 0
    walk.step("preprocessing.keys")
    assert walk.rows("parcours_keys.pads").num_rows == 1


def journeys_and_records(walk):
    """Journeys are made in BigQuery, in a table that would expire; keys and no ids reach gs://."""
    walk.step("preprocessing.task")
    left = {name[2] for name in walk.bigquery.store.tables if name[:2] == (PROJECT, "parcours")}
    assert left == {"events", "customers", "assignments"}, "the temporary journeys table stayed"
    queries = [job.configuration.get("query", {}).get("query", "") for job in walk.bigquery.jobs.values()]
    assert any("OPTIONS (expiration_timestamp" in query and "labels = [" in query for query in queries)
    assert walk.bigquery.seen("GRPC .*/ReadRows")
    ids = walk.rows("parcours.customers")["customer_id"].to_pylist()
    key = load_key(walk.place.with_suffix(".key"))
    assert set(walk.read("journeys/part-")["customer_key"].to_pylist()) <= {customer_key(key, one) for one in ids}
    assert walk.holds("transform/whole.json", "records/whole.json")
    for split in ("train", "eval", "test"):
        assert walk.storage.names(BUCKET, f"runs/walk/records/{split}-")


def a_model_from_the_sdist(walk):
    """The sdist lies on gs://, was installed from there, and ran as a CustomJob."""
    walk.step("deploy.submit")
    (job,) = walk.vertex.jobs.values()
    assert job.state == v1.JobState.JOB_STATE_SUCCEEDED
    (pool,) = job.job_spec.worker_pool_specs
    (package,) = pool.python_package_spec.package_uris
    assert package.removeprefix(f"gs://{BUCKET}/") in walk.storage.names(BUCKET, "packages/")
    assert walk.holds(
        "model/saved_model.pb", "model/parcours.json", "evaluation/metrics.json", "evaluation/report.html"
    )


def scores_into_bigquery(walk):
    """The scores of the day equal what training computed for the same journeys; returns them by journey."""
    walk.step("deploy.predict")
    scores = {row["journey_id"]: [row[c] for c in COLUMNS] for row in walk.rows("parcours.scores").to_pylist()}
    seen = [row for row in walk.read("evaluation/predictions").to_pylist() if str(row["as_of"])[:10] == TEST_AS_OF]
    assert set(scores) == {row["journey_id"] for row in seen}
    assert len(seen) > 100
    trained = [[row[c] for c in COLUMNS] for row in seen]
    np.testing.assert_allclose([scores[row["journey_id"]] for row in seen], trained, atol=1e-6)
    return scores


def a_deployed_version(walk):
    command("deploy.upload", "--run_dir", RUN_DIR, "--env", "integration")
    ((model,),) = walk.vertex.models.values()
    assert model.artifact_uri.startswith(f"{RUN_DIR}/model")
    command("deploy.endpoint", "deploy", "--env", "integration", "--version", "candidate")
    (endpoint,) = walk.vertex.endpoints.values()
    assert list(endpoint.traffic_split.values()) == [100]
    return endpoint


def predictions_with_keys(walk, endpoint, scores):
    """The endpoint's answers bear the keys that were sent, and are the scores."""
    sent = [row for row in walk.read("journeys/part-").to_pylist() if row["journey_id"] in scores][:20]
    assert len(sent) == 20
    fields = ("as_of", "segment", "activity", "age", "event_time", "event_type", "channel", "campaign", "amount")
    instances = [{"key": row["journey_id"]} | {name: plain(row[name]) for name in fields} for row in sent]
    values = [json_format.ParseDict(instance, Value()) for instance in instances]
    client = v1.PredictionServiceClient(client_options={"api_endpoint": f"{REGION}-aiplatform.googleapis.com"})
    answer = client.predict(endpoint=endpoint.name, instances=values)
    found = [json_format.MessageToDict(one) for one in type(answer).pb(answer).predictions]
    assert [one["key"] for one in found] == [row["journey_id"] for row in sent]
    served = [[one["probabilities"][column[2:-1]] for column in COLUMNS] for one in found]
    np.testing.assert_allclose(served, [scores[row["journey_id"]] for row in sent], atol=1e-6)


def plain(value):
    """A cell of the journeys table as JSON has it; NaN, a missing number, is null."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and np.isnan(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
