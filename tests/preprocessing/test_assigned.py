"""Journeys at assignments, each promise by hand on a table small enough to read. test_reference.py has the rest."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import keys
from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec

KEY = bytes(range(32))
DAY = dt.timedelta(days=1)
TICK = dt.timedelta(microseconds=1)
MAIL = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)  # 30 days before eval begins, and not a snapshot
SPEC = """
events:     {table: events, customer: who, time: ts}
sequence:   {categorical: [kind], max_events: 4}
conversion: {where: "kind = 'buy'", horizons_days: [7, 30], primary_horizon: 30}
snapshots:  {dates: [2026-01-01, 2026-02-15, 2026-04-01], lookback_days: 90}
data_until: 2026-06-01
split:      {eval_from: 2026-02-09, test_from: 2026-03-20}
privacy:    {min_customers: 1}
campaigns:  {assignments: {table: lots, customer: who, campaign: camp, time: at, treated: treated}}
"""
ONLY = SPEC.replace("dates: [2026-01-01, 2026-02-15, 2026-04-01]", "assignments: true")


def event(who, ts, kind="web"):
    return {"who": who, "ts": ts, "kind": kind}


def lot(who, treated, at=MAIL, camp="spring"):
    return {"who": who, "camp": camp, "at": at, "treated": treated}


def build(folder, events, lots, text=SPEC, **options):
    """The journeys at assignments, and the summary."""
    folder.mkdir(exist_ok=True)
    output = folder / "output"
    output.mkdir()
    pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")
    pq.write_table(pa.Table.from_pylist(lots), folder / "lots.parquet")
    source = str(folder / "events.parquet")
    summary = build_journeys(parse_spec(text), source, output, KEY, progress=False, **options)
    rows = pq.ParquetDataset(sorted(output.glob("part-*.parquet"))).read().to_pylist()
    return [row for row in rows if row["treated"] >= 0], summary, rows


def of(rows, who):
    return [row for row in rows if row["customer_key"] == keys.customer_key(KEY, who)]


def test_a_journey_an_assignment_treated_and_held_out_alike(tmp_path):
    events = [event("a", MAIL - DAY), event("a", MAIL + 3 * DAY, "buy"), event("a", MAIL - 12 * DAY, "buy")]
    at, _, every = build(tmp_path, events, [lot("a", True), lot("b", False)])
    (treated,), (held_out,) = of(at, "a"), of(at, "b")
    assert treated["as_of"] == held_out["as_of"] == MAIL
    assert (treated["asked_campaign"], treated["assigned_campaign"], treated["treated"]) == ("spring", "spring", 1)
    assert (held_out["asked_campaign"], held_out["assigned_campaign"], held_out["treated"]) == ("", "spring", 0)
    assert treated["kind"] == ["buy", "web"] and held_out["kind"] == []  # nobody need have an event before it
    assert (treated["days_to_conversion"], treated["days_since_conversion"]) == (3.0, 12.0)
    assert (held_out["days_to_conversion"], held_out["days_since_conversion"]) == (None, None)
    snapshots = [row for row in every if row["treated"] < 0]
    assert {(row["asked_campaign"], row["assigned_campaign"]) for row in snapshots} == {("", "")}
    assert [row["split"] for row in snapshots] == ["train", "eval", "test"]


def test_nothing_at_or_after_the_assignment_is_a_feature(tmp_path):
    past = [event("a", MAIL - TICK)]
    future = [event("a", MAIL, "buy"), event("a", MAIL + TICK, "mail"), event("a", MAIL + DAY, "web")]
    (before,), (after,) = (build(tmp_path / str(len(e)), e, [lot("a", True)])[0] for e in (past, past + future))
    labels = ("days_to_conversion",)
    assert before["kind"] == ["web"]
    assert {k: v for k, v in before.items() if k not in labels} == {k: v for k, v in after.items() if k not in labels}
    assert after["days_to_conversion"] == 0.0 and after["days_since_conversion"] is None


def test_two_campaigns_at_one_instant_are_two_journeys_with_ids_of_their_own(tmp_path):
    lots = [lot("a", True), lot("a", False, camp="autumn"), lot("a", True, camp="autumn", at=MAIL + TICK)]
    at, _, _ = build(tmp_path, [event("a", MAIL - DAY)], lots)
    micros = 1_768_003_200_000_000  # 2026-01-10
    assert {row["journey_id"] for row in at} == {
        keys.customer_key(KEY, f"a\x1f{micros}\x1fspring"),
        keys.customer_key(KEY, f"a\x1f{micros}\x1fautumn"),
        keys.customer_key(KEY, f"a\x1f{micros + 1}\x1fautumn"),
    }


@pytest.mark.parametrize(
    ("at", "beside", "alone"),
    [
        (dt.datetime(2026, 1, 10, tzinfo=dt.UTC), "assigned_train", "train"),  # its 30 days end where eval begins
        (dt.datetime(2026, 1, 10, tzinfo=dt.UTC) + TICK, "assigned", "assigned"),  # the embargo
        (dt.datetime(2026, 2, 9, tzinfo=dt.UTC), "assigned", "eval"),
        (dt.datetime(2026, 2, 18, tzinfo=dt.UTC), "assigned", "eval"),
        (dt.datetime(2026, 2, 18, tzinfo=dt.UTC) + TICK, "assigned", "assigned"),
        (dt.datetime(2026, 3, 20, tzinfo=dt.UTC), "assigned", "test"),
        (dt.datetime(2026, 5, 25, tzinfo=dt.UTC), "assigned", "test"),  # seven days are observed
        (dt.datetime(2026, 5, 26, tzinfo=dt.UTC), "assigned", "assigned"),
        (dt.datetime(2026, 6, 1, tzinfo=dt.UTC), "assigned", "assigned"),
        (dt.datetime(2026, 6, 1, tzinfo=dt.UTC) + TICK, None, None),  # after data_until
    ],
)
def test_where_an_assignment_belongs(tmp_path, at, beside, alone):
    for text, expected in ((SPEC, beside), (ONLY, alone)):
        rows, summary, _ = build(tmp_path / str(len(text)), [event("a", MAIL - DAY)], [lot("a", True, at=at)], text)
        assert [row["split"] for row in rows] == ([expected] if expected else [])
        assert summary["journeys"]["dropped"].get("unobserved", 0) == (expected is None)


def test_held_out_customers_train_nothing_and_are_the_test_where_no_time_is(tmp_path):
    lots = [lot(f"c{i}", i % 2 == 0) for i in range(60)]
    events = [event("c0", MAIL - DAY)]
    text = SPEC.replace("test_from: 2026-03-20", "test_from: 2026-03-20, holdout_customers: 0.3")
    rows, _, _ = build(tmp_path / "grid", events, lots, text)
    held_out = {row["customer_key"] for row in rows if row["held_out"]}
    assert 8 <= len(held_out) <= 28
    assert {row["split"] for row in rows if row["held_out"]} == {"assigned"}
    assert {row["split"] for row in rows if not row["held_out"]} == {"assigned_train"}
    text = ONLY.replace("eval_from: 2026-02-09, test_from: 2026-03-20", "eval_customers: 0.3, holdout_customers: 0.3")
    rows, summary, _ = build(tmp_path / "only", events, lots, text)
    assert {row["customer_key"] for row in rows if row["split"] == "test"} == held_out
    assert {row["split"] for row in rows if not row["held_out"]} == {"train", "eval"}
    assert sum(summary["journeys"]["kept"].values()) == 60


def test_no_assignment_is_thinned_but_known_negatives_weigh_less(tmp_path):
    events = [event("late", MAIL + 30 * DAY, "buy"), event("buys", MAIL + 30 * DAY - TICK, "buy")]
    lots = [lot("never", True), lot("late", False), lot("buys", True), lot("later", True, at=MAIL + 60 * DAY)]
    rows, summary, _ = build(tmp_path, events, lots, SPEC + "sampling: {negative_rate: 0.000001}")
    weights = {who: of(rows, who)[0]["weight"] for who in ("never", "late", "buys", "later")}
    assert weights == {"never": 0.000001, "late": 0.000001, "buys": 1.0, "later": 1.0}
    assert summary["journeys"]["kept"]["assigned_train"] == 3


def test_rows_of_assignments_that_say_nothing_are_set_aside_and_all_are_counted(tmp_path):
    text = [lot("a", "1"), lot("a", "1"), lot("b", " TRUE "), lot("c", "false"), lot("c", "0"), lot("c", "1", camp="x")]
    text += [lot(None, "1"), lot("d", "1", camp=None), lot("d", "1", camp=""), lot("d", None), lot("d", "yes")]
    text += [lot("e", "1"), lot("e", "0"), lot("e", "0")]
    lots = [row | {"at": str(row["at"])} for row in text] + [
        lot("f", "1") | {"at": at} for at in (None, "soon", "1066")
    ]
    rows, summary, _ = build(tmp_path, [event("a", MAIL - DAY)], lots, max_bad_rows=1.0)
    assert summary["tables"]["assignments"] == {
        "read": 17,
        "used": 4,
        "duplicate": 2,
        "set_aside": {
            "contradictory treated": 3,
            "null campaign": 2,
            "null customer": 1,
            "null time": 1,
            "null treated": 1,
            "unparsable time": 2,
            "unreadable treated": 1,
        },
    }
    assert len(rows) == 4
    aside = pq.read_table(tmp_path / "output/set_aside.parquet").to_pylist()
    assert {row["source"] for row in aside} == {"assignments"}
    assert {row["field"] for row in aside if row["reason"] == "contradictory treated"} == {"treated"}
    with pytest.raises(
        UserError, match=r"lots.parquet: 11 of 17 rows \(64.7%\) cannot be used: 3 contradictory treated"
    ):
        build(tmp_path / "strict", [event("a", MAIL - DAY)], lots)


def test_a_prediction_reads_no_assignments_and_asks_about_no_campaign(tmp_path):
    (tmp_path / "output").mkdir()
    pq.write_table(pa.Table.from_pylist([event("a", MAIL - DAY)]), tmp_path / "events.parquet")
    source = str(tmp_path / "events.parquet")
    build_journeys(parse_spec(ONLY), source, tmp_path / "output", KEY, predict_as_of=MAIL, progress=False)
    (row,) = pq.read_table(next((tmp_path / "output").glob("part-*"))).to_pylist()
    assert (row["asked_campaign"], row["assigned_campaign"], row["treated"]) == ("", "", -1)
    assert row["kind"] == ["web"]


def test_a_missing_table_or_column_of_assignments_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"campaigns.assignments.table: no such table; expected lost with one of"):
        build(tmp_path / "a", [event("a", MAIL)], [lot("a", True)], SPEC.replace("table: lots", "table: lost"))
    with pytest.raises(UserError, match=r"campaigns.assignments.treated: no column 'treat'; did you mean 'treated'"):
        build(tmp_path / "b", [event("a", MAIL)], [lot("a", True)], SPEC.replace("treated: treated", "treated: treat"))
    with pytest.raises(UserError, match=r"column 'treated' is FLOAT64; expected BOOL or INT64 or STRING"):
        build(tmp_path / "c", [event("a", MAIL)], [lot("a", 0.5)])


def test_a_campaign_that_too_few_were_treated_by_is_rare_where_it_is_asked_and_plain_where_it_rides_along(tmp_path):
    lots = [lot("a", True), lot("b", True), lot("b", True, camp="x"), lot("c", False, camp="x")]
    rows, _, _ = build(tmp_path, [event("a", MAIL)], lots, SPEC.replace("min_customers: 1", "min_customers: 2"))
    asked = sorted((row["assigned_campaign"], row["treated"], row["asked_campaign"]) for row in rows)
    assert asked == [("spring", 1, "spring"), ("spring", 1, "spring"), ("x", 0, ""), ("x", 1, "__rare__")]


def test_a_share_of_the_assignments_becomes_journeys_and_the_rest_is_counted(tmp_path):
    lots = [lot(f"c{i}", i % 2 == 0) for i in range(400)]
    shared = SPEC.replace("treated: treated}", "treated: treated, share: 0.25}")
    at, summary, _ = build(tmp_path, [event("c0", MAIL - DAY)], lots, text=shared)
    assert 60 < len(at) < 140
    assert summary["journeys"]["dropped"]["sampled_out"] == 400 - len(at)
    assert {row["treated"] for row in at} == {0, 1}
    again, _, _ = build(tmp_path / "again", [event("c0", MAIL - DAY)], lots[::-1], text=shared)
    assert {row["journey_id"] for row in again} == {row["journey_id"] for row in at}
