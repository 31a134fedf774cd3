"""Parts of the test journeys: who is in which, what is told of each, what is held back."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from preprocessing.spec import DAY_US, parse_spec
from tests.trainer.synthetic_run import SPEC, make_run
from trainer.bootstrap import Slice
from trainer.metrics import Scores
from trainer.outcomes import read_outcomes
from trainer.slices import Partition, by_slice, earlier_conversion, partitions


def journeys(path, events, segments=None):
    """Test journeys written out: events: for each a list of (days before as_of, event type)."""
    as_of = 100 * DAY_US
    count = len(events)
    table = pa.table(
        {
            "journey_id": [f"j{i}" for i in range(count)],
            "customer_key": [f"c{i}" for i in range(count)],
            "as_of": pa.array([as_of] * count).cast(pa.timestamp("us", "UTC")),
            "split": ["test"] * count,
            "held_out": [False] * (count - 1) + [True],
            "event_type": pa.array([[kind for _, kind in one] for one in events], pa.list_(pa.string())),
            "channel": pa.array([["web"] * len(one) for one in events], pa.list_(pa.string())),
            "amount": pa.array([[1.0] * len(one) for one in events], pa.list_(pa.float64())),
            "event_time": pa.array(
                [[as_of - int(day * DAY_US) for day, _ in one] for one in events], pa.list_(pa.int64())
            ).cast(pa.list_(pa.timestamp("us", "UTC"))),
            "segment": segments or ["a"] * count,
            "age": [40.0] * count,
            "days_to_conversion": pa.array([None] * count, pa.float64()),
            "observed_days": [60.0] * count,
        }
    )
    path.mkdir(exist_ok=True)
    pq.write_table(table, path / "part-00000.parquet", row_group_size=2)
    return read_outcomes(path, "test")


def named(found):
    """{partition: the label of each journey}."""
    return {one.name: [one.labels[i] for i in one.part] for one in found}


def test_who_is_in_which_part(tmp_path):
    events = [
        [(50, "purchase"), (3, "view")],
        [(20, "view"), (2, "view")],
        [],
        [(1, "cart")],
        [(29.9 - i / 10, "view") for i in range(40)],  # as many as max_events: it may have begun earlier
    ]
    outcomes = journeys(tmp_path / "j", events, ["a", "b", "", "b", "__rare__"])
    notes = []
    found = named(partitions(tmp_path / "j", parse_spec(SPEC), outcomes, "test", notes))
    assert found["event_type of the last event"] == ["view", "view", "no events", "cart", "view"]
    assert found["segment"] == ["a", "b", "missing", "b", "rare values"]
    assert found["events"] == ["2 to 4", "2 to 4", "none", "1", "20 to 49"]
    assert found["earlier conversion in the journey"] == ["one or more (returning)"] + ["none (new)"] * 4
    new, old = "within 30 days (new)", "earlier (returning)"
    assert found["first visible event"] == [old, new, "no events", new, "cut at max_events"]
    assert found["customers"] == ["seen in training"] * 4 + ["held out"]
    assert notes == []


def test_journeys_come_in_the_order_of_the_predictions(tmp_path):
    outcomes = journeys(tmp_path / "j", [[(1, "a")], [(1, "b")], [(1, "c")]])
    shuffled = outcomes.take(np.array([2, 0]))
    found = named(partitions(tmp_path / "j", parse_spec(SPEC), shuffled, "test", []))
    assert found["event_type of the last event"] == ["c", "a"]


def test_the_eighth_most_frequent_value_is_the_last_with_a_slice(tmp_path):
    kinds = [f"k{i}" for i in range(10) for _ in range(12 - i)]
    outcomes = journeys(tmp_path / "j", [[(1, kind)] for kind in kinds])
    found = named(partitions(tmp_path / "j", parse_spec(SPEC), outcomes, "test", []))
    expected = [kind if kind < "k8" else "other" for kind in kinds]
    assert found["event_type of the last event"] == expected


def test_a_field_of_many_values_parts_nobody_and_it_is_said(tmp_path):
    outcomes = journeys(tmp_path / "j", [[(1, f"k{i}")] for i in range(51)])
    notes = []
    found = named(partitions(tmp_path / "j", parse_spec(SPEC), outcomes, "test", notes))
    assert "event_type of the last event" not in found
    assert notes == ["No slices by event_type: it has 51 values, more than 50."]


def test_an_earlier_conversion_is_seen_only_where_the_spec_is_one_equality():
    def asked(where):
        return earlier_conversion(parse_spec(SPEC.replace("event_type = 'purchase'", where)))

    assert asked("event_type = 'purchase'") == ("event_type", "purchase")
    assert asked("event_type='it''s'") == ("event_type", "it's")
    assert asked("event_type = 'purchase' AND amount > 0") is None
    assert asked("status = 'paid'") is None  # a column that the journey does not hold
    assert asked("event_type IN ('purchase')") is None


def test_a_slices_figures_are_those_of_its_journeys(tmp_path):
    rng = np.random.default_rng(0)
    probability, other = rng.uniform(0.05, 0.6, 400), rng.uniform(0.05, 0.6, 400)
    converted = rng.random(400) < probability
    rows = np.arange(50, 450)  # of a longer table
    part = np.full(500, 1)
    part[60:260] = 0
    whole = Slice(rows, {"lstm": Scores(converted, probability), "constant": Scores(converted, other)})
    (first, second) = by_slice(
        whole, [Partition("p", ("x", "y"), part)], "constant",
        customer=np.arange(500) // 2, smallest=20, draws=40, seed=1,
    )  # fmt: skip
    here = slice(10, 210)
    assert (first["by"], first["slice"], first["journeys"], first["customers"]) == ("p", "x", 200, 100)
    assert first["conversions"] == converted[here].sum()
    assert first["lstm"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(converted[here], probability[here]), 1e-5)
    gap = log_loss(converted[here], probability[here]) - log_loss(converted[here], other[here])
    found = first["difference"]["log_loss"]
    assert found["value"] == pytest.approx(gap, rel=1e-4)
    assert found["low"] < gap < found["high"]
    assert first["lstm"]["roc_auc"]["low"] < first["lstm"]["roc_auc"]["value"] < first["lstm"]["roc_auc"]["high"]
    assert second["journeys"] == 200


def test_a_slice_of_few_customers_is_held_back():
    scores = Scores(np.arange(40) % 3 == 0, np.linspace(0.1, 0.9, 40))
    part = Partition("p", ("few", "many"), (np.arange(40) >= 19).astype(np.int64))
    few, many = by_slice(
        Slice(np.arange(40), {"lstm": scores}), [part], None, customer=np.arange(40), smallest=20, draws=5, seed=1
    )
    assert few == {"by": "p", "slice": "few", "suppressed": "fewer than 20 customers"}
    assert many["suppressed"] is None
    assert many["journeys"] == 21
    assert "difference" not in many


def test_slices_of_a_run_add_up(tmp_path):
    run = make_run(tmp_path / "run", customers=60)
    outcomes = read_outcomes(run.run_dir.journeys, "test")
    found = partitions(run.run_dir.journeys, run.spec, outcomes, "test", [])
    assert {one.name for one in found} >= {
        "channel of the last event",
        "segment",
        "earlier conversion in the journey",
        "first visible event",
    }
    assert all(len(one.part) == len(outcomes) and one.part.max() < len(one.labels) for one in found)
    ready = dataclasses.replace(outcomes, held_out=np.zeros(len(outcomes), dtype=bool))
    assert "customers" not in named(partitions(run.run_dir.journeys, run.spec, ready, "test", []))
    assert pc.count_distinct(outcomes.journey_id).as_py() == len(outcomes)
