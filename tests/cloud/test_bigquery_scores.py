"""Scores in BigQuery: a day scored again is that day's partition replaced, and never doubled."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.bigquery_scores import loaded
from preprocessing import keys
from preprocessing.cli import UserError
from tests.cloud.bigquery import BigQuery
from tests.job import SPEC, TEST_AS_OF, command

TARGET = "bigquery://shop.scores.daily"
DAY = dt.datetime(2026, 6, 8, tzinfo=dt.UTC)


def scores(*rows):
    """(key, as_of, probability) each."""
    return pa.table(
        {
            "customer_key": [key for key, *_ in rows],
            "journey_id": [f"j{key}" for key, *_ in rows],
            "as_of": pa.array([as_of for _, as_of, _ in rows], pa.timestamp("us", "UTC")),
            "model_version": ["m1"] * len(rows),
            "p_7d": pa.array([p for *_, p in rows], pa.float32()),
        },
        schema=pa.schema(
            [
                ("customer_key", pa.string()),
                ("journey_id", pa.string()),
                ("as_of", pa.timestamp("us", "UTC")),
                ("model_version", pa.string()),
                ("p_7d", pa.float32()),
            ]
        ),
    )


@pytest.fixture
def server(cloud):
    server = cloud.service(BigQuery)
    server.store.add_dataset("shop", {"datasetReference": {"datasetId": "scores"}, "location": "EU"})
    return server


def write(table, as_of=DAY, target=TARGET):
    with loaded(target, as_of) as path:
        pq.write_table(table, path)


def held(server):
    rows = server.store.get("shop.scores.daily").to_pylist()
    return sorted((row["customer_key"], row["as_of"], round(row["p_7d"], 3)) for row in rows)


def test_a_day_again_replaces_its_partition_and_no_other(server):
    next_day = DAY + dt.timedelta(days=1)
    write(scores(("a", DAY, 0.1), ("b", DAY, 0.2)))
    write(scores(("a", next_day, 0.3)), next_day)
    write(scores(("a", DAY, 0.4)))
    assert held(server) == [("a", DAY, 0.4), ("a", next_day, 0.3)]
    write(scores(), DAY)  # nobody is eligible any more: yesterday's scores must not stay
    assert held(server) == [("a", next_day, 0.3)]
    table = server.store.table(("shop", "scores", "daily")).resource
    assert table["timePartitioning"] == {"type": "DAY", "field": "as_of"} and table["labels"] == {"made_by": "parcours"}
    assert {f["name"]: f["type"] for f in table["schema"]["fields"]} == {
        "customer_key": "STRING",
        "journey_id": "STRING",
        "as_of": "TIMESTAMP",
        "model_version": "STRING",
        "p_7d": "FLOAT",
    }


def test_journeys_of_several_days_go_each_into_its_own(server):
    late = DAY + dt.timedelta(hours=23, minutes=59)
    write(scores(("a", DAY, 0.1), ("b", late, 0.2), ("c", DAY + dt.timedelta(days=1), 0.3)))
    targets = [job.configuration["load"]["destinationTable"]["tableId"] for job in server.jobs.values()]
    assert targets == ["daily$20260608", "daily$20260609"]
    assert len(held(server)) == 3


def test_a_busy_service_is_asked_again_and_no_row_is_doubled(server):
    server.fail(503, times=2, match="POST /upload")
    server.fail(429, times=1, match="GET .*/datasets/scores$")
    server.fail(503, times=1, match="GET .*/jobs/")
    write(scores(("a", DAY, 0.1)))
    assert held(server) == [("a", DAY, 0.1)]
    assert len(server.faults.struck) >= 3


def test_mistakes_are_told_before_anything_is_scored(server):
    def error(target):
        with pytest.raises(UserError) as caught, loaded(target, DAY):
            raise AssertionError("it got as far as scoring")
        return str(caught.value)

    assert error("bigquery://shop.scores").endswith("expected bigquery://project.dataset.table")
    assert "Not found: Dataset shop:none" in error("bigquery://shop.none.daily")
    server.store.put("shop.scores.plain", scores(("a", DAY, 0.1)))
    assert "not partitioned by the day of as_of" in error("bigquery://shop.scores.plain")
    server.fail(403, times=1, match="GET .*/datasets/scores$", message="Access Denied: Dataset shop:scores")
    assert "roles/bigquery.dataEditor" in error(TARGET)


def test_scores_with_other_columns_are_refused_and_nothing_is_replaced(server):
    write(scores(("a", DAY, 0.1)))
    other = scores(("a", DAY, 0.5)).append_column("p_90d", pa.array([0.9], pa.float32()))
    with pytest.raises(UserError, match="no column such as p_90d"):
        write(other)
    assert held(server) == [("a", DAY, 0.1)]


def test_predict_from_bigquery_into_bigquery_scores_as_files_do(job, server):
    """The whole command, from events in BigQuery, against the same scores from Parquet to Parquet."""
    source = job["base"] / "source"
    for name in ("events", "customers", "assignments"):
        server.store.put(f"shop.web.{name}", pq.read_table(source / f"{name}.parquet"), location="EU")
    inner, outer = keys.pads(bytes.fromhex(job["key"].read_text()))
    server.store.put("secret.keys.pads", pa.table({"inner_pad": [inner], "outer_pad": [outer]}), location="EU")
    flags = ("--model", job["run_dir"] / "model", "--spec", SPEC, "--events", "bigquery://shop.web.events")
    for _ in range(2):
        said = command(
            "deploy.predict", *flags, "--as_of", TEST_AS_OF, "--pads", "bigquery://secret.keys.pads", "--output", TARGET
        )
        assert f"scores with their keys are in {TARGET}" in said
        found = {row["journey_id"]: row for row in server.store.get("shop.scores.daily").to_pylist()}
    expected = {row["journey_id"]: row for row in pq.read_table(job["base"] / "scores.parquet").to_pylist()}
    assert len(server.store.get("shop.scores.daily")) == len(expected) > 100
    assert found.keys() == expected.keys()
    for name, row in found.items():
        for column, value in row.items():
            wanted = expected[name][column]
            assert value == (pytest.approx(wanted, abs=1e-6) if isinstance(wanted, float) else wanted)
    assert json.dumps([one.configuration for one in server.jobs.values()]).count("daily$20260608") == 2
