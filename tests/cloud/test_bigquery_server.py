"""The BigQuery server before clients that this package does not call: Beam's ReadFromBigQuery in its ways, and bq."""

from __future__ import annotations

import json
import shutil
import subprocess

import pyarrow as pa
import pytest

from tests.cloud.bigquery import BigQuery
from tests.cloud.storage import Storage

ROWS = pa.table({"a": ["x", "y"], "l": pa.array([[1, 2], []], pa.list_(pa.int64()))})


@pytest.fixture
def server(cloud):
    server = cloud.service(BigQuery)
    server.store.put("shop.web.t", ROWS, location="EU")
    # as another pipeline's reader would have left it: its label is not that of ours
    other = {"datasetReference": {"datasetId": "other"}, "labels": {"type": "bq_direct_read_someone"}}
    server.store.add_dataset("shop", other)
    cloud.service(Storage).make_bucket("shop-temp")
    return server


def read(**options):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.testing.util import assert_that, equal_to

    flags = ["--runner=FnApiRunner", "--project=shop", "--temp_location=gs://shop-temp/beam"]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        rows = (
            pipeline
            | beam.io.ReadFromBigQuery(**options)
            | beam.Map(lambda row: (row["a"], tuple(int(one) for one in row["l"])))
        )
        assert_that(rows, equal_to([("x", (1, 2)), ("y", ())]))


QUERY = {"query": "SELECT a, l FROM `shop.web.t`", "use_standard_sql": True}


@pytest.mark.parametrize(
    "options",
    [
        {**QUERY, "method": "DIRECT_READ"},
        {"table": "shop:web.t", "method": "EXPORT"},
        {"table": "shop:web.t", "method": "EXPORT", "use_json_exports": True},
        {**QUERY, "method": "EXPORT"},
    ],
    ids=["query, direct", "table, Avro files", "table, JSON files", "query, Avro files"],
)
def test_beam_reads_and_removes_its_own_datasets_and_no_other(options, server, cloud):
    read(**options)
    left = sorted(name for (_, name), one in server.store.datasets.items() if not one.get("hidden"))
    assert left == ["other", "web"]
    if "query" in options:
        assert server.seen("DELETE .*/datasets/beam_temp_dataset")
    if options["method"] == "DIRECT_READ":
        (listed,) = server.seen("GET .*/datasets$")
        assert listed.query["filter"].startswith("labels.type:bq_direct_read")
    assert cloud.service(Storage).names("shop-temp") == []


def test_a_list_without_a_label_filter_shows_every_dataset_and_one_with_it_only_those(server):
    from google.cloud import bigquery

    client = bigquery.Client(project="shop")
    assert [one.dataset_id for one in client.list_datasets()] == ["other", "web"]
    assert [one.dataset_id for one in client.list_datasets(filter="labels.type:bq_direct_read_someone")] == ["other"]
    assert [one.dataset_id for one in client.list_datasets(filter="labels.type")] == ["other"]
    assert [one.dataset_id for one in client.list_datasets(filter="labels.type:else")] == []


def test_a_table_expires(server):
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client = bigquery.Client(project="shop")
    client.query(
        "CREATE TABLE `shop.web.e` OPTIONS (expiration_timestamp = TIMESTAMP '2020-01-01 00:00:00+00:00') "
        "AS SELECT 1 AS x"
    ).result()
    with pytest.raises(NotFound, match=r"Not found: Table shop:web\.e"):
        client.get_table("shop.web.e")


def test_a_partition_takes_rows_of_its_day_alone(server):
    from google.api_core.exceptions import BadRequest
    from google.cloud import bigquery

    client = bigquery.Client(project="shop")
    table = bigquery.Table("shop.web.p", [bigquery.SchemaField("at", "TIMESTAMP")])
    table.time_partitioning = bigquery.TimePartitioning(field="at")
    client.create_table(table)
    load = bigquery.LoadJobConfig(write_disposition="WRITE_TRUNCATE")
    row = {"at": "2026-06-08T10:00:00Z"}
    client.load_table_from_json([row], "shop.web.p$20260608", job_config=load).result()
    with pytest.raises(BadRequest, match="different partitions rather than destination partition 20260609"):
        client.load_table_from_json([row], "shop.web.p$20260609", job_config=load).result()
    assert server.store.get("shop.web.p").num_rows == 1


def test_bq_queries_and_lists(server):
    if shutil.which("bq") is None:
        pytest.skip("bq is not installed here, and comes from no package registry: its commands were not tried")

    def bq(*arguments):
        done = subprocess.run(
            ["bq", "--format=json", "--project_id=shop", "--headless", *arguments],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    found = bq("query", "--use_legacy_sql=false", "SELECT a, ARRAY_LENGTH(l) AS n FROM `shop.web.t` ORDER BY a")
    assert found == [{"a": "x", "n": "2"}, {"a": "y", "n": "0"}]
    assert [one["tableReference"]["tableId"] for one in bq("ls", "web")] == ["t"]
