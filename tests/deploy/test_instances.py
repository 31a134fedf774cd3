"""Journeys of different lengths as padded arrays, by hand."""

import datetime as dt
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.instances import from_instances, to_instances
from preprocessing.padded import padded
from tests.fuzzing import tried

FIELDS = {
    "sequence": {"event_type": "categorical", "amount": "numeric"},
    "customer": {"segment": "categorical", "age": "numeric"},
}


def at(seconds):
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)


def batch(rows):
    schema = pa.schema(
        [
            ("journey_id", pa.string()),
            ("as_of", pa.timestamp("us", "UTC")),
            ("event_time", pa.list_(pa.timestamp("us", "UTC"))),
            ("event_type", pa.list_(pa.string())),
            ("amount", pa.list_(pa.float64())),
            ("segment", pa.string()),
            ("age", pa.float64()),
        ]
    )
    names = schema.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


ROWS = [
    ("j1", at(9), [at(1), at(2)], ["view", "é"], [1.5, math.nan], "a", 30.0),
    ("j2", at(9), [], [], [], "", math.nan),
    ("j3", at(9), [at(3)], ["buy"], [-2.0], "b", 40.0),
]


def check(arrays):
    assert arrays["key"].tolist() == [b"j1", b"j2", b"j3"]
    assert arrays["as_of"].tolist() == [9_000_000] * 3
    assert arrays["length"].tolist() == [2, 0, 1]
    assert arrays["event_time"].tolist() == [[1_000_000, 2_000_000], [0, 0], [3_000_000, 0]]
    assert arrays["event_type"].tolist() == [[b"view", "é".encode()], [b"", b""], [b"buy", b""]]
    np.testing.assert_array_equal(arrays["amount"], np.float32([[1.5, math.nan], [0, 0], [-2, 0]]))
    assert arrays["segment"].tolist() == [b"a", b"", b"b"]
    np.testing.assert_array_equal(arrays["age"], np.float32([30, math.nan, 40]))


def test_by_hand():
    check(padded(batch(ROWS), FIELDS))


def test_a_slice_of_a_batch_is_padded_as_itself():
    check(padded(batch([ROWS[0], *ROWS, ROWS[0]]).slice(1, 3), FIELDS))


def test_no_event_at_all():
    arrays = padded(batch([ROWS[1]]), FIELDS)
    assert arrays["event_time"].shape == (1, 0)
    assert arrays["event_type"].shape == (1, 0)


DATED = FIELDS | {"journeys": "dated"}
READY = FIELDS | {"journeys": "ready-made"}
ONE = {
    "key": "k",
    "as_of": "1970-01-01T00:00:09Z",
    "segment": "a",
    "age": 30,
    "events": [
        {"event_time": "1970-01-01T00:00:02Z", "event_type": "é", "amount": None},
        {"event_time": 1_000_000, "event_type": "view", "amount": 1.5},
    ],
}


def equal(left, right):
    """Arrays of one shape and value, text as str or bytes."""
    assert left.keys() == right.keys()
    for name in left:
        if left[name].dtype == object:
            texts = [[v.decode() if isinstance(v, bytes) else v for v in a[name].ravel()] for a in (left, right)]
            assert left[name].shape == right[name].shape, name
            assert texts[0] == texts[1], name
        else:
            np.testing.assert_array_equal(left[name], right[name], name)
            assert left[name].dtype == right[name].dtype, name


def test_natural_form_by_hand():
    parsed = from_instances([ONE, {"as_of": 9_000_000, "events": []}], DATED)
    assert not parsed.errors
    assert parsed.kept == [0, 1]
    assert parsed.keys == ["k", None]
    arrays = parsed.arrays
    assert arrays["as_of"].tolist() == [9_000_000] * 2
    assert arrays["length"].tolist() == [2, 0]
    assert arrays["event_time"].tolist() == [[2_000_000, 1_000_000], [0, 0]]
    assert arrays["event_type"][0].tolist() == ["é", "view"]
    np.testing.assert_array_equal(arrays["amount"][0], np.float32([math.nan, 1.5]))
    assert arrays["segment"].tolist() == ["a", ""]
    np.testing.assert_array_equal(arrays["age"], np.float32([30, math.nan]))
    assert [arrays[name].dtype for name in ("as_of", "event_time", "amount", "age")] == [
        np.int64,
        np.int64,
        np.float32,
        np.float32,
    ]


def test_table_to_natural_form_and_back():
    rows = batch(ROWS)
    instances = to_instances(rows, DATED)
    assert instances[0]["events"][1] == {"event_time": "1970-01-01T00:00:02Z", "event_type": "é", "amount": None}
    assert instances[1] == {"key": "j2", "as_of": "1970-01-01T00:00:09Z", "segment": None, "age": None, "events": []}
    equal(from_instances(instances, DATED).arrays, padded(rows, FIELDS))


