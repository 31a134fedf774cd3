"""What journeys.sql promises, each promise by hand on a table small enough to read. test_reference.py has the rest."""

import datetime as dt
import errno
import itertools
import random
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import engine, keys
from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec

KEY = bytes(range(32))
UTC = dt.UTC
DAY = dt.timedelta(days=1)
TICK = dt.timedelta(microseconds=1)
AS_OF = dt.datetime(2026, 3, 1, tzinfo=UTC)
SPEC = """
events:     {table: events, customer: who, time: ts}
sequence:   {categorical: [kind], numeric: [amount], max_events: 4}
conversion: {where: "kind = 'buy'", horizons_days: [7, 30], primary_horizon: 30}
snapshots:  {dates: [2026-01-01, 2026-03-01], lookback_days: 90}
data_until: 2026-06-01
split:      {eval_customers: 0.01, test_from: 2026-03-01}
privacy:    {min_customers: 1}
"""
NOT_FEATURES = {"days_to_conversion", "observed_days"}


def event(who, ts, kind="web", amount=1.0, **more):
    return {"who": who, "ts": ts, "kind": kind, "amount": amount, **more}


def taught(*kinds, **more):
    """A train customer who has met these kinds of event, so that they are not rare."""
    return [event("teacher", dt.datetime(2025, 12, 20, tzinfo=UTC), kind, **more) for kind in kinds]


def build(folder, events, text=SPEC, **options):
    """Journeys by customer key and as_of, and the summary."""
    folder.mkdir(exist_ok=True)
    source, output = folder / "events.parquet", folder / "output"
    if not isinstance(events, pa.Table):
        events = pa.Table.from_pylist(events)
    pq.write_table(events, source)
    output.mkdir()
    summary = build_journeys(parse_spec(text), str(source), output, KEY, progress=False, **options)
    return pq.ParquetDataset(sorted(output.glob("part-*.parquet"))).read().to_pylist(), summary


def at_test(rows, who="a"):
    key = keys.customer_key(KEY, who)
    (row,) = [row for row in rows if row["as_of"] == AS_OF and row["customer_key"] == key]
    return row


def test_nothing_at_or_after_as_of_moves_a_feature(tmp_path):
    past = [*taught("web", "mail"), event("a", AS_OF - 5 * DAY), event("a", AS_OF - TICK, "mail", 3.0)]
    future = [event("a", AS_OF, "buy", 7.0), event("a", AS_OF + TICK, "new", 8.0), event("a", AS_OF + 9 * DAY, "new")]
    before, after = (at_test(build(tmp_path / str(len(e)), e)[0]) for e in (past, past + future))
    assert before["kind"] == ["web", "mail"] and before["event_time"] == [AS_OF - 5 * DAY, AS_OF - TICK]
    assert {k: v for k, v in before.items() if k not in NOT_FEATURES} == {
        k: v for k, v in after.items() if k not in NOT_FEATURES
    }
    assert before["days_to_conversion"] is None and after["days_to_conversion"] == 0.0


def test_an_event_not_yet_available_is_not_seen(tmp_path):
    text = SPEC.replace("time: ts", "time: ts, available: got")
    events = [
        event("a", AS_OF - 9 * DAY, "early", got=AS_OF - TICK),
        event("a", AS_OF - 8 * DAY, "at", got=AS_OF),
        event("a", AS_OF - 7 * DAY, "after", got=AS_OF + DAY),
        event("a", AS_OF - 6 * DAY, "late", got=AS_OF - 2 * DAY),
        event("a", AS_OF - 5 * DAY, "told ahead", got=AS_OF - 20 * DAY),
        event("b", AS_OF - 5 * DAY, "unseen customer", got=AS_OF),
    ]
    events += taught("early", "at", "after", "late", "told ahead", got=AS_OF - 70 * DAY)
    rows, summary = build(tmp_path, events, text)
    assert at_test(rows)["kind"] == ["early", "late", "told ahead"]
    assert {row["customer_key"] for row in rows} == {keys.customer_key(KEY, who) for who in ("a", "teacher")}
    assert summary["events"]["outside_windows"] == 3


