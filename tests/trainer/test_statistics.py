"""Statistics of journeys, worked out by hand on a handful of them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.spec import load_spec, parse_spec
from trainer import cells
from trainer.cells import Cells, Sample, Values
from trainer.statistics import journey_statistics

DAY_US = 86_400_000_000
INSTANT = pa.timestamp("us", "UTC")
SPEC = """
events: {table: events, customer: c, time: t}
sequence: {categorical: [type], numeric: [amount], max_events: 4}
customer: {table: customers, static: true, categorical: [segment]}
conversion: {where: "type = 'buy'", horizons_days: [7, 30], primary_horizon: 30}
snapshots: {dates: [2026-01-01, 2026-03-01, 2026-06-01], lookback_days: 90}
data_until: 2026-07-31
split: {eval_from: 2026-02-01, test_from: 2026-05-01}
"""
THINNED = SPEC + "sampling: {negative_rate: 0.1}\n"


def write(place, rows, part=0):
    """rows: (customer, split, types, amounts, days back of each event, segment, days to conversion)."""
    place.mkdir(exist_ok=True)
    now = 1000 * DAY_US
    table = pa.table(
        {
            "customer_key": [f"{row[0]:064x}"[::-1] for row in rows],
            "as_of": pa.array([now] * len(rows), INSTANT),
            "split": [row[1] for row in rows],
            "type": pa.array([row[2] for row in rows], pa.list_(pa.string())),
            "amount": pa.array([row[3] for row in rows], pa.list_(pa.float64())),
            "event_time": pa.array([[now - int(d * DAY_US) for d in row[4]] for row in rows], pa.list_(INSTANT)),
            "segment": [row[5] for row in rows],
            "days_to_conversion": pa.array([row[6] for row in rows], pa.float64()),
            "observed_days": [60.0] * len(rows),
        }
    )
    pq.write_table(table, place / f"part-{part:05d}-of-00002.parquet")
    return place


NAN = float("nan")
ROWS = [
    (1, "train", ["view", "buy"], [NAN, 5.0], [9, 0.5], "new", 3.0),
    (2, "train", ["view"], [NAN], [40], "new", None),
    (2, "train", [], [], [], "new", None),
    (3, "train", ["view", "odd", ""], [NAN, NAN, NAN], [3, 3, 3], "loyal", None),
    (4, "test", ["view"], [NAN], [3], "old", None),
]


def test_shares_lengths_and_recency_by_hand(tmp_path):
    found = journey_statistics(write(tmp_path, ROWS), "train", parse_spec(SPEC), 1)
    assert (found["journeys"], found["customers"]) == (4, 3)
    kind = found["fields"]["type"]
    assert kind["values"] == ["view", "buy", "odd"]  # 3, 1 and 1 of 6; equally frequent ones by name
    assert kind["shares"] == pytest.approx([3 / 6, 1 / 6, 1 / 6])
    assert (kind["missing"], kind["other"], kind["of"]) == (pytest.approx(1 / 6), 0, "events")
    segment = found["fields"]["segment"]
    assert dict(zip(segment["values"], segment["shares"], strict=True)) == {"new": 0.75, "loyal": 0.25}
    assert found["fields"]["amount"]["missing"] == pytest.approx(5 / 6)
    assert found["fields"]["amount"]["mean"] == 5.0
    assert found["length"]["edges"] == [1, 2, 3]
    assert found["length"]["shares"] == [0.25, 0.25, 0.25, 0.25]  # none, one, two, three events
    assert found["length"]["mean"] == 1.5
    # 0.5 days, 40 days, 3 days; the journey without an event has no recency
    shares = dict(zip(found["recency"]["edges"], found["recency"]["shares"], strict=False))
    assert shares == {1: 0.25, 2: 0, 4: 0.25, 7: 0, 14: 0, 30: 0, 60: 0.25, 90: 0, 180: 0, 365: 0}
    assert found["recency"]["missing"] == 0.25
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_value_of_few_customers_is_not_told(tmp_path):
    found = journey_statistics(write(tmp_path, ROWS), "train", parse_spec(SPEC), 2)
    assert found["fields"]["type"]["values"] == ["view"]  # 3 customers; buy, odd and '' have one each
    assert found["fields"]["type"]["shares"] == [pytest.approx(3 / 5)]
    assert found["fields"]["type"]["other"] == pytest.approx(2 / 5)  # buy and odd are of two customers together
    assert found["fields"]["type"]["missing"] == 0
    assert found["fields"]["segment"]["values"] == ["new"]
    assert found["fields"]["segment"]["other"] == 0  # one customer is loyal
    # none and one event: customer 2 alone, so two events (customer 1) join them; then three (customer 3) is left alone
    assert found["length"]["edges"] == []
    assert found["length"]["shares"] == [1.0]


def test_a_thinned_train_counts_as_the_population(tmp_path):
    """Three journeys known not to convert stand for ten each, the one that converts for itself: 31 in all."""
    spec = parse_spec(THINNED)
    found = journey_statistics(write(tmp_path, ROWS), "train", spec, 1)
    segment = found["fields"]["segment"]
    assert dict(zip(segment["values"], segment["shares"], strict=True)) == pytest.approx(
        {"new": 21 / 31, "loyal": 10 / 31}
    )
    assert found["length"]["shares"] == pytest.approx([10 / 31, 10 / 31, 1 / 31, 10 / 31])
    # only train is thinned
    assert journey_statistics(tmp_path, "test", spec, 1)["journeys"] == 1


def test_later_journeys_are_counted_in_the_references_cells(tmp_path):
    spec = parse_spec(SPEC)
    reference = journey_statistics(write(tmp_path / "a", ROWS), "train", spec, 1)
    later = [
        (7, "predict", ["buy", "app"], [1.0, 7.0], [100, 70], "new", None),
        (8, "predict", ["app", ""], [NAN, 5.0], [100, 70], "vip", None),
        (9, "predict", ["app", "__rare__"], [NAN, 5.0], [100, 70], "new", None),
    ]
    found = journey_statistics(write(tmp_path / "b", later), None, spec, 2, reference=reference)
    kind = found["fields"]["type"]
    assert kind["values"] == reference["fields"]["type"]["values"]
    assert kind["shares"] == pytest.approx([0, 1 / 6, 0])
    assert (kind["other"], kind["missing"]) == (pytest.approx(4 / 6), pytest.approx(1 / 6))
    assert kind["new"] == {"app": pytest.approx(3 / 6)}
    assert kind["few"] == [False, True, False]  # one customer bought; nobody viewed, which tells of nobody
    assert found["fields"]["segment"]["new"] == {}  # one customer is vip
    assert found["fields"]["segment"]["other_few"] is True
    # the reference's amount was 5 for every event: below, 5 itself, above
    assert found["fields"]["amount"]["shares"] == pytest.approx([1 / 6, 2 / 6, 1 / 6])
    assert found["recency"]["shares"][7] == 1  # 60 to 90 days


def test_parts_and_a_customer_in_both_are_one_table(tmp_path):
    spec = parse_spec(SPEC)
    whole = journey_statistics(write(tmp_path / "whole", ROWS), "train", spec, 2)
    write(tmp_path / "parts", ROWS[:2], 0)
    write(tmp_path / "parts", ROWS[2:], 1)
    assert journey_statistics(tmp_path / "parts", "train", spec, 2) == whole


def test_scores_are_counted_by_the_references_deciles(tmp_path):
    spec = parse_spec(SPEC)
    keys = [f"{i:064x}"[::-1] for i in range(100)]
    scores = pa.table({"customer_key": keys, "p_7d": np.arange(100) / 1000, "p_30d": np.arange(100) / 100})
    reference = journey_statistics(write(tmp_path, ROWS), "train", spec, 5, scores=scores)
    assert reference["scores"]["30"]["edges"] == pytest.approx(np.arange(1, 10) / 10 - 0.01)
    assert reference["scores"]["30"]["shares"] == pytest.approx([0.09, *[0.1] * 8, 0.11])
    assert reference["scores"]["30"]["mean"] == pytest.approx(0.495)
    higher = scores.set_column(2, "p_30d", pa.array(np.full(100, 0.995)))
    found = journey_statistics(tmp_path, "train", spec, 5, reference=reference, scores=higher)
    assert found["scores"]["30"]["shares"] == [0.0] * 9 + [1.0]
    assert found["scores"]["7"]["shares"] == pytest.approx(reference["scores"]["7"]["shares"])


def test_deciles_by_hand_and_a_frequent_value_of_its_own():
    sample = Sample()
    sample.add(np.array([5.0, 1, 2, 3, 4, 10, 9, 8, 7, 6, np.nan]), np.ones(11))
    assert sample.deciles().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    tied = Sample()
    tied.add(np.array([0.0] * 50 + [1.0, 2, 3, 4, 5] * 10), np.ones(100))
    assert tied.deciles().tolist() == [0, np.nextafter(0, 1), 1, 2, 3, 4]  # 0 is five of them
    heavy = Sample()
    heavy.add(np.array([1.0, 2.0]), np.array([9.5, 0.5]))
    assert heavy.deciles().tolist() == [1, np.nextafter(1, 2)]
    assert Sample().deciles().tolist() == []


def test_a_long_column_is_sampled_regularly(monkeypatch):
    monkeypatch.setattr(cells, "SAMPLED", 500)
    sample = Sample()
    for start in range(0, 100_000, 777):
        sample.add(np.arange(start, min(start + 777, 100_000)).astype(float), np.ones(min(777, 100_000 - start)))
    assert sample._kept <= 1000
    assert sample.deciles() == pytest.approx(np.arange(1, 10) * 10_000, abs=200)


def test_cells_of_few_customers_are_joined_with_a_neighbour():
    found = Cells(np.array([1.0, 2.0, 3.0]), 2)
    keys = np.array([11, 12, 13, 14], np.uint64)
    # cell 0: customers 0, 1; cell 1: customer 2; cell 2: nobody; cell 3: customer 3
    found.add(np.array([0.5, 0.5, 1.5, 3.5]), np.ones(4), np.arange(4), keys)
    told = found.told(made=True)
    assert told["edges"] == [1.0]
    assert told["shares"] == [0.5, 0.5]


def test_nothing_is_told_where_all_cells_together_have_too_few_customers():
    """Three customers hold a value, then 17 and 20 others have none; 20 are asked for."""
    found = Cells(np.array([1.0, 2.0]), 20)
    keys = np.arange(100, 137, dtype=np.uint64)
    found.add(np.array([0.5, 1.5, 2.5]), np.ones(3), np.arange(3), keys)
    assert found.told(made=True) == {"edges": [], "shares": [0.0], "missing": 0.0, "mean": None}
    found.add(np.full(17, np.nan), np.ones(17), np.arange(3, 20), keys)
    assert found.told(made=True) == {"edges": [], "shares": [0.0], "missing": 0.0, "mean": None}
    found.add(np.full(3, np.nan), np.ones(3), np.arange(20, 23), keys)
    assert found.told(made=True) == {"edges": [], "shares": [0.0], "missing": 1.0, "mean": None}
    found.add(np.full(17, 0.5), np.ones(17), np.arange(20, 37), keys)  # 20 customers hold a value
    told = found.told(made=True)
    assert (told["shares"], told["missing"], told["mean"]) == ([0.5], 0.5, pytest.approx((4.5 + 8.5) / 20))


def test_more_values_than_are_told_apart_are_others(monkeypatch):
    monkeypatch.setattr(cells, "MOST_VALUES", 3)
    values = Values(("a",), 1)
    values.add(pa.array(["a", "b", "c", "d", "e"]), np.ones(5), np.zeros(5, np.int64), np.array([1], np.uint64))
    told = values.told(made=False)
    assert told["new"] == {"b": 0.2, "c": 0.2, "d": 0.2}
    assert told["other"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("split", "drop", "message"),
    [
        ("eval", None, "no journey of split 'eval' here"),
        ("train", "amount", "no column 'amount'; expected the journeys"),
    ],
)
def test_mistakes_are_told(tmp_path, split, drop, message):
    place = write(tmp_path, ROWS)
    if drop:
        part = next(place.glob("*.parquet"))
        pq.write_table(pq.read_table(part).drop_columns([drop]), part)
    with pytest.raises(UserError, match=message):
        journey_statistics(place, split, parse_spec(SPEC), 1)


def test_a_real_runs_train_journeys_are_counted_whole(job):
    """The transform's own summary counts the same journeys and lengths."""
    spec = load_spec(job["run_dir"] / "transform/spec.yaml")
    found = journey_statistics(job["run_dir"] / "journeys", "train", spec, spec.privacy.min_customers)
    summary = json.loads((job["run_dir"] / "transform/summary.json").read_text())["splits"]["train"]
    assert found["journeys"] == summary["journeys"]
    assert found["length"]["mean"] == pytest.approx(summary["length"]["mean"])
    assert sum(found["fields"]["channel"]["shares"]) == pytest.approx(1)
    assert "email" in found["fields"]["channel"]["values"]
    assert found["fields"]["campaign"]["missing"] > 0.5
