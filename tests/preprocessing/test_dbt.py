"""The example of a dbt model (docs/dbt.md): rendered, run in DuckDB, and read by its spec."""

import datetime as dt
import json
import re
from pathlib import Path

import duckdb
import jinja2
import pyarrow.parquet as pq
import pytest
import sqlglot
import yaml

from preprocessing.journeys import build_journeys
from preprocessing.spec import load_spec

EXAMPLE = Path(__file__).parents[2] / "examples/dbt"
MODEL = EXAMPLE / "models/parcours_events.sql"


def compiled() -> str:
    """The model's SQL, as dbt compiles it for sources in a schema of their own."""
    functions = {"config": lambda **_: "", "source": lambda schema, table: f"{schema}.{table}"}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(MODEL.read_text()).render(functions)


@pytest.fixture
def database(tmp_path):
    """A DuckDB database as dbt-duckdb leaves it: the sources, and the model as a table."""
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute(
            "CREATE TABLE shop.orders (customer_id VARCHAR, ordered_at TIMESTAMPTZ, loaded_at TIMESTAMPTZ, "
            "channel VARCHAR, amount DOUBLE)"
        )
        connection.execute(
            "CREATE TABLE shop.page_views (customer_id VARCHAR, viewed_at TIMESTAMPTZ, loaded_at TIMESTAMPTZ)"
        )
        connection.execute(
            "INSERT INTO shop.orders VALUES ('a', '2026-02-03 10:00Z', '2026-02-04 02:00Z', 'store', 19.5)"
        )
        connection.execute(
            "INSERT INTO shop.page_views VALUES ('a', '2026-01-20 10:00Z', '2026-01-21 02:00Z'), "
            "('a', '2026-01-25 23:00Z', '2026-01-26 02:00Z'), (NULL, '2026-01-25 10:00Z', '2026-01-26 02:00Z')"
        )
        connection.execute(f"CREATE TABLE parcours_events AS {compiled()}")
    return path


def test_the_model_makes_one_row_an_event(database):
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.sql("SELECT event_type, channel, amount FROM parcours_events ORDER BY event_time").fetchall()
    assert rows == [("page_view", "web", None), ("page_view", "web", None), ("purchase", "store", 19.5)]


def test_journeys_see_what_had_arrived(database, tmp_path):
    output = tmp_path / "journeys"
    output.mkdir()
    build_journeys(load_spec(EXAMPLE / "journeys.yaml"), str(database), output, b"k" * 32)
    assert not json.loads((output / "summary.json").read_text())["events"]["set_aside"]
    journeys = pq.read_table(sorted(output.glob("part-*.parquet"))).to_pylist()
    by_as_of = {one["as_of"].date(): one for one in journeys}
    # the view of 23:00 on the 25th came at 02:00 on the 26th: at midnight between them it was not there
    assert len(by_as_of[dt.date(2026, 1, 26)]["event_time"]) == 1
    assert len(by_as_of[dt.date(2026, 2, 2)]["event_time"]) == 2
    assert by_as_of[dt.date(2026, 2, 2)]["days_to_conversion"] == pytest.approx(1 + 10 / 24)


def test_the_model_is_googlesql_too_and_the_page_shows_it():
    (tree,) = sqlglot.parse(compiled(), read="bigquery")
    assert [one.alias_or_name for one in tree.selects] == [
        *("customer_id", "event_time", "ingest_time", "event_type", "channel", "amount")
    ]
    (shown,) = re.findall(r"```sql\n(.*?)```", (EXAMPLE.parents[1] / "docs/dbt.md").read_text(), re.DOTALL)
    assert MODEL.read_text().endswith(shown)


def test_what_dbt_tests_are_columns_of_the_model():
    content = yaml.safe_load((EXAMPLE / "models/schema.yml").read_text())
    (model,) = content["models"]
    assert model["name"] == MODEL.stem == load_spec(EXAMPLE / "journeys.yaml").events.table
    (tree,) = sqlglot.parse(compiled(), read="bigquery")
    assert {column["name"] for column in model["columns"]} <= {one.alias_or_name for one in tree.selects}
    sources = {f"{one['name']}.{table['name']}" for one in content["sources"] for table in one["tables"]}
    assert sources == {f"{table.db}.{table.name}" for table in tree.find_all(sqlglot.exp.Table)}