@pytest.mark.parametrize(
    ("after", "days"),
    [(0 * DAY, 0.0), (7 * DAY - TICK, 7 - 1 / 86_400e6), (7 * DAY, 7.0), (30 * DAY, 30.0), (-TICK, None)],
)
def test_horizons_are_half_open_to_the_microsecond_and_start_after_the_gap(tmp_path, after, days):
    events = [event("a", AS_OF - DAY), event("a", AS_OF + 2 * DAY + after, "buy")]
    text = SPEC.replace("horizons_days", "gap_days: 2, horizons_days").replace(
        "2026-03-01, lookback", "2026-03-01, lookback"
    )
    row = at_test(build(tmp_path, events, text)[0])
    assert row["days_to_conversion"] == days
    assert days is None or (row["days_to_conversion"] < 7) == (after < 7 * DAY)
    assert row["observed_days"] == 92.0


def test_lookback_is_closed_at_its_start_and_the_last_events_stay(tmp_path):
    start = AS_OF - 90 * DAY
    edge = [event("a", start - TICK, "out"), event("a", start, "in")]
    assert at_test(build(tmp_path / "edge", edge)[0])["kind"] == ["in"]
    many = edge + [event("a", start + i * DAY, f"e{i}") for i in range(1, 7)]
    rows, summary = build(tmp_path / "many", many)
    assert at_test(rows)["kind"] == ["e3", "e4", "e5", "e6"]
    # e1 and e2 are features of 2026-01-01, or cut off; "out" is one there
    assert summary["events"]["used"] + summary["events"]["truncated"] == 8


def test_ties_go_by_order_then_by_what_is_known(tmp_path):
    text = SPEC.replace("time: ts", "time: ts, order: nr")
    tied = [("c", 2, 1.0), ("b", 9, 1.0), ("a", 10, 5.0), ("a", 10, None), ("d", None, 1.0)]
    events = [event("a", AS_OF - DAY, kind, amount, nr=nr) for kind, nr, amount in tied]
    expected, lesson = None, taught("a", "b", "c", "d", nr=0)
    for number, shuffled in enumerate(itertools.islice(itertools.permutations(events), 0, 120, 17)):
        row = at_test(
            build(tmp_path / str(number), [*shuffled, *lesson], text.replace("max_events: 4", "max_events: 9"))[0]
        )
        assert row["kind"] == ["d", "c", "b", "a", "a"]
        assert str(row["amount"]) == "[1.0, 1.0, 1.0, nan, 5.0]"
        assert expected is None or str(row) == expected
        expected = str(row)


def customers(count, *days):
    return [
        event(f"c{i}", AS_OF + d * DAY, random.Random(i + d).choice(["web", "buy"])) for i in range(count) for d in days
    ]


def test_splits_are_disjoint_in_time_and_in_held_out_customers(tmp_path):
    text = SPEC.replace("dates: [2026-01-01, 2026-03-01]", "first: 2026-01-01, last: 2026-03-29, every_days: 7")
    text = text.replace("eval_customers: 0.01", "eval_from: 2026-02-10, holdout_customers: 0.3").replace(
        "[7, 30]", "[3, 7]"
    )
    text = text.replace("primary_horizon: 30", "primary_horizon: 7")
    rows, summary = build(tmp_path, customers(60, -80, -30, -10, 5), text)
    parts = {part: [row for row in rows if row["split"] == part] for part in ("train", "eval", "test")}
    assert all(parts.values())
    longest = 7 * DAY
    assert max(row["as_of"] for row in parts["train"]) + longest <= dt.datetime(2026, 2, 10, tzinfo=UTC)
    assert min(row["as_of"] for row in parts["eval"]) >= dt.datetime(2026, 2, 10, tzinfo=UTC)
    assert max(row["as_of"] for row in parts["eval"]) + longest <= AS_OF
    assert min(row["as_of"] for row in parts["test"]) >= AS_OF
    held_out = {row["customer_key"] for row in rows if row["held_out"]}
    seen = {row["customer_key"] for row in parts["train"] + parts["eval"]}
    assert 8 <= len(held_out) <= 28 and not held_out & seen
    assert held_out <= {row["customer_key"] for row in parts["test"]}
    assert seen <= {row["customer_key"] for row in parts["test"]}
    assert summary["journeys"]["dropped"]["embargo"] and summary["journeys"]["dropped"]["held_out"]
    journeys = summary["journeys"]
    assert sum(journeys["kept"].values()) + sum(journeys["dropped"].values()) == journeys["considered"]
    assert sum(journeys["kept"].values()) == len(rows)


