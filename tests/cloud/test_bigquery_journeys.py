"""journeys.sql in BigQuery, through the real clients: row for row what the plain-Python reference says."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from preprocessing import building, keys
from preprocessing.cli import UserError
from preprocessing.journeys_schema import journeys_schema
from preprocessing.spec import JourneysSpec, parse_spec
from preprocessing.warehouse import Warehouse
from tests.cloud.bigquery import BigQuery
from tests.job import command
from tests.preprocessing import reference, reference_ready
from tests.preprocessing.cases import AVAILABLE, CUSTOMER
from tests.preprocessing.random_case import random_case
from tests.preprocessing.test_reference import plain

KEY = bytes(range(32))
PADS = "bigquery://secret.keys.pads"


def warehouse(**options):
    return Warehouse(pads=PADS, beam=("--runner=FnApiRunner",), **options)


@pytest.fixture
def store(cloud):
    """The BigQuery server's store, with the pads of KEY in it."""
    store = cloud.service(BigQuery).store
    inner, outer = keys.pads(KEY)
    store.put("secret.keys.pads", pa.table({"inner_pad": [inner], "outer_pad": [outer]}))
    return store


NAMES = {CUSTOMER: "Kunde nr", AVAILABLE: "seen at"}  # BigQuery allows no quotes of any kind in a column's name


def renamed(value):
    """A case's rows and spec with the columns' names as BigQuery allows them; rows keep the old ones beside them."""
    if isinstance(value, dict):
        return {NAMES.get(k, k): renamed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v) for v in value]
    return NAMES.get(value, value) if isinstance(value, str) else value


def columns_as_bigquery_holds_them(table):
    """Nanoseconds and zones are none of BigQuery's: microseconds, in UTC or without a zone."""
    kinds = []
    for field in table.schema:
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", "UTC" if kind.tz else None)
        kinds.append(kind)
    return pa.table(
        [column.cast(kind, safe=False) for column, kind in zip(table.columns, kinds, strict=True)],
        names=[NAMES.get(name, name) for name in table.column_names],
    )


def compare(seed, store, tmp_path):
    case = random_case(seed)
    case.spec = parse_spec(yaml.safe_dump(renamed(yaml.safe_load(case.text)), allow_unicode=True))
    source = case.write(tmp_path)
    store.put("shop.web.events", columns_as_bigquery_holds_them(pq.read_table(source)))
    if case.others is not None:
        store.put("shop.web.others", columns_as_bigquery_holds_them(pq.read_table(tmp_path / "others.parquet")))
    if case.assignments is not None:
        store.put("shop.web.lots", columns_as_bigquery_holds_them(pq.read_table(tmp_path / "lots.parquet")))
    output = tmp_path / "out"
    output.mkdir()
    summary = building.build(
        case.spec,
        "bigquery://shop.web",
        output,
        warehouse(),
        predict_as_of=case.predict_as_of,
        predict=case.predict,
        max_bad_rows=1.0,
    )
    table = pq.ParquetDataset(sorted(output.glob("part-*.parquet"))).read()
    assert table.schema.equals(journeys_schema(case.spec)), table.schema
    found = [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]
    events = [row | renamed(row) for row in case.events]
    others, lots = (rows and [row | renamed(row) for row in rows] for rows in (case.others, case.assignments))
    tables = (events, others, KEY, case.holds)
    columns = {role: [NAMES.get(n, n) for n in names] for role, names in case.predicate_columns.items()}
    if isinstance(case.spec, JourneysSpec):
        rows, expected_summary = reference_ready.build(case.spec, *tables, predict=case.predict)
    else:
        rows, expected_summary = reference.build(
            case.spec, *tables, columns, predict_as_of=case.predict_as_of, assignments=lots
        )
    expected = [{name: plain(value) for name, value in row.items()} for row in rows]
    order = ("customer_key", "as_of", "journey_id")  # the streams keep none
    assert sorted(found, key=lambda r: [r[k] for k in order]) == expected, f"seed {seed}\n{case.text}"
    assert summary == expected_summary, f"seed {seed}\n{case.text}"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_journeys_equal_the_reference_row_for_row(seed, store, tmp_path):
    compare(seed, store, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 60))
def test_journeys_equal_the_reference_on_more_tables(seed, store, tmp_path):
    compare(seed, store, tmp_path)


SPEC = """
events:     {table: clicks, customer: who, time: ts}
sequence:   {categorical: [kind], numeric: [amount], max_events: 4}
conversion: {where: "kind = 'buy'", horizons_days: [7, 30], primary_horizon: 30}
snapshots:  {dates: [2026-01-01, 2026-03-01], lookback_days: 90}
data_until: 2026-06-01
split:      {eval_customers: 0.3, test_from: 2026-03-01}
privacy:    {min_customers: 1}
"""


