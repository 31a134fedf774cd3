"""The first journey spec: guesses on ordinary and odd tables, what is left out, and whether the spec works at once."""

import datetime as dt
import re
from pathlib import Path

import duckdb
import pytest
import yaml

from preprocessing import init, simulate
from preprocessing.cli import UserError
from preprocessing.draft import windows
from preprocessing.journeys import build_journeys
from preprocessing.spec import load_spec, parse_spec
from tests.job import command
from tests.preprocessing.test_real_tables import DATA

KEY = bytes(32)
ORDINARY = """SELECT
  'C' || (i % 400) AS customer_id,
  TIMESTAMP '2025-01-01' + INTERVAL (i * 67) MINUTE AS event_time,
  CASE i % 11 WHEN 0 THEN 'purchase' WHEN 1 THEN 'add_to_cart' ELSE 'view' END AS event_type,
  CASE i % 3 WHEN 0 THEN 'web' ELSE 'app' END AS channel,
  CASE WHEN i % 11 = 0 THEN 10.5 + i % 7 END AS amount
FROM range(8000) AS t(i)"""


def written(tmp_path: Path, query: str, suffix: str = "parquet") -> Path:
    path = tmp_path / f"table.{suffix}"
    form = {"parquet": "PARQUET", "csv": "CSV", "jsonl": "JSON"}[suffix]
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT {form})")
    return path


def drafted(tmp_path: Path, events: Path, *more: str) -> tuple[dict, str]:
    output = tmp_path / "my.yaml"
    init.main(["--events", str(events), "--output", str(output), *more])
    text = output.read_text()
    return yaml.safe_load(text), text