def test_a_new_key_moves_nobody(tmp_path):
    text = SPEC.replace("eval_customers: 0.01", "eval_customers: 0.4, holdout_customers: 0.3")
    by_key = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(customers(30, -80, -5)), folder / "e.parquet")
        (folder / "o").mkdir()
        key = bytes([number]) * 32
        build_journeys(parse_spec(text), str(folder / "e.parquet"), folder / "o", key, progress=False)
        rows = pq.read_table(next(iter((folder / "o").glob("part*")))).to_pylist()
        ids = {keys.customer_key(key, f"c{i}"): f"c{i}" for i in range(30)}
        by_key.append(sorted((ids[r["customer_key"]], r["as_of"], r["split"], r["held_out"]) for r in rows))
    assert by_key[0] == by_key[1]


def test_keys_are_hmacs_of_id_and_as_of(tmp_path):
    rows, _ = build(tmp_path, [event("é 1", AS_OF - DAY)])
    row = at_test(rows, "é 1")
    micros = 1_772_323_200_000_000  # 2026-03-01
    assert row["journey_id"] == keys.customer_key(KEY, f"é 1\x1f{micros}")


def test_renamed_columns_of_every_type_and_no_customer_block(tmp_path):
    table = pa.table(
        {
            "Kunden `ID`": pa.array([7, 7, 7], pa.int32()),
            "select": pa.array([AS_OF - 2 * DAY, AS_OF - DAY, AS_OF + DAY], pa.timestamp("ns", "Asia/Tokyo")),
            "bekannt am": pa.array([dt.date(2026, 2, 27), dt.date(2026, 2, 28), dt.date(2026, 3, 2)]),
            "gekauft": pa.array([False, None, True]),
            "tag": pa.array([dt.date(2026, 2, 1), None, dt.date(2026, 2, 3)]),
            "preis": pa.array([Decimal("0.10"), Decimal("12.34"), None], pa.decimal128(20, 2)),
            "mobil": pa.array([True, None, False]),
        }
    )
    text = """
    events:     {table: x, customer: Kunden `ID`, time: select, available: bekannt am}
    sequence:   {categorical: [gekauft, tag], numeric: [preis, {column: mobil, max: 1}], max_events: 8}
    conversion:
      where: "gekauft AND `tag` > '2026-02-02' AND `bekannt am` >= DATE '2026-03-02'"
      horizons_days: [7]
      primary_horizon: 7
    snapshots:  {dates: [2026-01-01, 2026-03-01], lookback_days: 90}
    data_until: 2026-06-01
    split:      {eval_customers: 0.01, test_from: 2026-03-01}
    privacy:    {min_customers: 1}
    """.replace("Kunden `ID`,", '"Kunden `ID`",')
    rows, _ = build(tmp_path, table, text)
    (row,) = rows
    rare = "__rare__"  # nobody has a train journey, so no value is known but the missing one
    assert (row["gekauft"], row["tag"]) == ([rare, ""], [rare, ""])
    assert row["preis"] == [0.1, 12.34]
    assert str(row["mobil"]) == "[1.0, nan]"
    assert row["days_to_conversion"] == 1.0
    assert row["customer_key"] == keys.customer_key(KEY, "7")


