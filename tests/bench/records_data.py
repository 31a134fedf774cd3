"""The tables of the benchmark of records: simulated events of some weeks, and one as_of for each customer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# The simulator wants 90 days and a horizon at least; of them the last ten weeks are kept: 20 events a customer.
SIMULATED = ("2026-01-01", "2026-05-06")
FIRST = "2026-02-25"
# Seven days of labels between the three, so that no label of one reaches the next.
AS_OF = {"train": "2026-04-15", "eval": "2026-04-22", "test": "2026-04-29"}
TRAIN, EVAL = 0.8, 0.1

SPEC = {
    "events": {"table": "events", "customer": "customer_id", "time": "event_time"},
    "sequence": {
        "categorical": ["event_type", "channel", "campaign"],
        "numeric": [{"column": "amount", "min": -100000, "max": 100000}],
        "max_events": 64,
    },
    "customer": {
        "table": "customers",
        "valid_from": "updated_at",
        "categorical": ["segment"],
        "numeric": [{"column": "age", "min": 0, "max": 120}],
    },
    "eligible": "active",
    "conversion": {"where": "event_type = 'purchase'", "gap_days": 0, "horizons_days": [7], "primary_horizon": 7},
    "snapshots": {"dates": list(AS_OF.values()), "lookback_days": 90},
    "data_until": SIMULATED[1],
    "split": {"eval_from": AS_OF["eval"], "test_from": AS_OF["test"], "salt": "v1"},
}


def make(place: Path, customers: int, steps: Any) -> None:
    """Writes events.parquet, customers.parquet, as_of.parquet, spec.yaml and customer.key into `place`.

    Every customer is eligible for one day, the day of the as_of of a split drawn by its id. Parcours finds that out
    from customers.parquet, two dated rows a customer; the peers read as_of.parquet, one row a customer, and so are
    spared the search for the row that was valid.
    """
    import datetime as dt

    import duckdb
    import yaml

    first, last = SIMULATED
    flags = ("--customers", customers, "--first", first, "--last", last, "--output", place / "all/events.parquet")
    steps.command("preprocessing.simulate", *flags)
    spec = SPEC | {"data_until": dt.date.fromisoformat(SIMULATED[1])}
    (place / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    steps.command("preprocessing.keys", "--new", place / "customer.key")
    day = {split: f"TIMESTAMPTZ '{date} 00:00:00+00'" for split, date in AS_OF.items()}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        copies = {
            "events": f"""SELECT customer_id, event_time, event_type, channel, campaign, amount
                FROM '{place}/all/events.parquet' WHERE event_time >= TIMESTAMPTZ '{FIRST} 00:00:00+00'""",
            "as_of": f"""
                WITH people AS (SELECT customer_id, ANY_VALUE(segment) AS segment, ANY_VALUE(age) AS age,
                    HASH(customer_id) % 1000 / 1000 AS u FROM '{place}/all/customers.parquet' GROUP BY customer_id)
                SELECT customer_id, segment, age,
                    CASE WHEN u < {TRAIN} THEN 'train' WHEN u < {TRAIN + EVAL} THEN 'eval' ELSE 'test' END AS split,
                    CASE WHEN u < {TRAIN} THEN {day["train"]} WHEN u < {TRAIN + EVAL} THEN {day["eval"]}
                         ELSE {day["test"]} END AS as_of
                FROM people ORDER BY customer_id""",
            "customers": f"""
                SELECT customer_id, as_of + INTERVAL (hours) HOUR AS updated_at, segment, age, hours < 0 AS active
                FROM '{place}/as_of.parquet', (VALUES (-24), (1)) AS t(hours) ORDER BY customer_id, updated_at""",
        }
        for name, query in copies.items():
            connection.execute(f"COPY ({query}) TO '{place}/{name}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    for path in sorted((place / "all").iterdir()):
        path.unlink()
    (place / "all").rmdir()
