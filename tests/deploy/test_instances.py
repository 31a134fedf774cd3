"""Journeys of different lengths as padded arrays, by hand."""

import datetime as dt
import math

import numpy as np
import pyarrow as pa

from deploy.instances import padded

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
