"""Every transformed value of a tiny table, worked out by hand, through Beam's in-process runner."""

import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.spec import parse_spec

SPEC = """
events: {customer: customer_id, time: event_time}
sequence: {categorical: [event_type], numeric: [amount], max_events: 3}
customer: {static: true, categorical: [segment], numeric: [age]}
conversion: {where: "event_type = 'purchase'", horizons_days: [7, 30], primary_horizon: 30}
snapshots: {dates: [2026-01-05, 2026-02-05, 2026-03-10], lookback_days: 10}
data_until: 2026-04-30
split: {eval_from: 2026-02-05, test_from: 2026-03-10}
"""
AS_OF = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
NAN, INF = math.nan, math.inf


def journey(name, split, events, *, segment="a", age=30.0, days=None, observed=115.0):
    """`events`: (event_type, amount, seconds before as_of)."""
    return {
        "journey_id": name,
        "customer_key": f"c{name}",
        "as_of": AS_OF,
        "split": split,
        "held_out": False,
        "event_type": [e[0] for e in events],
        "amount": [e[1] for e in events],
        "event_time": [AS_OF - dt.timedelta(seconds=e[2]) for e in events],
        "segment": segment,
        "age": age,
        "days_to_conversion": days,
        "observed_days": observed,
        "weight": 1.0,
    }


SCHEMA = pa.schema(
    [
        ("journey_id", pa.string()),
        ("customer_key", pa.string()),
        ("as_of", pa.timestamp("us", "UTC")),
        ("split", pa.string()),
        ("held_out", pa.bool_()),
        ("event_type", pa.list_(pa.string())),
        ("amount", pa.list_(pa.float64())),
        ("event_time", pa.list_(pa.timestamp("us", "UTC"))),
        ("segment", pa.string()),
        ("age", pa.float64()),
        ("days_to_conversion", pa.float64()),
        ("observed_days", pa.float64()),
        ("weight", pa.float64()),
    ]
)
JOURNEYS = [
    # four events where three are kept; the oldest of all is before the lookback
    journey(
        "1",
        "train",
        [("view", 0.0, 11 * 86400), ("view", 0.0, 400), ("cart", 9.0, 300), ("view", NAN, 100), ("buy", -9.0, 99)],
        days=3.0,
    ),
    journey("2", "train", [("view", 99.0, 9)], segment="b", age=NAN),
    journey("3", "train", [], segment="", observed=20.0, days=12.0),
    journey("4", "eval", [("__rare__", 9.0, 9), ("", NAN, 9), ("unseen", 9.0, 0)], segment="z", age=60.0, days=7.0),
    journey("5", "test", [("buy", 9.0, 9)], days=30.0),
]


def transformed(base: Path) -> dict:
    from apache_beam.options.pipeline_options import PipelineOptions

    from preprocessing.pipeline import run_pipeline

    for name in ("records", "transform"):
        (base / name).mkdir()
    for i, rows in enumerate((JOURNEYS[:2], JOURNEYS[2:])):
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), base / f"part-{i}.parquet")
    return run_pipeline(
        [base / "part-0.parquet", base / "part-1.parquet"],
        parse_spec(SPEC),
        records_dir=base / "records",
        transform_dir=base / "transform",
        options=PipelineOptions(["--runner=FnApiRunner"]),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("pipeline")
    return base, transformed(base)


def examples(base: Path) -> dict[str, dict[str, np.ndarray]]:
    """journey_id -> every feature of its record."""
    import tensorflow as tf

    found = {}
    for path in sorted((base / "records").glob("*.tfrecord.gz")):
        for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP"):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            values = {
                name: np.array(getattr(feature, feature.WhichOneof("kind")).value) for name, feature in features.items()
            }
            found[values["journey_id"][0].decode()] = values | {"file": path.name}
    return found


def moments(values):
    values = np.asarray(values, float)
    return values.mean(), values.std()