@pytest.fixture
def shop(store):
    """A table of clicks, some of whose rows cannot be used."""
    day = dt.timedelta(days=1)
    start = dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
    rows = [
        {"who": f"c{i % 20}", "ts": start + i * day / 2, "kind": "buy" if i % 7 == 0 else "web", "amount": float(i)}
        for i in range(200)
    ]
    rows.append({"who": None, "ts": start, "kind": "Secret-Ann", "amount": 1.0})
    store.put("shop.web.clicks", pa.Table.from_pylist(rows), location="EU")
    store.put("secret.keys.pads", store.get("secret.keys.pads"))
    store.datasets["secret", "keys"]["location"] = "EU"
    return store


def build(folder, spec=SPEC, events="bigquery://shop.web", max_bad_rows=0.05, **options):
    folder.mkdir(exist_ok=True)
    summary = building.build(parse_spec(spec), events, folder, warehouse(**options), max_bad_rows=max_bad_rows)
    return pq.ParquetDataset(sorted(folder.glob("part-*.parquet"))).read(), summary


def sorted_rows(table):
    return sorted(table.to_pylist(), key=lambda row: row["journey_id"])


def test_what_is_asked_of_bigquery_and_what_is_left_there(shop, cloud, tmp_path, caplog):
    caplog.set_level("INFO")
    _, summary = build(tmp_path / "out")
    assert summary["events"]["read"] == 201 and summary["events"]["set_aside"] == {"null customer": 1}
    server = cloud.service(BigQuery)
    jobs = [job.configuration for job in server.jobs.values()]
    queries = [job["query"]["query"] for job in jobs]
    assert all(job["labels"] == {"made_by": "parcours"} for job in jobs)
    (made,) = [text for text in queries if "parcours_journeys_" in text]
    assert "expiration_timestamp" in made and "labels = [('made_by', 'parcours')]" in made
    assert {job.location for job in server.jobs.values()} == {"EU"}
    # no pad, no key and no id of a customer in any job's text, parameters or log
    inner, outer = keys.pads(KEY)
    everything = json.dumps(jobs) + caplog.text
    for secret in (inner.hex(), outer.hex(), base64.b64encode(inner).decode(), KEY.hex(), "Secret-Ann"):
        assert secret not in everything
    aside = pq.read_table(tmp_path / "out/set_aside.parquet").to_pylist()
    assert [(row["reason"], row["value"], row["customer"]) for row in aside] == [("null customer", "", "")]
    # nothing is left but what was there: the journeys table is dropped, the session ended
    assert [name for name in shop.tables if name[:2] == ("shop", "web")] == [("shop", "web", "clicks")]
    assert not shop.sessions
    assert "dry run: reading the tables scans" in caplog.text and "USD at 6.25 a TiB" in caplog.text
    assert "billed in all" in caplog.text


def test_beams_own_reader_yields_the_same_journeys(shop, tmp_path):
    ours, _ = build(tmp_path / "ours")
    beams, _ = build(tmp_path / "beams", reader="beam")
    assert ours.num_rows == 40
    assert sorted_rows(ours) == sorted_rows(beams)


def test_a_query_of_the_spec_runs_in_bigquery_as_it_stands(shop, cloud, tmp_path):
    text = SPEC.replace(
        "table: clicks,", 'table: "SELECT who, ts, LOWER(kind) AS kind, amount FROM clicks -- all of them",'
    )
    asked, _ = build(tmp_path / "query", text)
    named, _ = build(tmp_path / "table", events="bigquery://shop.web.clicks")
    assert sorted_rows(asked) == sorted_rows(named)
    assert any(
        "SELECT who, ts, LOWER(kind) AS kind, amount FROM clicks -- all of them" in job.configuration["query"]["query"]
        for job in cloud.service(BigQuery).jobs.values()
    )


def test_a_busy_service_is_asked_again_and_a_broken_stream_loses_and_doubles_no_row(shop, cloud, tmp_path, monkeypatch):
    expected, _ = build(tmp_path / "calm")
    server = cloud.service(BigQuery)
    monkeypatch.setattr("tests.cloud.bigquery_storage.ROWS_A_MESSAGE", 7)
    server.read_api.cache.clear()
    server.fail(503, times=2, match="POST .*/jobs")
    server.fail(429, times=2, match="GET .*/queries/")
    server.fail(503, times=1, match="CreateReadSession")
    server.fail(429, times=1, match="ReadRows")
    server.fail(500, times=1, match="ReadRows")
    server.cut(after=2, times=3, match="ReadRows")
    found, _ = build(tmp_path / "stormy")
    assert len(server.faults.struck) == 2 + 2 + 1 + 2 + 3
    assert {offset for _, offset in server.read_api.read} >= {14, 28}
    assert sorted_rows(found) == sorted_rows(expected)