def test_values_of_too_few_train_customers_are_rare_and_missing_stays(tmp_path):
    train_day = dt.datetime(2025, 12, 20, tzinfo=UTC)
    events = [event("a", train_day, "two"), event("b", train_day, "two"), event("a", train_day + TICK, "one")]
    events += [event("a", AS_OF - DAY, kind) for kind in ("one", "two", None, "never in train")]
    rows, _ = build(tmp_path, events, SPEC.replace("min_customers: 1", "min_customers: 2"))
    assert sorted(at_test(rows)["kind"]) == ["", "__rare__", "__rare__", "two"]


def test_a_value_counts_from_the_first_train_lookback_to_the_last_train_as_of(tmp_path):
    train = dt.datetime(2026, 1, 1, tzinfo=UTC)
    events = [event("t", train - 90 * DAY, "at start"), event("t", train - 90 * DAY - TICK, "too old")]
    events += [event("t", train - TICK, "at end"), event("t", train, "too new")]
    events += [event("a", AS_OF - DAY, kind) for kind in ("at start", "too old", "at end", "too new")]
    assert sorted(at_test(build(tmp_path, events)[0])["kind"]) == ["__rare__", "__rare__", "at end", "at start"]


def test_only_negatives_known_for_the_longest_horizon_are_thinned(tmp_path):
    train = dt.datetime(2026, 1, 1, tzinfo=UTC)
    conversions = {"in time": 30 * DAY - TICK, "too late": 30 * DAY, "at once": 0 * DAY}
    events = [event(who, train - DAY) for who in (*conversions, "never")]
    events += [event(who, train + after, "buy") for who, after in conversions.items()]
    rows, summary = build(tmp_path, events, SPEC + "sampling: {negative_rate: 0.000001}")
    kept = {row["customer_key"] for row in rows if row["split"] == "train"}
    assert kept == {keys.customer_key(KEY, who) for who in ("in time", "at once")}
    assert summary["journeys"]["dropped"] == {"sampled_out": 2}
    assert sum(row["split"] == "test" for row in rows) == 4


def test_rows_set_aside_are_counted_masked_and_located(tmp_path):
    text = SPEC.replace("numeric: [amount]", "numeric: [{column: amount, min: 0, max: 100}]")
    stamp = "2026-02-20 10:00:00"
    good = [event("Ann", stamp, amount="5") for _ in range(3)]
    bad = [
        event(None, stamp, amount="5"),
        event("Ann", None, amount="5"),
        event("Ann", "Tue 3 Feb", amount="5"),
        event("Ann", "1821-01-01", amount="5"),
        event("Ann", stamp, amount="7,50 EUR"),
        event("Ann", stamp, amount="-inf"),
        event("Ann", stamp, amount="-3"),
        event("Ann", stamp, amount="101"),
    ]
    rows, summary = build(tmp_path, good + bad, text, max_bad_rows=0.8)
    assert summary["events"]["set_aside"] == {
        "null customer": 1,
        "null time": 1,
        "unparsable time": 1,
        "absurd time": 1,
        "unparsable number": 1,
        "infinite or absurd number": 1,
        "number out of bounds": 2,
    }
    assert summary["events"]["duplicate"] == 2
    assert at_test(rows, "Ann")["amount"] == [5.0]
    aside = pq.read_table(tmp_path / "output/set_aside.parquet").to_pylist()
    assert [(row["source_row"], row["field"], row["value"], row["customer"]) for row in aside] == [
        (4, "who", "", ""),
        (5, "ts", "", "***"),
        (6, "ts", "xxx 9 xxx", "***"),
        (7, "ts", "9999-99-99", "***"),
        (8, "amount", "9,99 xxx", "***"),
        (9, "amount", "-xxx", "***"),
        (10, "amount", "-9", "***"),
        (11, "amount", "999", "***"),
    ]


