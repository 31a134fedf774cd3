"""Parquet files into BigQuery by the command, and what a user is told where that cannot be."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cloud.bigquery import BigQuery
from tests.job import command


@pytest.fixture
def files(tmp_path):
    """Two tables, with the types that events have."""
    times = [dt.datetime(2026, 1, day, 12, tzinfo=dt.UTC) for day in (1, 2, 3)]
    events = {"customer_id": ["a", "b", "a"], "event_time": times, "amount": [1.5, None, -2.0]}
    pq.write_table(pa.table(events), tmp_path / "events.parquet", store_schema=False)
    pq.write_table(pa.table({"customer_id": ["a", "b"]}), tmp_path / "customers.parquet", store_schema=False)
    return [tmp_path / "events.parquet", tmp_path / "customers.parquet"]


def load(files, *more, to="bigquery://shop-project.web", code=0):
    return command("preprocessing.loading", "--files", *files, "--to", to, *more, code=code)


def test_files_take_the_place_of_tables_and_a_busy_server_is_outlasted(cloud, files):
    server = cloud.service(BigQuery)
    server.fail(503, match="POST .*/upload", times=2)
    said = load(files, "--location", "europe-west4")
    assert "bigquery://shop-project.web.events: 3 rows" in said
    assert server.faults.struck
    assert server.store.get("shop-project.web.events").to_pylist() == pq.read_table(files[0]).to_pylist()
    assert server.store.dataset("shop-project", "web")["location"] == "europe-west4"
    pq.write_table(pq.read_table(files[0]).slice(0, 1), files[0], store_schema=False)
    load(files)
    assert server.store.get("shop-project.web.events").num_rows == 1
    assert cloud.proxy.refused == []


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("bigquery://shop-project", "expected bigquery://project.dataset"),
        ("bigquery://shop-project.web.events", "each table has its file's name"),
    ],
)
def test_a_wrong_place_is_one_line(cloud, files, to, message):
    assert message in load(files, to=to, code=2)


def test_refusals_are_one_line_with_what_to_do(cloud, files):
    server = cloud.service(BigQuery)
    server.fail(403, match="POST .*/datasets", message="Access Denied: Project shop-project: permission denied")
    said = load(files, code=2)
    assert "Access Denied" in said
    assert "roles/bigquery" in said
    cloud.oauth.expire()
    assert "gcloud auth application-default login" in load(files, code=2)