def test_columns_and_lists_of_events_are_one_and_the_same():
    as_columns = {name: value for name, value in ONE.items() if name != "events"} | {
        name: [event[name] for event in ONE["events"]] for name in ("event_time", "event_type", "amount")
    }
    sparse = ONE | {"events": [{k: v for k, v in event.items() if v is not None} for event in ONE["events"]]}
    first = from_instances([ONE] * 3, DATED).arrays
    equal(first, from_instances([ONE, as_columns, sparse], DATED).arrays)
    left_out = from_instances([as_columns | {"amount": None}], DATED).arrays
    assert np.isnan(left_out["amount"]).all()


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-01T00:00:00Z",
        "2026-06-01t00:00:00z",
        "2026-06-01 00:00:00 UTC",
        "2026-06-01T02:30:00+02:30",
        "2026-06-01T00:00:00.000000999Z",
        "2026-06-01T00:00Z",
        1_780_272_000_000_000,
        1_780_272_000_000_000.0,
    ],
)
def test_instants_as_they_are_written(text):
    assert from_instances([{"as_of": text}], DATED).arrays["as_of"].tolist() == [1_780_272_000_000_000]


@pytest.mark.parametrize(
    "value",
    [
        *("2026-06-01", "2026-06-01T00:00:00", "0000-01-01T00:00:00Z", "-001-01-01T00:00:00Z", "2026-02-30T00:00:00Z"),
        *("2026-06-01T24:00:00Z", "2026-06-01T23:59:60Z", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-01:00"),
        *("", "soon", "2026-06-01T00:00:00+99:00", 2**63, -(2**62), 1.5, True, None, [], {}, "\ud800"),
        "\uff12026-06-01T00:00:00Z",  # a digit, but none of ours
    ],
)
def test_instants_that_are_none(value):
    error = from_instances([ONE, ONE | {"as_of": value}], DATED).errors[1]
    assert error.field == "as_of"
    assert error.message.startswith("expected an instant")


INSTANT = "2026-06-01T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            {"events": [{"event_time": INSTANT}, {"event_time": INSTANT, "amount": "secret"}]},
            "events[1].amount",
            "a number or null, got text",
        ),
        ({"events": [{"event_time": INSTANT, "event_type": 5}]}, "events[0].event_type", "text or null, got a number"),
        ({"events": [{"event_time": INSTANT, "event_type": "a\0"}]}, "events[0].event_type", "a NUL"),
        ({"events": [{"event_time": INSTANT, "event_type": "\udc00"}]}, "events[0].event_type", "surrogate"),
        ({"events": [{"event_time": INSTANT, "amount": True}]}, "events[0].amount", "got a boolean"),
        ({"events": [{"event_time": INSTANT, "amount": 1e39}]}, "events[0].amount", "32-bit"),
        ({"events": [{"event_time": INSTANT, "amount": 10**400}]}, "events[0].amount", "32-bit"),
        ({"events": [{"event_time": INSTANT, "amount": math.inf}]}, "events[0].amount", "32-bit"),
        (
            {"events": [{"event_time": INSTANT, "price": 1}]},
            "events[0].price",
            "unknown field; expected the model",
        ),
        ({"events": [{"event_time": INSTANT, "a secret": 1}]}, "events[0]", "unknown field"),
        ({"events": [{"event_type": "view"}]}, "events[0].event_time", "got null"),
        ({"events": [{"event_time": INSTANT}, 7]}, "events[1]", "an object, got a number"),
        ({"events": {"event_time": INSTANT}}, "events", "a list of events, got an object"),
        ({"events": None}, "events", "a list of events, got null"),
        ({"event_time": [INSTANT]}, "events", "got both"),
        ({"events": [{"event_time": INSTANT}] * 3}, "events", "at most 2 events, got 3"),
        ({"age": "30"}, "age", "a number or null, got text"),
        ({"segment": ["a"]}, "segment", "text or null, got a list"),
        ({"key": 3}, "key", "text or null, got a number"),
        ({"country": "FR"}, "country", "unknown field"),
    ],
)
def test_what_is_wrong_is_named(change, field, message):
    parsed = from_instances([ONE, ONE | change, ONE], DATED, max_events=2)
    (error,) = parsed.errors.values()
    assert (error.instance, error.field) == (1, field)
    assert message in error.message
    assert "secret" not in str(error)
    assert parsed.kept == [0, 2]  # the others unharmed
    equal(parsed.arrays, from_instances([ONE, ONE], DATED).arrays)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"event_time": [INSTANT], "amount": [1, 2]}, "amount"),
        ({"event_type": ["view"]}, "event_type"),
        ({"event_time": INSTANT}, "event_time"),
        ({"event_time": [INSTANT, "x"]}, "event_time[1]"),
        ({"event_time": [INSTANT] * 2, "amount": [1, "x"]}, "amount[1]"),
        ({"event_time": [INSTANT] * 3}, "event_time"),
    ],
)
def test_what_is_wrong_in_columns_is_named(columns, field):
    parsed = from_instances([{"as_of": INSTANT, **columns}, ONE], DATED, max_events=2)
    assert {i: error.field for i, error in parsed.errors.items()} == {0: field}
    assert parsed.kept == [1]


