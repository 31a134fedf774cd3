"""Tables as users have them: the same journeys from every kind of file, and one clear line for each broken one."""

import datetime as dt
import gzip
import json
import math

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec

KEY = bytes(32)
SPEC = """
events:     {table: events, customer: who, time: ts}
sequence:   {categorical: [kind], numeric: [amount], max_events: 8}
customer:   {table: customers, static: true, categorical: [city]}
conversion: {where: "kind = 'buy' AND amount > 9", horizons_days: [5], primary_horizon: 5}
snapshots:  {dates: [2026-01-06, 2026-01-20], lookback_days: 30}
data_until: 2026-02-01
split:      {eval_customers: 0.01, test_from: 2026-01-20}
privacy:    {min_customers: 1}
"""
EVENTS = [
    {"who": "a", "ts": "2026-01-02 10:00:00", "kind": "web", "amount": None},
    {"who": "a", "ts": "2026-01-03 00:00:00", "kind": "buy", "amount": 9.5},
    {"who": "b", "ts": "2026-01-04 12:30:00", "kind": None, "amount": 10.0},
    {"who": "b", "ts": "2026-01-07 12:30:00", "kind": "buy", "amount": 10.0},
    {"who": "b", "ts": "2026-01-22 12:30:00", "kind": "buy", "amount": 8.0},
]
CUSTOMERS = [{"who": "a", "city": "Köln, Rhein"}, {"who": "b", "city": None}]


def typed(rows):
    return pa.table(
        {
            name: pa.array([dt.datetime.fromisoformat(r[name]) if name == "ts" else r[name] for r in rows])
            for name in rows[0]
        }
    )


def build(source, folder, text=SPEC, **options):
    output = folder / "output"
    output.mkdir()
    summary = build_journeys(parse_spec(text), str(source), output, KEY, progress=False, **options)
    assert {p.name for p in folder.iterdir() if p.name.endswith(".partial")} == set()
    rows = pq.ParquetDataset(sorted(output.glob("part-*.parquet"))).read().to_pylist()
    return repr(rows), rows, summary


def as_csv(rows, path, delimiter=",", mark=""):
    def cell(value):
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if delimiter in text else text

    lines = [delimiter.join(rows[0])] + [delimiter.join(cell(v) for v in row.values()) for row in rows]
    path.write_text(mark + "\n".join(lines) + "\n", encoding="utf-8")


def write(form, folder):  # noqa: PLR0911 - a return a form
    """The tables in a form of their own; returns what --events says."""
    if form == "parquet":
        pq.write_table(typed(EVENTS), folder / "clicks.parquet")
        pq.write_table(typed(CUSTOMERS), folder / "customers.parquet")
        return folder / "clicks.parquet"
    if form == "directory":
        pq.write_table(typed(EVENTS), folder / "events.parquet")
        as_csv(CUSTOMERS, folder / "customers.csv")
        return folder
    if form == "glob":
        pq.write_table(typed(EVENTS[:2]), folder / "part-1.parquet")
        pq.write_table(typed(EVENTS[2:]), folder / "part-2.parquet")
        (folder / "customers").mkdir()
        pq.write_table(typed(CUSTOMERS[:1]), folder / "customers/one.parquet")
        pq.write_table(typed(CUSTOMERS[1:]), folder / "customers/two.parquet")
        return folder / "part-*.parquet"
    if form == "database":
        with duckdb.connect(str(folder / "shop.duckdb")) as connection:
            for name, rows in (("events", EVENTS), ("customers", CUSTOMERS)):
                connection.register("rows", typed(rows))
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
                connection.unregister("rows")
        return folder / "shop.duckdb"
    if form == "csv":
        as_csv(EVENTS, folder / "events.csv", mark="\ufeff")
        as_csv(CUSTOMERS, folder / "customers.csv")
        return folder / "events.csv"
    if form == "semicolons":
        as_csv(EVENTS, folder / "events.csv", ";")
        as_csv(CUSTOMERS, folder / "customers.tsv", "\t")
        return folder / "events.csv"
    lines = ["\n".join(json.dumps(row) for row in rows) for rows in (EVENTS, CUSTOMERS)]
    if form == "jsonl":
        (folder / "events.jsonl").write_text(lines[0])
        (folder / "customers.ndjson").write_text(lines[1])
        return folder / "events.jsonl"
    (folder / "events.jsonl.gz").write_bytes(gzip.compress(lines[0].encode()))
    as_csv(CUSTOMERS, folder / "c.csv")
    (folder / "customers.csv.gz").write_bytes(gzip.compress((folder / "c.csv").read_bytes()))
    return folder / "events.jsonl.gz"


