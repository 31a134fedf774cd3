"""Rows that cannot be used: how many are put up with, where they lie, and that every row of every table is counted."""

import json
import re

import pyarrow.parquet as pq
import pytest

from preprocessing.balance import line, places_of
from preprocessing.building import build
from preprocessing.cli import UserError
from preprocessing.spec import parse_spec
from preprocessing.tolerance import TooManyBadRows, exceeds, in_words, tolerance
from preprocessing.warehouse import Warehouse
from tests.job import command

SPEC = """
events:     {customer: who, time: at}
sequence:   {categorical: [what]}
customer:   {table: people, valid_from: since, categorical: [land]}
eligible:   {where: "land <> 'XX'"}
conversion: {where: "what = 'buy'", horizons_days: [7], primary_horizon: 7}
snapshots:  {dates: [2026-02-01, 2026-03-01], lookback_days: 30}
data_until: 2026-04-01
split:      {test_from: 2026-03-01, eval_customers: 0.5}
campaigns:  {assignments: {table: lots, customer: who, campaign: camp, time: at, treated: in}}
privacy:    {min_customers: 1}
"""


@pytest.fixture
def source(tmp_path):
    """200 events, 3 of which are bad; customers and assignments with a bad row each; rows that nobody reads."""
    names = [f"secret-{i}" for i in range(20)]
    events = [f"{name},2026-02-{day:02d},view" for name in names for day in range(1, 10)]
    events += [f"{name},2020-01-01,buy" for name in names[:17]] + [",2026-02-03,view", "secret-1,soon,view"]
    events += ["secret-1,1492-01-01,view"]
    people = [f"{name},2026-01-01,{'XX' if name == 'secret-3' else 'FR'}" for name in names]
    people += ["secret-1,2025-01-01,DE", "secret-2,2027-01-01,DE", "secret-2,never,DE"]
    lots = [f"{name},x,2026-02-20,{i % 2}" for i, name in enumerate(names)]
    lots += [lots[0], "secret-5,x,2026-02-21,", "secret-6,x,2026-05-01,1"]
    for name, header, rows in (
        ("events", "who,at,what", events), ("people", "who,since,land", people), ("lots", "who,camp,at,in", lots)
    ):  # fmt: skip
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "key").write_text(f"{'5a' * 32}\n")
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def made(source, **options):
    output = source / "out"
    output.mkdir(exist_ok=True)
    return build(
        parse_spec(SPEC), str(source / "events.csv"), output, Warehouse(), key_file=str(source / "key"), **options
    )


def test_every_row_of_every_source_is_used_set_aside_or_out_of_the_windows(source):
    summary = made(source, max_bad_rows=3)
    tables = {"events": summary["events"], **summary["tables"]}
    assert {name: counts["read"] for name, counts in tables.items()} == {
        "events": 200, "customers": 23, "assignments": 23
    }  # fmt: skip
    for name, counts in tables.items():
        said = line(name, counts)
        total, *parts = [int(n) for n in re.findall(r"(?<=[a-z] )\d+", re.sub(r"\(in features[^)]*\)", "", said))]
        assert total == sum(parts) == counts["read"], said
        assert sum(places_of(counts).values()) + sum(counts["set_aside"].values()) == counts["read"]
    assert summary["events"]["set_aside"] == {"absurd time": 1, "null customer": 1, "unparsable time": 1}
    # who is refused reads one row; superseded before the first as_of, valid after the last of them: nobody reads those
    assert summary["tables"]["customers"] == {
        "read": 23, "used": 19, "ineligible": 1, "outside_windows": 2, "set_aside": {"unparsable time": 1}
    }  # fmt: skip
    assert summary["tables"]["assignments"] == {
        "read": 23, "used": 19, "ineligible": 1, "unobserved": 1, "duplicate": 1, "set_aside": {"null treated": 1}
    }  # fmt: skip


def test_the_run_above_the_limit_stops_and_keeps_the_bad_rows_where_it_is_told(source):
    kept = source / "kept" / "bad.parquet"
    with pytest.raises(TooManyBadRows, match=r"3 of 200 rows \(1.5%\) cannot be used: .* at most 2; each with its"):
        made(source, max_bad_rows=2, bad_rows_at=str(kept))
    rows = pq.read_table(kept).to_pylist()
    assert [(row["source"], row["source_row"], row["reason"]) for row in rows if row["source"] == "events"] == [
        ("events", 198, "null customer"), ("events", 199, "unparsable time"), ("events", 200, "absurd time")
    ]  # fmt: skip
    assert len(rows) == 5
    assert "secret" not in str(rows)


def test_the_command_stops_with_a_run_directory_of_bad_rows_alone(source):
    """By default above 1 %; what an earlier run left stays; a run that does not stop has no such file."""
    run = source / "run"
    (run / "transform").mkdir(parents=True)
    (run / "transform" / "whole.json").write_text(json.dumps({"stamp": "old", "with": ["transform"]}))
    flags = ("--spec", source / "spec.yaml", "--events", source / "events.csv", "--key_file", source / "key")
    said = command("preprocessing.task", *flags, "--run_dir", run, "--overwrite", code=2)
    (told,) = [text for text in said.splitlines() if text.startswith("error:")]
    assert "events.csv: 3 of 200 rows (1.5%) cannot be used: " in told
    assert told.endswith(f"expected at most 1.0%; each with its reason is in {run}/set_aside.parquet")
    assert pq.read_table(run / "set_aside.parquet").num_rows == 5
    assert sorted(p.name for p in run.iterdir()) == [".lock", "set_aside.parquet", "transform"]
    assert "secret" not in said


@pytest.mark.parametrize(
    ("text", "most"),
    [("1%", 0.01), ("0.01", 0.01), ("1.0", 1.0), ("0", 0), ("20", 20), (" 2.5% ", 0.025), ("1", 1), ("100%", 1.0)],
)
def test_a_share_or_a_count(text, most):
    found = tolerance(text)
    assert (type(found), found) == (type(most), pytest.approx(most))


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "nan", "many", "1e9", "²", "0x1", "inf%"])
def test_no_tolerance(text):
    with pytest.raises(UserError, match=r"--max_bad_rows: expected a share such as 0\.01 or 1%, or a count of rows"):
        tolerance(text)


def test_the_limit_itself_is_put_up_with():
    assert [exceeds(bad, 1000, 0.01) for bad in (9, 10, 11)] == [False, False, True]
    assert [exceeds(bad, 1000, 10) for bad in (9, 10, 11)] == [False, False, True]
    assert [in_words(most) for most in (0.01, 20, 0.0, 0.0001)] == ["1.0%", "20", "0.0%", "0.0100%"]
