"""Queries of a spec over files: what their columns are, what WITH names, what is refused; and files with odd names."""

import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from tests.preprocessing.test_tables import CUSTOMERS, EVENTS, SPEC, as_csv, build, typed

# s10 comes after s9 as a number, before it as a text
ORDERED = [{"who": "a", "ts": "2026-01-02 10:00:00", "kind": f"s{n}", "amount": None, "seq": n} for n in (9, 10, 11)]


def spec(table, order=True):
    text = SPEC.replace("table: events", f'table: "{table}"')
    return text.replace("time: ts}", "time: ts, order: seq}") if order else text


@pytest.fixture
def folder(tmp_path):
    as_csv(ORDERED, tmp_path / "events.csv")
    as_csv(CUSTOMERS, tmp_path / "customers.csv")
    return tmp_path


@pytest.mark.parametrize(
    "table",
    [
        "events",
        "SELECT * FROM events",
        "SELECT CAST(seq AS INT64) AS seq, * EXCEPT (seq) FROM events",
        "WITH events AS (SELECT * FROM events WHERE who IS NOT NULL) SELECT * FROM events",
        "WITH early AS (SELECT * FROM events), late AS (SELECT * FROM early) SELECT late.* FROM late",
    ],
)
def test_a_query_over_texts_orders_and_compares_numbers_as_numbers(folder, table):
    text = spec(table).replace("kind = 'buy' AND amount > 9", "kind = 's9' AND seq < 10")
    _, rows, _ = build(folder / "events.csv", folder, text)
    assert {tuple(row["kind"]) for row in rows if row["city"]} == {("s9", "s10", "s11")}


@pytest.mark.parametrize(
    "hung",
    ["TABLESAMPLE SYSTEM (0 PERCENT)", "PIVOT(COUNT(*) FOR kind IN ('s9'))", "FOR SYSTEM_TIME AS OF '2026-01-01'"],
)
def test_what_hangs_on_a_table_is_refused_and_not_dropped(folder, hung):
    with pytest.raises(UserError, match=r"events\.table: .*: expected the plain name of a table, and an alias at most"):
        build(folder / "events.csv", folder, spec(f"SELECT * FROM events {hung}", order=False))


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    """Beside each file lies the one that its name would match."""
    place = tmp_path / "exp[1]"
    place.mkdir()
    (tmp_path / "exp1").mkdir()
    for name, rows in (("events[1].parquet", EVENTS), ("events1.parquet", EVENTS[:1])):
        pq.write_table(typed(rows), place / name)
    pq.write_table(typed(EVENTS[:1]), tmp_path / "exp1/events.parquet")
    as_csv(CUSTOMERS, place / "customers[1].csv")
    as_csv(CUSTOMERS[:1], place / "customers1.csv")
    text = SPEC.replace("table: customers", "table: 'customers[1].csv'")
    assert build(place / "events[1].parquet", place, text)[2]["tables"]["customers"]["read"] == 2
    for path in (place / "output").iterdir():
        path.unlink()
    (place / "output").rmdir()
    assert build(place / "events[[]*.parquet", place, text)[2]["events"]["read"] == 5


def test_a_table_of_the_spec_may_be_a_pattern_from_the_root(tmp_path):
    pq.write_table(typed(EVENTS[:2]), tmp_path / "part-1.parquet")
    pq.write_table(typed(EVENTS[2:]), tmp_path / "part-2.parquet")
    as_csv(CUSTOMERS, tmp_path / "customers.csv")
    text = SPEC.replace("table: events", f"table: '{tmp_path}/part-*.parquet'")
    assert build(tmp_path, tmp_path, text)[2]["events"]["read"] == 5


def test_a_pattern_that_is_none_is_one_line(folder):
    with pytest.raises(UserError, match=r"--events: .*/\*\*\.csv: no pattern of files"):
        build(folder / "**.csv", folder)


def test_customers_without_dates_who_are_told_twice_differently_are_refused(folder):
    as_csv(EVENTS, folder / "events.csv")
    as_csv([*CUSTOMERS, CUSTOMERS[0]], folder / "customers.csv")
    assert build(folder / "events.csv", folder)[2]["tables"]["customers"]["read"] == 3
    as_csv([*CUSTOMERS, CUSTOMERS[0] | {"city": "Bonn"}], folder / "customers.csv")
    with pytest.raises(
        UserError, match=r"customer: 1 customers have several rows that differ, and by customer\.static"
    ):
        build(folder / "events.csv", folder / "output")


def test_a_value_of_customers_who_were_thinned_out_is_rare(folder):
    """Two of two customers held it, and one is left in train: no value of fewer than two ships."""
    rows = [{"who": f"c{i}", "ts": "2026-01-02 10:00:00", "kind": f"pair {i // 2}", "amount": 1.0} for i in range(400)]
    as_csv(rows, folder / "events.csv")
    text = SPEC.replace("min_customers: 1", "min_customers: 2").replace("customer:   {table: customers, static", "#")
    text += "sampling: {negative_rate: 0.5}\n"
    _, journeys, summary = build(folder / "events.csv", folder, text)
    assert summary["journeys"]["dropped"]["sampled_out"] > 100
    told = [row["kind"][0] for row in journeys if row["split"] == "train"]
    held = {value: told.count(value) for value in told if value != "__rare__"}
    assert held and set(held.values()) == {2}
    assert told.count("__rare__") > 50