def journeys(spec: Path, events: Path, tmp_path: Path) -> dict[str, int]:
    output = tmp_path / "journeys"
    output.mkdir()
    return build_journeys(load_spec(spec), str(events), output, KEY, progress=False)["journeys"]["kept"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_an_ordinary_table_becomes_a_spec_that_builds_journeys(tmp_path, suffix):
    events = written(tmp_path, ORDINARY, suffix)
    spec, _ = drafted(tmp_path, events)
    assert spec["events"] == {"table": "events", "customer": "customer_id", "time": "event_time"}
    assert spec["conversion"]["where"] == "event_type = 'purchase'"
    assert spec["sequence"]["categorical"] == ["event_type", "channel"]
    assert spec["sequence"]["numeric"] == ["amount"]
    kept = journeys(tmp_path / "my.yaml", events, tmp_path)
    assert all(kept[part] > 100 for part in ("train", "eval", "test")), kept


def test_a_table_of_a_database_is_named_or_found(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE visits AS {ORDINARY}")
        connection.execute("CREATE TABLE staff AS SELECT 1 AS id")
    with pytest.raises(UserError, match="Name one with --table; found staff, visits"):
        drafted(tmp_path, path)
    spec, _ = drafted(tmp_path, path, "--table", "visits")
    assert spec["events"]["table"] == "visits"
    assert journeys(tmp_path / "my.yaml", path, tmp_path)["test"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("simulated")
    simulate.main(["--customers", "300", "--seed", "7", "--base_rate", "0.2", "--output", f"{place}/events.parquet"])
    return place


def test_the_tables_beside_the_events_become_blocks_that_the_pipeline_takes(tmp_path, simulated):
    spec, text = drafted(tmp_path, simulated)
    assert spec["customer"] == {
        "table": "customers",
        "customer": "customer_id",
        "valid_from": "updated_at",
        "categorical": ["segment", "activity", "country"],
        "numeric": ["age"],
    }
    assert spec["eligible"] == "consent"
    assigned = {"customer": "customer_id", "campaign": "campaign", "time": "assigned_at", "treated": "treated"}
    touched = ["display_click", "email_click", "email_open", "sms_click"]
    assert spec["campaigns"] == {
        "column": "campaign",
        "assignments": {"table": "assignments", **assigned, "consequences": touched, "randomised": False},
    }
    assert re.search(r"# assignments: customer_id holds \S+ % of the events' customers; [\d,]+ rows; treated in", text)
    for table in ("truth", "campaign_effects"):  # which know the answer
        assert f"# table passed over: {table}, neither named like a table of customers" in text
    key = tmp_path / "key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    flags = ("--spec", tmp_path / "my.yaml", "--events", simulated, "--run_dir", tmp_path / "run", "--key_file", key)
    assert "journeys, records and the transform graph are in" in command("preprocessing.task", *flags)
    made = duckdb.sql(f"SELECT segment, assigned_campaign FROM '{tmp_path}/run/journeys/part-*.parquet'")
    values = made.to_arrow_table().to_pydict()
    assert {"loyal", "new"} & set(values["segment"])
    assert "newsletter_tip" in values["assigned_campaign"]


def test_the_tables_of_a_database_are_looked_at_too(tmp_path, simulated):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        for name in ("events", "customers", "assignments"):
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM '{simulated}/{name}.parquet'")
    spec, _ = drafted(tmp_path, path)
    assert (spec["customer"]["table"], spec["campaigns"]["assignments"]["table"]) == ("customers", "assignments")
    assert journeys(tmp_path / "my.yaml", path, tmp_path)["test"]


def beside(tmp_path: Path, **tables: str) -> tuple[dict, str]:
    for name, query in ({"events": ORDINARY} | tables).items():
        duckdb.sql(f"COPY ({query}) TO '{tmp_path}/{name}.parquet'")
    return drafted(tmp_path, tmp_path)


def test_customers_without_dates_are_static_and_said_to_be(tmp_path):
    people = """SELECT 'C' || i AS client, CASE i % 3 WHEN 0 THEN 'Nord' ELSE 'Sud' END AS region, 'web' AS channel,
      i % 40 AS age, 'c' || i || '@shop.example' AS email, i % 2 AS churned FROM range(380) AS t(i)"""
    spec, text = beside(tmp_path, crm=people)
    assert spec["customer"] == {
        **{"table": "crm", "customer": "client", "static": True, "categorical": ["region"], "numeric": ["age"]}
    }
    assert "# customers: client holds 95 % of the events' customers; 380 rows, one a customer." in text
    assert "# static: no time in it says since when a row holds" in text
    for name, why in (("email", "looks like e-mail addresses"), ("churned", "its name says that it tells the outcome")):
        assert f"# left out: {name}, {why}." in text
    assert "campaigns" not in spec
    assert journeys(tmp_path / "my.yaml", tmp_path, tmp_path)["test"]


@pytest.mark.parametrize(
    ("flags", "eligible", "features"),
    [
        ("i % 3 > 0 AS gdpr_consent, i % 2 > 0 AS email_opt_in", "gdpr_consent", ["email_opt_in"]),
        ("(i % 3 > 0)::INT AS opted_in", "opted_in = 1", None),
        ("i % 3 = 0 AS do_not_contact", "NOT do_not_contact", None),
        ("(i % 3 = 0)::INT AS optout", "optout = 0", None),
        ("i % 3 AS consent_version, 'yes' AS optional_info", None, ["consent_version"]),
    ],
)
def test_a_flag_of_consent_says_who_is_eligible(tmp_path, flags, eligible, features):
    spec, text = beside(tmp_path, customers=f"SELECT 'C' || i AS client, {flags} FROM range(380) AS t(i)")
    assert spec.get("eligible") == eligible
    block = spec["customer"]
    assert (block.get("categorical", []) + block.get("numeric", []) or None) == features
    assert ("everybody is predicted" in text) == (eligible is None)
    assert journeys(tmp_path / "my.yaml", tmp_path, tmp_path)["test"]


def test_what_cannot_be_either_is_passed_over_with_its_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("to read")
    (tmp_path / "broken.parquet").write_text("PAR1")
    spec, text = beside(
        tmp_path,
        customers="SELECT 'C' || (i % 400) AS customer_id, i % 7 AS visits FROM range(900) AS t(i)",
        orders="SELECT 'C' || (i % 400) AS customer_id, i AS total FROM range(900) AS t(i)",
        people="SELECT 'D' || i AS customer_id, i AS age FROM range(900) AS t(i)",
        mails="SELECT 'C' || i AS customer_id, 'may' AS campaign, i % 3 AS treated, i % 50 AS a FROM range(400) t(i)",
    )
    for table, why in (
        ("customers", "2.2 rows a customer, and no full time says since when each holds"),
        ("orders", "neither named like a table of customers nor one row a customer"),
        ("people", "no column of it holds the customers of customer_id"),
    ):
        assert f"# table passed over: {table}, {why}." in text
    assert "# table passed over: broken, " in text
    assert "notes" not in text  # no table by its name
    assert "assignments" not in text
    assert spec["customer"]["table"] == "mails"  # a row each, and no lots in it: treated is 0, 1 or 2


def test_what_looks_personal_is_left_out_and_said(tmp_path):
    query = f"""SELECT *, 'u' || i % 90 || '@shop.example' AS contact, '+33 6 12 34 56 ' || i % 90 AS reach,
      'Ann' AS first_name, 'box ' || i || ' came too late today' AS said
      FROM (SELECT *, row_number() OVER () AS i FROM ({ORDINARY}))"""
    spec, text = drafted(tmp_path, written(tmp_path, query))
    used = spec["sequence"]["categorical"] + spec["sequence"]["numeric"]
    assert not {"contact", "reach", "first_name", "said"} & set(used)
    for name, why in (
        ("contact", "looks like e-mail addresses"),
        ("reach", "looks like telephone numbers"),
        ("first_name", "its name says personal data"),
        ("said", "looks like free text"),
    ):
        assert f"# left out: {name}, {why}." in text
    assert "@shop" not in text, "no cell of the table stands in the spec"


def test_no_column_holds_a_time(tmp_path):
    events = written(tmp_path, f"SELECT * EXCLUDE (event_time) FROM ({ORDINARY})")
    with pytest.raises(UserError, match="no column holds a time; expected TIMESTAMP"):
        drafted(tmp_path, events)
    assert not (tmp_path / "my.yaml").exists()


def test_no_column_is_a_customer(tmp_path):
    events = written(tmp_path, f"SELECT event_time, event_type, channel FROM ({ORDINARY})")
    with pytest.raises(UserError, match="no column looks like the customer's id, among event_time, event_type"):
        drafted(tmp_path, events)


def test_without_a_candidate_for_the_conversion_it_says_what_to_decide(tmp_path, capsys):
    events = written(tmp_path, f"SELECT * EXCLUDE (amount) FROM ({ORDINARY}) WHERE event_type <> 'purchase'")
    spec, text = drafted(tmp_path, events)
    assert spec["conversion"]["where"] == "DECIDE"
    assert "# DECIDE: write the predicate" in text
    assert "to decide: conversion.where" in capsys.readouterr().out
    with pytest.raises(UserError, match="DECIDE"):  # not trained on by mistake
        journeys(tmp_path / "my.yaml", events, tmp_path)


def test_ids_that_are_integers_and_names_of_mixed_case(tmp_path):
    query = f"""SELECT CAST(substr(customer_id, 2) AS INT) AS "CustomerID", event_time AS "OrderDate",
      event_type AS "EventType", channel AS "Channel", amount AS "Total Amount" FROM ({ORDINARY})"""
    events = written(tmp_path, query)
    spec, text = drafted(tmp_path, events)
    assert (spec["events"]["customer"], spec["events"]["time"]) == ("CustomerID", "OrderDate")
    assert spec["conversion"]["where"] == "EventType = 'purchase'"
    assert "# left out: Total Amount, its name cannot be a field's" in text
    assert journeys(tmp_path / "my.yaml", events, tmp_path)["test"]


def test_of_several_times_the_event_s_own_is_taken(tmp_path):
    query = f"""SELECT *, event_time + INTERVAL 1 HOUR AS loaded_at, CAST(event_time AS DATE) AS day,
      event_time - INTERVAL 20 YEAR AS birth_date, event_time + INTERVAL 2 DAY AS updated_at FROM ({ORDINARY})"""
    spec, text = drafted(tmp_path, written(tmp_path, query))
    assert (spec["events"]["time"], spec["events"]["available"]) == ("event_time", "loaded_at")
    assert "# left out: updated_at, another time." in text


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_time_counted_since_1970_is_read_by_a_query(tmp_path, suffix):
    query = f"SELECT * EXCLUDE (event_time), epoch_ms(event_time) AS ts FROM ({ORDINARY})"
    events = written(tmp_path, query, suffix)
    spec, _ = drafted(tmp_path, events)
    assert "TIMESTAMP_MILLIS" in spec["events"]["table"]
    assert spec["snapshots"]["first"].year == 2025
    assert journeys(tmp_path / "my.yaml", events, tmp_path)["test"]


def test_empty_files_and_too_few_days_are_one_line(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match=r"empty.csv: empty; expected a line of column names"):
        drafted(tmp_path, tmp_path / "empty.csv")
    with pytest.raises(UserError, match="holds no rows"):
        drafted(tmp_path, written(tmp_path, f"SELECT * FROM ({ORDINARY}) LIMIT 0"))
    with pytest.raises(UserError, match=r"span 2 days \(2025-01-01 to 2025-01-02\); expected 8 or more"):
        drafted(tmp_path, written(tmp_path, f"SELECT * FROM ({ORDINARY}) WHERE event_time < '2025-01-03'"))
    with pytest.raises(UserError, match="no such file"):
        drafted(tmp_path, tmp_path / "none.csv")


def test_a_spec_is_never_overwritten_unasked(tmp_path):
    events = written(tmp_path, ORDINARY)
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"my.yaml: exists; add --overwrite"):
        drafted(tmp_path, events)
    assert (tmp_path / "my.yaml").read_text() == "mine"
    drafted(tmp_path, events, "--overwrite")


def test_names_cannot_break_out_of_their_line(tmp_path):
    query = f"""SELECT *, 'x' AS "a
sampling: {{negative_rate: 0.1}}", customer_id AS "client: no # yes" FROM ({ORDINARY})"""
    spec, _ = drafted(tmp_path, written(tmp_path, query))
    assert "sampling" not in spec


@pytest.mark.parametrize("days", [8, 9, 13, 23, 24, 40, 55, 56, 80, 111, 112, 170, 239, 240, 365, 2000])
def test_windows_fit_every_length_of_history(days):
    low = dt.datetime(2025, 1, 1, 12, tzinfo=dt.UTC)
    fit = windows(low, low + dt.timedelta(days=days - 1), "table")
    split = f"eval_from: {fit.eval_from}" if fit.eval_from else "eval_customers: 0.15"
    text = (
        "events: {customer: c, time: t}\nsequence: {categorical: [e]}\n"
        f"conversion: {{where: 'e', horizons_days: {list(fit.horizons)}, primary_horizon: {fit.horizons[-1]}}}\n"
        f"snapshots: {{first: {fit.first}, last: {fit.last}, every_days: {fit.every}, lookback_days: {fit.lookback}}}\n"
        f"data_until: {fit.until}\nsplit: {{{split}, test_from: {fit.test_from}}}\n"
    )
    spec = parse_spec(text)
    assert spec.snapshots.instants[0] >= low - dt.timedelta(days=1) + dt.timedelta(days=fit.lookback)
    assert bool(fit.eval_from) or days < 112


@pytest.mark.skipif(not DATA.exists(), reason="no real tables beside the checkout")
@pytest.mark.parametrize(
    ("table", "more", "events", "conversion"),
    [
        ("online_retail_events", [], ("customer_id", "ts"), "event_type = 'purchase'"),
        ("completejourney_events", [], ("household_id", "ts"), "event_type = 'coupon_redeemed'"),
        ("clickstreamdmm_events", ["--journeys", "clickstreamdmm_sessions"], ("session_id", "t_s"), "converted"),
    ],
)
def test_published_tables_become_specs_that_build_journeys(tmp_path, table, more, events, conversion):
    spec, _ = drafted(tmp_path, DATA / f"{table}.parquet", *more)
    told = spec["events"]
    assert (told.get("customer", told.get("journey")), told.get("time", told.get("seconds"))) == events
    assert (
        spec["conversion"]["where"] == conversion if "conversion" in spec else spec["journeys"]["label"] == conversion
    )
    kept = journeys(tmp_path / "my.yaml", DATA / f"{table}.parquet", tmp_path)
    assert all(kept[part] > 500 for part in ("train", "eval", "test")), kept
