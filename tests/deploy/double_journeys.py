"""A small journeys table whose outcomes, keys and lengths are known without reading it."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq

FIRST = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def journey_id(i):
    return f"j{i:04d}"


def as_of(i):
    """Two cut-offs, two weeks apart."""
    return FIRST + dt.timedelta(days=14 * (i % 2))


def write_journeys(path, count, *, converted=lambda i: i % 4 == 0, observed=40.0):
    """Journey i of customer i // 2 has i % 5 events; it converts after 3 days where `converted` says so."""
    rows = [
        {
            "journey_id": journey_id(i),
            "customer_key": f"c{i // 2:04d}",
            "as_of": as_of(i),
            "split": "test",
            "held_out": False,
            "event_type": ["view"] * (i % 5),
            "amount": [float(i)] * (i % 5),
            "event_time": [as_of(i) - dt.timedelta(hours=k + 1) for k in reversed(range(i % 5))],
            "segment": "a" if i % 3 else "",
            "age": float("nan") if i % 7 == 0 else 30.0 + i % 7,
            "days_to_conversion": 3.0 if converted(i) else None,
            "observed_days": observed,
            "weight": 1.0,
        }
        for i in range(count)
    ]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("journey_id", "customer_key")),
            ("as_of", pa.timestamp("us", "UTC")),
            ("split", pa.string()),
            ("held_out", pa.bool_()),
            ("event_type", pa.list_(pa.string())),
            ("amount", pa.list_(pa.float64())),
            ("event_time", pa.list_(pa.timestamp("us", "UTC"))),
            ("segment", pa.string()),
            *((name, pa.float64()) for name in ("age", "days_to_conversion", "observed_days", "weight")),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)