def test_every_value_by_hand(run):
    base, _ = run
    records = examples(base)
    # Train holds: journey 1 cart 9, view missing, buy -9
    # (the first view is older than the lookback, the second is the fourth
    # from the end); journey 2 view 99. By frequency, then alphabetically falling as tf.Transform breaks ties.
    vocabulary = json.loads((base / "transform/features.json").read_text())["sequence"]["event_type"]["vocabulary"]
    assert vocabulary[0] == "view"
    assert sorted(vocabulary) == ["buy", "cart", "view"]
    ids = {value: i + 2 for i, value in enumerate(vocabulary)}
    first = records["1"]
    assert first["event_type"].tolist() == [ids["cart"], ids["view"], ids["buy"]]
    assert first["length"].tolist() == [3]

    log10, log100 = math.log(10.0), math.log(100.0)
    mean, sd = moments([log10, -log10, log100])
    np.testing.assert_allclose(first["amount"], [(log10 - mean) / sd, 0.0, (-log10 - mean) / sd], rtol=1e-5)
    assert first["amount_missing"].tolist() == [0.0, 1.0, 0.0]

    gaps = [0.0, math.log1p(200), math.log1p(1), 0.0]
    mean, sd = moments(gaps)
    np.testing.assert_allclose(first["log_gap"], [(g - mean) / sd for g in gaps[:3]], rtol=1e-5)
    mean, sd = moments([0, 200, 1, 0])
    np.testing.assert_allclose(first["linear_gap"], [(g - mean) / sd for g in (0, 200, 1)], rtol=1e-5)
    assert first["no_gap"].tolist() == [1.0, 0.0, 0.0]
    to_as_of = [math.log1p(300), math.log1p(100), math.log1p(99), math.log1p(9)]
    mean, sd = moments(to_as_of)
    np.testing.assert_allclose(first["log_to_as_of"], [(t - mean) / sd for t in to_as_of[:3]], rtol=1e-5)
    mean, sd = moments([300, 100, 99, 9])
    np.testing.assert_allclose(first["linear_to_as_of"], [(t - mean) / sd for t in (300, 100, 99)], rtol=1e-5)

    ages = [math.log1p(30), math.log1p(30)]
    np.testing.assert_allclose(first["age"], [0.0], atol=1e-6)
    assert ages[0] == ages[1]  # no spread in train: the scale is one, not a division by zero
    np.testing.assert_allclose(records["4"]["age"], [math.log1p(60) - math.log1p(30)], rtol=1e-5)
    assert records["2"]["age"].tolist() == [0.0]
    assert records["2"]["age_missing"].tolist() == [1.0]


@pytest.mark.slow
def test_the_same_journeys_give_the_same_records_byte_for_byte(run, tmp_path):
    transformed(tmp_path)
    files = sorted(path.name for path in (run[0] / "records").iterdir())
    assert len(files) == 3
    assert files == sorted(path.name for path in (tmp_path / "records").iterdir())
    for name in files:
        assert (run[0] / "records" / name).read_bytes() == (tmp_path / "records" / name).read_bytes(), name


def test_padding_and_empty_journeys(run):
    records = examples(run[0])
    second, third = records["2"], records["3"]
    assert second["length"].tolist() == [1]
    assert second["event_type"].tolist()[1:] == [0, 0]
    assert second["amount"].tolist()[1:] == [0.0, 0.0]
    assert second["log_gap"].tolist()[1:] == [0.0, 0.0]
    assert third["length"].tolist() == [0]
    for name in ("event_type", "amount", "amount_missing", *parse_spec(SPEC).time_features):
        assert third[name].tolist() == [0, 0, 0], name


def test_rare_missing_unseen_and_future(run):
    base, _ = run
    features = json.loads((base / "transform/features.json").read_text())
    fourth = examples(base)["4"]
    # '__rare__' is out of vocabulary; '' was never seen in train's events, so it is too; the event at as_of is gone
    assert fourth["event_type"].tolist() == [1, 1, 0]
    assert fourth["length"].tolist() == [2]
    segments = features["customer"]["segment"]["vocabulary"]
    assert sorted(segments) == ["__none__", "a", "b"]
    assert fourth["segment"].tolist() == [1]
    assert examples(base)["3"]["segment"].tolist() == [segments.index("__none__") + 2]
    assert features["customer"]["segment"]["size"] == 5