def test_every_kind_of_table_gives_the_same_journeys(tmp_path):
    found = {}
    for form in ("parquet", "directory", "glob", "database", "csv", "semicolons", "jsonl", "gz"):
        folder = tmp_path / form
        folder.mkdir()
        found[form], rows, summary = build(write(form, folder), folder)
        assert summary["events"]["read"] == 5
    assert len(set(found.values())) == 1, found
    assert [len(row["kind"]) for row in rows] == [2, 2, 1, 2] or [len(row["kind"]) for row in rows] == [1, 2, 2, 2]
    assert sorted(row["city"] for row in rows) == ["", "", "Köln, Rhein", "Köln, Rhein"]
    # amounts are numbers to the predicate, in text too: 10.0 > 9 and 8.0 is not
    assert [row["days_to_conversion"] for row in rows if row["city"] == "" and row["split"] != "test"] == [
        1.5208333333333333
    ]
    assert all(row["days_to_conversion"] is None for row in rows if row["split"] == "test")


def test_a_query_reads_the_tables_beside_the_events(tmp_path):
    pq.write_table(typed(EVENTS), tmp_path / "clicks.parquet")
    pq.write_table(typed(CUSTOMERS), tmp_path / "customers.parquet")
    query = (
        "WITH known AS (SELECT who FROM customers) SELECT e.who, e.ts, e.kind, e.amount * 2 AS amount FROM events AS e "
        "JOIN known ON known.who = e.who WHERE NOT STARTS_WITH(IFNULL(e.kind, ''), 'w')"
    )
    _, rows, summary = build(
        tmp_path / "clicks.parquet", tmp_path, SPEC.replace("table: events,", f'table: "{query}",')
    )
    assert summary["events"]["read"] == 4
    assert sorted(amount for row in rows for amount in row["amount"]) == [19.0, 19.0, 20.0, 20.0, 20.0]


def refused(source, folder, text=SPEC):
    with pytest.raises(UserError) as caught:
        build(source, folder, text)
    message = str(caught.value)
    assert "\n" not in message and "Köln" not in message
    assert not list((folder / "output").glob("part-*"))
    return message.replace(str(folder), "")


@pytest.fixture
def folder(tmp_path):
    pq.write_table(typed(EVENTS), tmp_path / "events.parquet")
    pq.write_table(typed(CUSTOMERS), tmp_path / "customers.parquet")
    return tmp_path


def test_missing_tables_are_named(folder):
    assert (
        refused(folder / "none.parquet", folder)
        == "/none.parquet: no such file or directory; expected the events table"
    )
    (folder / "output").rmdir()
    assert refused(folder / "part-*.parquet", folder) == "/part-*.parquet: no file matches this pattern"
    (folder / "output").rmdir()
    (folder / "customers.parquet").unlink()
    assert refused(folder / "events.parquet", folder).startswith("/customers: customer.table: no such table; expected")
    (folder / "output").rmdir()
    as_csv(EVENTS, folder / "events.csv")
    assert "found events.parquet and events.csv; name one" in refused(folder, folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.parquet", b"PAR1 this is none PAR1", "/bad.parquet: cannot be read; is the file whole"),
        ("bad.parquet", b"", "/bad.parquet: cannot be read"),
        ("bad.csv", b"", "/bad.csv: empty; expected a line of column names"),
        ("bad.csv", b"who,ts,kind,amount\n", "/bad.csv: holds no rows"),
        (
            "bad.csv",
            b"who,ts,kind,amount\na,2026-01-01,web,1\na,2026-01-01,web\n",
            "/bad.csv:3: not a readable CSV line",
        ),
        (
            "bad.csv",
            b"who,ts,kind,amount\na,2026-01-01,\xff,1\n",
            "/bad.csv:2: not a readable CSV line (invalid unicode)",
        ),
        ("bad.csv", b"who,ts,kind,who\na,2026-01-01,a,1\n", "/bad.csv: the first line names a column twice: who"),
        ("bad.csv.gz", b"no gzip", "/bad.csv.gz: cannot be read: not a gzip file"),
        ("bad.jsonl", b"no json\nat all\n", "/bad.jsonl: "),
        ("bad.xlsx", b"PK", "/bad.xlsx: expected files of one kind, with one of .parquet"),
        ("bad.duckdb", b"not a database", "/bad.duckdb: cannot be opened as a DuckDB database"),
    ],
)
def test_broken_files_are_one_line(folder, name, content, message):
    (folder / name).write_bytes(content)
    assert refused(folder / name, folder).startswith(message)