def error(folder, **options):
    with pytest.raises(UserError) as caught:
        build(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_mistake_is_one_line_with_what_to_do(shop, cloud, tmp_path):
    server = cloud.service(BigQuery)
    assert error(tmp_path / "a", events="bigquery://shop.web.nope") == (
        "bigquery://shop.web.nope: Not found: Table shop:web.nope; check the name, and that the account may see it"
    )
    assert "Not found: Dataset shop:nope" in error(tmp_path / "b", events="bigquery://shop.nope.clicks")
    assert error(tmp_path / "c", events="bigquery://shop") == (
        "--events bigquery://shop: expected bigquery://project.dataset or bigquery://project.dataset.table"
    )
    capped = error(tmp_path / "d", cap=5_000_000)
    assert "limit for bytes billed: 5000000. 10485760 or higher required; raise --maximum_bytes_billed" in capped
    # one query fits below the cap, all of them do not
    assert "raise" in error(tmp_path / "e", cap=30_000_000)
    shop.add_dataset("shop", {"datasetReference": {"datasetId": "elsewhere"}, "location": "us-east1"})
    assert error(tmp_path / "f", dataset="shop.elsewhere") == (
        "--bigquery_dataset shop.elsewhere: lies in us-east1, the events in EU; name a dataset in EU"
    )
    shop.datasets["secret", "keys"]["location"] = "US"
    assert error(tmp_path / "g").startswith(
        f"--pads {PADS}: Not found: Dataset secret:keys was not found in location EU; a query runs in one location"
    )
    shop.datasets["secret", "keys"]["location"] = "EU"
    message = "Access Denied: Table shop:web.clicks: User does not have permission to query table shop:web.clicks"
    server.fail(403, times=1, match="POST .*/jobs", message=message, reason="accessDenied")
    denied = error(tmp_path / "h")
    assert denied.startswith(f"bigquery://shop.web.clicks: {message}; the account needs roles/bigquery.jobUser")
    server.fail(401, times=9, match="POST .*/jobs", message="Request had invalid authentication credentials.")
    assert "log in with: gcloud auth application-default login" in error(tmp_path / "i")
    server.faults.clear()
    assert "no column 'who'" in error(tmp_path / "j", events="bigquery://secret.keys.pads")
    empty = shop.get("secret.keys.pads").slice(0, 0)
    shop.put("secret.keys.pads", empty, location="EU")
    assert "expected one row of two pads of 64 bytes, found 0 rows; make it with: python -m" in error(tmp_path / "k")
    assert not shop.sessions and len([name for name in shop.tables if name[:2] == ("shop", "web")]) == 1


def test_too_many_bad_rows_stop_the_run_before_the_rest_is_paid_for(shop, cloud, tmp_path):
    assert error(tmp_path / "out", max_bad_rows=0.0) == (
        "bigquery://shop.web.clicks: 1 of 201 rows (0.5%) cannot be used: 1 null customer (who); expected at most 0.0%"
    )
    queries = [job.configuration["query"]["query"] for job in cloud.service(BigQuery).jobs.values()]
    assert not any("TABLE candidates" in text for text in queries)


def test_values_that_look_like_personal_data_stop_the_run_unless_their_column_is_allowed(shop, tmp_path):
    source = shop.get("shop.web.clicks").to_pylist()
    mailed = [row | {"kind": "ann@example.com"} if row["who"] == "c3" else row for row in source]
    shop.put("shop.web.clicks", pa.Table.from_pylist(mailed), location="EU")
    said = error(tmp_path / "out")
    assert "clicks: sequence.categorical: column 'kind': 1 distinct values look like e-mail addresses" in said
    assert "('xxx@xxxxxxx.xxx', in 10 rows)" in said
    assert (
        build(tmp_path / "allowed", SPEC.replace("min_customers: 1", "min_customers: 1, allow: [kind]"))[1]["events"][
            "read"
        ]
        == 201
    )


def test_the_key_goes_into_its_table_by_a_load_job_and_is_replaced_by_the_next(cloud, tmp_path):
    server = cloud.service(BigQuery)
    server.store.add_dataset("secret", {"datasetReference": {"datasetId": "keys"}, "location": "EU"})
    for number in range(2):
        key = bytes([number]) * 32
        (tmp_path / f"{number}.key").write_text(key.hex() + "\n")
        (tmp_path / f"{number}.key").chmod(0o600)
        said = command("preprocessing.keys", "--to_bigquery", PADS, "--key_file", tmp_path / f"{number}.key")
        assert f"secret.keys.pads: pads of key {keys.fingerprint(key)}, in EU; whoever reads this table" in said
        (row,) = server.store.get("secret.keys.pads").to_pylist()
        assert (row["inner_pad"], row["outer_pad"]) == keys.pads(key)
    described = json.dumps([job.resource for job in server.jobs.values()])
    assert len(server.jobs) == 2
    for pad in keys.pads(key):
        assert base64.b64encode(pad).decode() not in described
    said = command(
        "preprocessing.keys", "--to_bigquery", "bigquery://p.none.pads", "--key_file", tmp_path / "0.key", code=2
    )
    assert "--to_bigquery bigquery://p.none.pads: Not found: Dataset p:none" in said