def test_labels_and_keys_ride_along(run):
    base, splits = run
    records = examples(base)
    assert [records[k]["days_to_conversion"].tolist() for k in "12345"] == [[3.0], [INF], [12.0], [7.0], [30.0]]
    assert records["3"]["observed_days"].tolist() == [20.0]
    assert records["1"]["as_of"].tolist() == [int(AS_OF.timestamp()) * 1_000_000]
    assert records["1"]["customer_key"].tolist() == [b"c1"]
    assert {k: r["file"].split("-")[0] for k, r in records.items()} == dict(
        zip("12345", ["train", "train", "train", "eval", "test"], strict=True)
    )
    # journey 3 is observed for 20 days: known at 7 (12 days: none), not known at 30; 30.0 days is not within [0, 30)
    assert splits["train"]["known"] == {"7": 3, "30": 2}
    assert splits["train"]["conversions"] == {"7": 1, "30": 1}
    assert splits["eval"]["conversions"] == {"7": 0, "30": 1}
    assert splits["test"]["conversions"] == {"7": 0, "30": 0}
    assert splits["train"]["length"]["histogram"] == [1, 1, 0, 1]
    assert splits["eval"]["out_of_vocabulary"] == {"event_type": 1.0, "segment": 1.0}
    assert splits["train"]["out_of_vocabulary"] == {"event_type": 0.0, "segment": 0.0}


def test_a_microsecond_before_the_edge_stays_before_it():
    from preprocessing.sources import to_batch

    microsecond = 1 / 86_400_000_000
    rows = [
        journey(str(i), "train", [], days=days) for i, days in enumerate([30 - microsecond, 30.0, 30 + microsecond])
    ]
    batch = to_batch(pa.Table.from_pylist(rows, schema=SCHEMA), parse_spec(SPEC))
    days = batch.column("days_to_conversion").flatten().to_numpy()
    assert days.dtype == np.float32
    assert (days < 30).tolist() == [True, False, False]


def test_labels_cannot_be_read_by_the_graph(run):
    import tensorflow as tf

    graph = tf.saved_model.load(str(run[0] / "transform/transform_fn"))
    names = {spec.name for spec in graph.signatures["serving_default"].structured_input_signature[1].values()}
    assert (
        len(names) == 2 * 3 + 3
    )  # three ragged fields as values and splits, as_of, segment, age: no label, key or split


def test_ready_made_journeys_hold_the_gaps_of_what_is_seen():
    import tensorflow as tf

    from preprocessing.features import _VisibleSteps

    spec = parse_spec(
        "journeys: {journey: s, label: y}\nevents: {journey: s, seconds: t, first: 3}\n"
        "sequence: {categorical: [page], max_events: 2}"
    )
    second = 1_000_000
    times = tf.ragged.constant([[0, 5 * second, 9 * second, 70 * second], []], dtype=tf.int64)
    steps = _VisibleSteps(times, tf.constant([71 * second, 1], tf.int64), spec)
    assert steps.pad(steps.seconds_since_previous()).numpy().tolist() == [[0.0, 4.0], [0.0, 0.0]]
    assert steps.lengths.numpy().tolist() == [2, 0]
    assert spec.time_features == ("log_gap", "linear_gap", "no_gap")  # nothing until an as_of that it has not


def test_unknown_beam_option_is_refused():
    from preprocessing.beam_options import beam_options

    with pytest.raises(UserError, match=r"--overwrit: no flag of preprocessing.task"):
        beam_options(["--overwrit"], "preprocessing.task")
    assert beam_options(["--direct_num_workers=2"], "preprocessing.task").get_all_options()["direct_num_workers"] == 2


def test_the_balance_is_one_line():
    from preprocessing.balance import line

    events = {"read": 14, "used": 6, "used_as_feature": 5, "used_as_conversion": 2, "truncated": 1, "ineligible": 0}
    events |= {"outside_windows": 3, "duplicate": 2, "set_aside": {"null time": 2, "null customer": 0}}
    assert line("events", events) == (
        "events read 14: used 6 (in features 5, as conversion 2), truncated 1, outside windows 3, duplicate 2, "
        "set aside 2 (null time)"
    )