def test_too_many_bad_rows_are_an_error_and_leave_those_rows_alone(tmp_path):
    events = [event("Ann", AS_OF - DAY, amount=float("inf"))] + [event("Ann", AS_OF - i * DAY) for i in range(2, 51)]
    with pytest.raises(UserError) as caught:
        build(tmp_path, events)
    assert str(caught.value) == (
        f"{tmp_path}/events.parquet: 1 of 50 rows (2.0%) cannot be used: 1 infinite or absurd number (amount); "
        "expected at most 1.0%"
    )
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["events.parquet", "output", "set_aside.parquet"]


def test_no_raw_id_leaves(tmp_path, caplog):
    caplog.set_level("DEBUG")
    events = [event("Secret-Ann", AS_OF - i * DAY) for i in range(1, 9)] + [event("Secret-Ann", None)]
    build(tmp_path, events, max_bad_rows=0.2)
    files = [p for p in (tmp_path / "output").iterdir() if p.is_file()]
    assert len(files) == 3
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = repr(pq.read_table(path).to_pylist()).encode()
        assert b"Secret" not in content
    assert "Secret" not in caplog.text


def test_a_prediction_sees_all_of_the_table_and_needs_no_split(tmp_path):
    when = dt.datetime(2026, 7, 1, tzinfo=UTC)  # after data_until
    events = [event("a", when - DAY, "only here"), event("a", when, "buy"), event("b", when - 300 * DAY)]
    text = SPEC.replace("min_customers: 1", "min_customers: 20").replace(
        "eval_customers: 0.01", "eval_customers: 0.01, holdout_customers: 0.9"
    )
    rows, summary = build(tmp_path, events, text, predict_as_of=when)
    assert [(row["split"], row["held_out"], row["observed_days"], row["days_to_conversion"]) for row in rows] == [
        ("predict", False, 0.0, None)
    ] * 2
    assert sorted(row["kind"] for row in rows) == [[], ["only here"]]
    assert summary["journeys"] == {"considered": 2, "kept": {"predict": 2}, "dropped": {}}


EXPOSED = SPEC.replace("categorical: [kind]", "categorical: [kind, colour]").replace(
    "dates: [2026-01-01, 2026-03-01]", "at: kind = 'sent', context: [camp, colour]"
)


def test_a_journey_for_each_event_that_asks_with_its_context(tmp_path):
    text = EXPOSED.replace("kind = 'buy'", "kind = 'buy' AND camp = context.camp")

    def of(camp, day, kind, colour=None):
        return event("a", AS_OF + day * DAY, kind, camp=camp, colour=colour)

    events = [of("x", 0, "sent", "red"), of("y", 0, "sent", "red"), of("x", 0, "sent", "red"), of("y", 3, "buy")]
    events += [of("x", -2, "sent", "blue"), of("x", 40, "buy"), of(None, 1, "sent", None), of(None, 2, "buy")]
    rows, summary = build(tmp_path, [dict(e, amount=float(i)) for i, e in enumerate(events)], text)
    micros = 1_772_323_200_000_000
    by_id = {row["journey_id"]: row for row in rows}
    at_x, at_y = (by_id[keys.customer_key(KEY, f"a\x1f{micros}\x1f{camp}\x1fred")] for camp in "xy")
    assert (at_x["days_to_conversion"], at_y["days_to_conversion"]) == (40.0, 3.0)
    assert at_x["kind"] == at_y["kind"] and len(at_x["kind"]) == 1
    nameless = by_id[keys.customer_key(KEY, f"a\x1f{micros + 86_400_000_000}\x1f\x1f")]
    assert nameless["days_to_conversion"] is None and nameless["context_colour"] == ""
    assert summary["journeys"]["considered"] == len(rows) + sum(summary["journeys"]["dropped"].values()) == 4
    assert summary["events"]["duplicate"] == 0


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(OSError) as caught, engine.opened(tmp_path):
        raise duckdb.IOException('Could not write file "x": No space left on device')
    assert caught.value.errno == errno.ENOSPC
