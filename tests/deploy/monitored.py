"""A stationary stream of journeys, drawn from one law, and a model directory as far as the monitor reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.manifest import write_manifest
from preprocessing.spec import parse_spec
from trainer.statistics import journey_statistics

SPEC = """
events: {table: events, customer: c, time: t}
sequence: {categorical: [event_type, channel], numeric: [amount], max_events: 32}
customer: {table: customers, static: true, categorical: [segment], numeric: [age]}
conversion: {where: "event_type = 'buy'", horizons_days: [7, 30], primary_horizon: 30}
snapshots: {dates: [2026-01-01, 2026-03-01, 2026-06-01], lookback_days: 90}
data_until: 2026-07-31
split: {eval_from: 2026-02-01, test_from: 2026-05-01}
"""
DAY_US = 86_400_000_000
AS_OF_US = 20_605 * DAY_US
TYPES, TYPE_SHARES = ["view", "search", "cart", "buy"], [0.6, 0.25, 0.12, 0.03]
CHANNELS, CHANNEL_SHARES = ["web", "app", "store"], [0.5, 0.3, 0.2]
INSTANT = pa.timestamp("us", "UTC")


def draw(
    customers: int, seed: int, *, split: str = "test", convert: float = 1.0, **law: Any
) -> tuple[pa.Table, pa.Table]:
    """(journeys, scores) of two snapshots a customer. Scores are the probabilities by which the customers convert,
    times `convert`. law: other values of length, recency_days, channels, channel_shares, missing_amount."""
    rng = np.random.default_rng(seed)
    rows = 2 * customers
    length = rng.poisson(law.get("length", 8), rows)
    offsets = np.concatenate([[0], np.cumsum(length)])
    events = int(offsets[-1])
    since = rng.exponential(law.get("recency_days", 5.0), rows)
    # the last event lies `since` days back, those before it each a day or so earlier
    back = np.concatenate([np.arange(n)[::-1] for n in length]) + np.repeat(since, length) + 0.01
    times = AS_OF_US - (back * DAY_US).astype(np.int64)
    amount = np.where(rng.random(events) < law.get("missing_amount", 0.3), np.nan, rng.lognormal(3, 1, events))
    channels = law.get("channels", CHANNELS)
    risk = rng.beta(1.5, 10, rows)
    when = rng.exponential(1, rows) / -np.log1p(-np.minimum(convert * risk, 0.99)) * 30

    def lists(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, kind))

    keys = [f"{seed:08x}{i:08x}".ljust(64, "0") for i in range(customers)] * 2
    journeys = pa.table(
        {
            "journey_id": [f"{seed}-{i}" for i in range(rows)],
            "customer_key": keys,
            "as_of": pa.array(np.full(rows, AS_OF_US), INSTANT),
            "split": [split] * rows,
            "event_type": lists(rng.choice(TYPES, events, p=TYPE_SHARES), pa.string()),
            "channel": lists(rng.choice(channels, events, p=law.get("channel_shares", CHANNEL_SHARES)), pa.string()),
            "amount": lists(amount, pa.float64()),
            "event_time": lists(times, INSTANT),
            "segment": rng.choice(["new", "loyal"], rows),
            "age": rng.normal(40, 10, rows),
            "days_to_conversion": pa.array(when, mask=when > 60),
            "observed_days": np.full(rows, 60.0),
        }
    )
    scores = {"journey_id": journeys["journey_id"], "customer_key": journeys["customer_key"]}
    for horizon in (7, 30):
        scores[f"p_{horizon}d"] = pa.array((1 - (1 - risk) ** (horizon / 30)).astype(np.float32))
    return journeys, pa.table(scores)


def write(journeys: pa.Table, scores: pa.Table | None, place: Path) -> Path:
    """place/journeys/part-… and place/scores.parquet; returns the journeys' directory."""
    (place / "journeys").mkdir(parents=True)
    pq.write_table(journeys, place / "journeys/part-00000-of-00001.parquet")
    if scores is not None:
        pq.write_table(scores, place / "scores.parquet")
    return place / "journeys"


def model(place: Path) -> Path:
    """model/ with parcours.json, spec.yaml and the statistics of 3,000 customers' train journeys and test scores."""
    journeys, _ = draw(3000, 1, split="train")
    _, scores = draw(1500, 2)
    spec = parse_spec(SPEC)
    directory = place / "model"
    directory.mkdir(parents=True)
    (directory / "parcours.json").write_text(json.dumps({"model_version": "abc123", "horizons_days": [7, 30]}))
    (directory / "spec.yaml").write_text(SPEC)
    statistics = journey_statistics(write(journeys, None, place / "train"), "train", spec, 20, scores=scores)
    (directory / "statistics.json").write_text(json.dumps(statistics))
    write_manifest(directory)
    return directory
