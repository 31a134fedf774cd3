"""Aggregates of journeys worked out by hand, and the proof that no label is among them."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from preprocessing.spec import DAY_US, parse_spec
from tests.trainer.synthetic_run import SPEC, make_run
from trainer.aggregates import CODED_VALUES, Aggregates, fit_aggregates
from trainer.baselines import recency_frequency_inputs
from trainer.outcomes import scan

AS_OF = 1_800_000_000_000_000
VALUES = {
    "event_type": ("view", "cart", "purchase"),
    "channel": ("web", "store"),
    "segment": ("b", "a"),
}


def batch(**changes):
    """Three journeys: one of three events, one without any, one of a single event."""
    ages = [[40.0, 10.0, 2.0], [], [7.0]]
    times = [[AS_OF - int(age * DAY_US) for age in one] for one in ages]
    columns = {
        "as_of": pa.array([AS_OF] * 3).cast(pa.timestamp("us", "UTC")),
        "event_time": pa.array(times, pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us", "UTC"))),
        "event_type": pa.array([["view", "cart", "view"], [], ["lunch"]], pa.list_(pa.string())),
        "channel": pa.array([["web", "store", "store"], [], ["web"]], pa.list_(pa.string())),
        "amount": pa.array([[5.0, float("nan"), 3.0], [], [float("nan")]], pa.list_(pa.float64())),
        "segment": pa.array(["a", "b", "nobody"]),
        "age": pa.array([33.0, float("nan"), 50.0]),
    }
    return pa.RecordBatch.from_pydict(columns | changes)


def aggregates_of(one):
    aggregates = Aggregates(parse_spec(SPEC), VALUES)
    return [dict(zip(aggregates.names, row, strict=True)) for row in aggregates.of(one).tolist()]


def test_a_journey_by_hand():
    full, empty, single = aggregates_of(batch())
    expected = {
        "journey:events": 3, "journey:recency_days": 2, "journey:span_days": 38, "journey:mean_gap_days": 19,
        "journey:events_7d": 1, "journey:events_30d": 2,
        "event_type=view:count": 2, "event_type=cart:count": 1, "event_type=purchase:count": 0,
        "event_type=view:recency_days": 2, "event_type=cart:recency_days": 10,
        "event_type=purchase:recency_days": np.nan, "event_type:last": 1,
        "channel=web:count": 1, "channel=store:count": 2, "channel=web:recency_days": 40,
        "channel=store:recency_days": 2, "channel:last": 2,
        "amount:sum": 8, "amount:mean": 4, "amount:last": 3, "amount:max": 5, "segment": 2, "age": 33,
    }  # fmt: skip
    assert full == pytest.approx(expected, nan_ok=True)
    assert single["journey:events_7d"] == 0  # at exactly seven days before, the window (as_of - 7 days, as_of) is over
    assert single["journey:recency_days"] == 7
    assert single["event_type:last"] == 0  # a value unknown in train
    assert np.isnan(single["journey:mean_gap_days"])
    assert np.isnan(single["amount:mean"])
    assert single["amount:sum"] == 0
    assert single["segment"] == 0
    none = ("journey:events", "journey:events_30d", "event_type=view:count", "amount:sum")
    assert [empty[name] for name in none] == [0, 0, 0, 0]
    nothing = ("journey:recency_days", "journey:span_days", "event_type=view:recency_days", "event_type:last")
    nothing += ("amount:last", "age")
    assert all(np.isnan(empty[name]) for name in nothing)
    assert empty["segment"] == 1


def test_a_column_may_be_called_as_an_aggregate_is():
    """Each has its own place, the customer's number under its own name."""
    built_in = ["events", "recency_days", "span_days", "mean_gap_days", "events_7d", "events_30d"]
    text = SPEC.replace("numeric: [age]", f"numeric: [age, {', '.join(built_in)}]")
    aggregates = Aggregates(parse_spec(text), VALUES)
    found = aggregates.of(batch(**{name: pa.array([100.0 + i] * 3) for i, name in enumerate(built_in)}))
    assert len(set(aggregates.names)) == len(aggregates.names) == found.shape[1]
    first = dict(zip(aggregates.names, found[0].tolist(), strict=True))
    assert [first[name] for name in built_in] == [100 + i for i in range(6)]
    assert [first[f"journey:{name}"] for name in built_in] == [3, 2, 38, 19, 1, 2]
    assert recency_frequency_inputs(aggregates, found)[0] == pytest.approx(np.log([3, 1, 4, 2, 3]))
    # nor has a field of events called journey, with a customer's field called last
    text = SPEC.replace("numeric: [amount]", "numeric: [journey]").replace("numeric: [age]", "numeric: [last]")
    names = Aggregates(parse_spec(text), VALUES).names
    assert len(set(names)) == len(names)


def test_codes_are_told_from_quantities():
    aggregates = Aggregates(parse_spec(SPEC), VALUES)
    codes = [name for name, code in zip(aggregates.names, aggregates.is_category, strict=True) if code]
    assert codes == ["event_type:last", "channel:last", "segment"]


def test_slices_of_a_batch_give_the_same_rows():
    aggregates = Aggregates(parse_spec(SPEC), VALUES)
    np.testing.assert_array_equal(aggregates.of(batch().slice(1)), aggregates.of(batch())[1:])


def test_frequent_values_come_from_train_alone_and_are_capped(tmp_path):
    run = make_run(tmp_path / "run", customers=40)
    for part in run.run_dir.journeys.iterdir():
        table = pq.read_table(part)
        novel = pc.if_else(pc.equal(table["split"], "train"), table["segment"], "novel")
        pq.write_table(table.set_column(table.column_names.index("segment"), "segment", novel), part)
    found = fit_aggregates(run.run_dir.journeys, run.spec)
    assert sorted(found.values["segment"]) == ["a", "b", "c"]
    counts: dict[str, int] = {}
    for one in scan(run.run_dir.journeys, "train", ("event_type",)):
        for journey in one["event_type"].to_pylist():
            for value in journey:
                counts[value] = counts.get(value, 0) + 1
    assert found.values["event_type"] == tuple(sorted(counts, key=lambda v: (-counts[v], v)))
    many = Aggregates(parse_spec(SPEC), VALUES | {"event_type": tuple(f"v{i:03}" for i in range(CODED_VALUES))})
    assert sum(name.startswith("event_type=") for name in many.names) == 60


def test_no_label_is_read_and_none_moves_an_aggregate(tmp_path):
    run = make_run(tmp_path / "run", customers=30)
    aggregates = fit_aggregates(run.run_dir.journeys, run.spec)
    labels = {"days_to_conversion", "observed_days", "weight", "split", "held_out", "journey_id", "customer_key"}
    assert not labels & set(aggregates.columns)
    one = next(scan(run.run_dir.journeys, "test", aggregates.columns))
    assert labels & set(one.schema.names) == {"split"}  # by which scan chose the rows
    assert aggregates.of(one).shape == (one.num_rows, len(aggregates.names))


def test_without_an_event_anywhere(tmp_path):
    nothing = pa.array([[], [], []], pa.list_(pa.float64()))
    words = nothing.cast(pa.list_(pa.string()))
    empty = batch(
        event_time=nothing.cast(pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("us", "UTC"))),
        event_type=words, channel=words, amount=nothing,
    )  # fmt: skip
    bare = dataclasses.replace(Aggregates(parse_spec(SPEC), VALUES), values=VALUES | {"event_type": ()})
    matrix = bare.of(empty)
    assert matrix[:, 0].tolist() == [0, 0, 0]