@pytest.mark.parametrize("instance", [None, 5, "text", [], True, 1.5])
def test_an_instance_is_an_object(instance):
    error = from_instances([instance], DATED).errors[0]
    assert (error.field, error.message.startswith("expected an object")) == ("", True)


def test_ready_made_journeys_have_seconds():
    instance = {"key": "s", "events": [{"seconds": 2.5000005, "event_type": "b"}, {"seconds": 1, "event_type": "a"}]}
    arrays = from_instances([instance, {"seconds": []}, instance | {"as_of": INSTANT}], READY).arrays
    assert arrays["event_time"].tolist() == [[2_500_001, 1_000_000], [0, 0], [2_500_001, 1_000_000]]
    assert arrays["as_of"].tolist() == [2_500_002, 1, 1_780_272_000_000_000]
    bad = [
        {"event_time": [INSTANT]},
        {"seconds": ["1"]},
        {"seconds": [9e9]},
        {"seconds": [None]},
        {"seconds": [math.nan]},
    ]
    found = from_instances(bad, READY).errors
    assert [found[i].field for i in range(5)] == ["event_time", *["seconds[0]"] * 4]


def test_ready_made_table_to_natural_form_and_back():
    rows = batch(ROWS)
    ends = [max(times, default=at(0)) + dt.timedelta(microseconds=1) for _, _, times, *_ in ROWS]
    rows = rows.set_column(1, rows.schema.field("as_of"), pa.array(ends, pa.timestamp("us", "UTC")))
    instances = to_instances(rows, READY)
    assert "as_of" not in instances[0]
    assert [event["seconds"] for event in instances[0]["events"]] == [1.0, 2.0]
    equal(from_instances(instances, READY).arrays, padded(rows, FIELDS))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just(INSTANT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TIMES = st.just(INSTANT) | st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat()) | st.integers() | ANY
EVENTS = st.fixed_dictionaries(
    {"event_time": TIMES}, optional={"event_type": st.text() | ANY, "amount": st.floats() | ANY, "odd": ANY}
)
INSTANCES = st.lists(
    ANY
    | st.fixed_dictionaries(
        {"as_of": TIMES},
        optional={
            "key": st.text() | ANY,
            "segment": st.text() | ANY,
            "age": st.floats() | ANY,
            "events": st.lists(EVENTS | ANY, max_size=4) | ANY,
            "event_time": st.lists(TIMES, max_size=3) | ANY,
            "amount": st.lists(st.floats(), max_size=3) | ANY,
            "seconds": st.lists(st.floats(), max_size=3) | ANY,
        },
    ),
    max_size=4,
)


def holds_for_anything(instances, about):
    parsed = from_instances(instances, about, max_events=3)
    assert sorted([*parsed.kept, *parsed.errors]) == list(range(len(instances)))
    assert all(len(values) == len(parsed.kept) for values in parsed.arrays.values())
    assert all(str(error).startswith(f"instance {i}") for i, error in parsed.errors.items())
    for row, index in enumerate(parsed.kept):  # alone as beside others
        alone = from_instances([instances[index]], about, max_events=3).arrays
        steps = int(alone["length"][0])
        beside = {name: values[row : row + 1] for name, values in parsed.arrays.items()}
        equal(alone, {name: values[:, :steps] if values.ndim == 2 else values for name, values in beside.items()})


@tried(quick=300, soak=10_000)
@given(INSTANCES, st.sampled_from([DATED, READY]))
def test_anything_is_read_or_refused(instances, about):
    holds_for_anything(instances, about)


@given(st.datetimes(timezones=st.timezones()))
@settings(max_examples=300, deadline=None)
def test_both_ways_to_read_an_instant_agree(moment):
    """Arrow's, for a column all of text, and ours, one by one."""
    written = moment.isoformat()
    together, beside = (from_instances([{"as_of": v} for v in (written, other)], DATED) for other in (INSTANT, 0))
    assert together.errors.keys() == beside.errors.keys()
    if not together.errors:
        exact = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
        assert together.arrays["as_of"][0] == beside.arrays["as_of"][0] == exact