def test_a_truncated_parquet_file_is_one_line(folder):
    whole = (folder / "events.parquet").read_bytes()
    (folder / "events.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(folder / "events.parquet", folder)
    (folder / "output").rmdir()
    damaged = bytearray(whole)
    damaged[4:60] = b"\xff" * 56
    (folder / "events.parquet").write_bytes(bytes(damaged))
    assert "events.parquet: cannot be read" in refused(folder / "events.parquet", folder)


def test_a_database_without_the_table_says_which_there_are(folder):
    with duckdb.connect(str(folder / "shop.db")) as connection:
        connection.execute("CREATE TABLE clicks (who TEXT)")
    assert refused(folder / "shop.db", folder) == "/shop.db: events.table: no table 'events'; expected one of clicks"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("customer: who", "customer: whom", "/events.parquet: events.customer: no column 'whom'; did you mean 'who'?"),
        ("time: ts", "time: zz", "events.time: no column 'zz'; expected one of who, ts, kind, amount"),
        ("time: ts", "time: amount", "events.time: column 'amount' is FLOAT64; expected TIMESTAMP or DATETIME or DATE"),
        ("customer: who", "customer: amount", "events.customer: column 'amount' is FLOAT64; expected STRING or INT64"),
        ("[kind], numeric: [amount]", "[amount]", "column 'amount' is FLOAT64; expected STRING or INT64"),
        ("numeric: [amount]", "numeric: [ts]", "sequence.numeric: column 'ts' is DATETIME; expected INT64"),
        ("categorical: [city]", "categorical: [town]", "/customers.parquet: customer.categorical: no column 'town'"),
        ("kind = 'buy'", "kid = 'buy'", "/events.parquet: conversion.where: no 'kid' among the columns; did you mean"),
        ("amount > 9", "amount > 'x'", "conversion.where: amount > 'x': expected values of one type"),
        ("table: events", "table: SELECT * FROM nowhere", "events.table: no such table"),
        ("table: events", "table: SELECT * FRM x", "events.table: not a query in GoogleSQL"),
        ("table: events", "table: SELECT zz FROM events", 'events.table: Binder Error: Referenced column "zz"'),
    ],
)
def test_spec_and_table_that_disagree_are_one_line(folder, old, new, message):
    text = SPEC.replace(old, new, 1) if "table:" not in old else SPEC.replace(old, f'table: "{new[7:]}"', 1)
    assert message in refused(folder / "events.parquet", folder, text)


def test_a_column_of_lists_is_refused(folder):
    pq.write_table(typed(EVENTS).append_column("tags", pa.array([["a"]] * 5)), folder / "events.parquet")
    text = SPEC.replace("categorical: [kind]", "categorical: [tags]")
    assert "column 'tags' is VARCHAR[]; expected STRING" in refused(folder / "events.parquet", folder, text)


def test_nan_in_a_parquet_column_without_nulls_is_missing(folder):
    """Parquet's statistics leave NaN out; DuckDB 2.0 concludes from them that isnan() is false everywhere."""
    rows = [dict(row, amount=float("nan") if i == 1 else 10.0) for i, row in enumerate(EVENTS)]
    pq.write_table(typed(rows), folder / "events.parquet")
    _, journeys, summary = build(folder / "events.parquet", folder)
    assert summary["events"]["set_aside"] == {}
    assert sum(math.isnan(amount) for row in journeys for amount in row["amount"]) == 2  # seen at two snapshots


@pytest.mark.parametrize("column", [None, "file_index", "File_Row_Number"])  # which hide what Parquet counts by
def test_the_number_of_a_parquet_row_counts_through_all_files(column, tmp_path):
    for number, rows in enumerate((EVENTS[:2], EVENTS[2:3], [*EVENTS[3:], EVENTS[0] | {"who": None}])):
        table = typed(rows)
        if column is not None:
            table = table.append_column(column, pa.array([7] * len(rows)))
        pq.write_table(table, tmp_path / f"part-{number}.parquet", row_group_size=1)
    as_csv(CUSTOMERS, tmp_path / "customers.csv")
    build(tmp_path / "part-*.parquet", tmp_path, max_bad_rows=1)
    aside = pq.read_table(tmp_path / "output/set_aside.parquet").to_pylist()
    assert [(row["source_row"], row["reason"]) for row in aside] == [(6, "null customer")]
