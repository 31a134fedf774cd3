"""A small run directory with known structure, in the form that preprocessing leaves it; no TensorFlow, no Beam."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.rundir import RunDir
from preprocessing.spec import DAY_US, AnySpec, parse_spec

SPEC = """
events:      {table: events, customer: customer_id, time: event_time}
sequence:    {categorical: [event_type, channel], numeric: [amount], max_events: 40}
customer:    {table: customers, static: true, categorical: [segment], numeric: [age]}
conversion:  {where: "event_type = 'purchase'", horizons_days: [7, 14, 30], primary_horizon: 30}
snapshots:   {first: 2026-01-05, last: 2026-06-29, every_days: 14, lookback_days: 90}
data_until:  2026-07-31
split:       {eval_from: 2026-04-06, test_from: 2026-05-25, holdout_customers: 0.2}
"""
TYPES = ("view", "cart", "email_open", "purchase", "__rare__", "")
CHANNELS = ("web", "store", "app")


@dataclass
class SyntheticRun:
    run_dir: RunDir
    spec: AnySpec
    predictions: dict[str, pa.Table]
    truth: Path
    history: list[dict[str, Any]]


def make_run(
    path: Path,
    *,
    customers: int = 300,
    seed: int = 1,
    intercept: float = -2.2,
    noise: float = 0.4,
    spec_text: str = SPEC,
    mean_events: float = 6.0,
) -> SyntheticRun:
    """Customers at the spec's snapshots; the chance to convert grows with recent events and with a cart seen last.

    Predictions are the truth with `noise` on the log odds; the hazard is constant over the 30 days, so that horizons
    are nested. `intercept` sets the base rate.
    """
    rng = np.random.default_rng(seed)
    spec = parse_spec(spec_text)
    as_of = np.array([t.timestamp() * 1e6 for t in spec.snapshots.instants], dtype=np.int64)
    eval_from, test_from = (int(t.timestamp() * 1e6) for t in (spec.split.eval_from, spec.split.test_from))
    held_out = np.arange(customers) % 5 == 0
    owner = np.repeat(np.arange(customers), len(as_of))
    when = np.tile(as_of, customers)
    split = np.where(when >= test_from, "test", np.where(when >= eval_from, "eval", "train"))
    embargo = spec.embargo_days * DAY_US
    kept = (split == "test") | ((split == "eval") & (when + embargo <= test_from)) | (when + embargo <= eval_from)
    kept &= (split == "test") | ~held_out[owner]
    owner, when, split = owner[kept], when[kept], split[kept]
    n = len(owner)

    taste = rng.normal(size=customers)
    length = np.minimum(rng.poisson(mean_events * np.exp(0.6 * taste[owner])), spec.sequence.max_events)
    length[rng.random(n) < 0.03] = 0
    event_owner = np.repeat(np.arange(n), length)
    age_days = rng.gamma(1.0, 20.0, size=length.sum()) % 90
    order = np.lexsort((-age_days, event_owner))
    age_days = age_days[order]
    kind = rng.choice(len(TYPES), p=[0.5, 0.2, 0.2, 0.07, 0.02, 0.01], size=len(age_days))
    ends = np.cumsum(length)
    recency = np.full(n, 90.0)
    recency[length > 0] = age_days[ends[length > 0] - 1]
    last = np.full(n, -1)
    last[length > 0] = kind[ends[length > 0] - 1]
    segment = rng.integers(3, size=customers)
    log_odds = intercept + 0.5 * np.log1p(length) - 0.04 * recency + 1.2 * (last == 1) + 0.4 * (segment[owner] == 2)
    p30 = 1 / (1 + np.exp(-log_odds))
    rate = -np.log1p(-p30) / 30
    waits = rng.exponential(1 / rate)
    observed = (spec.data_until.timestamp() * 1e6 - when) / DAY_US

    offsets = pa.array(np.append(0, ends), pa.int32())
    customer_key = np.array([hashlib.sha256(b"%d" % c).hexdigest() for c in range(customers)])[owner]
    journey_id = [hashlib.sha256(f"{c}@{t}".encode()).hexdigest() for c, t in zip(owner, when, strict=True)]
    amount = np.where(kind == 3, rng.gamma(2.0, 30.0, size=len(kind)), np.nan)
    table = pa.table(
        {
            "journey_id": pa.array(journey_id, pa.string()),
            "customer_key": pa.array(customer_key, pa.string()),
            "as_of": pa.array(when).cast(pa.timestamp("us", "UTC")),
            "split": pa.array(split, pa.string()),
            "held_out": pa.array(held_out[owner]),
            "event_type": pa.ListArray.from_arrays(offsets, pa.array(np.array(TYPES)[kind], pa.string())),
            "channel": pa.ListArray.from_arrays(
                offsets, pa.array(np.array(CHANNELS)[rng.integers(3, size=len(kind))], pa.string())
            ),
            "amount": pa.ListArray.from_arrays(offsets, pa.array(amount, from_pandas=False)),
            "event_time": pa.ListArray.from_arrays(
                offsets,
                pa.array(when[event_owner] - np.maximum(age_days * DAY_US, 1).astype(np.int64)).cast(
                    pa.timestamp("us", "UTC")
                ),
            ),
            "segment": pa.array(np.array(["a", "b", "c"])[segment][owner], pa.string()),
            "age": pa.array(np.where(rng.random(n) < 0.1, np.nan, 40 + 10 * taste[owner]), from_pandas=False),
            "days_to_conversion": pa.array(waits, mask=waits >= observed),
            "observed_days": pa.array(observed),
            "weight": pa.array(np.ones(n)),
        }
    )
    run_dir = _written(path, table)
    keys = table.select(["journey_id", "customer_key", "as_of", "split", "held_out"])
    noisy = log_odds + noise * rng.normal(size=n)
    predicted = _with_probabilities(keys, np.log1p(np.exp(noisy)) / 30, spec.horizons_days, pa.float32())
    shuffled = predicted.take(pa.array(rng.permutation(n)))  # a trainer need not keep the files' order
    truth = path / "truth.parquet"
    pq.write_table(
        _with_probabilities(table.select(["customer_key", "as_of"]), rate, spec.horizons_days, pa.float64()), truth
    )
    by_split = {s: shuffled.filter(pc.equal(shuffled["split"], s)) for s in ("eval", "test")}
    return SyntheticRun(run_dir, spec, by_split, truth, _history())


def _written(path: Path, table: pa.Table) -> RunDir:
    run_dir = RunDir(path)
    run_dir.journeys.mkdir(parents=True)
    run_dir.transform.mkdir()
    half = table.num_rows // 2  # two parts, as a real run has several
    pq.write_table(table.slice(0, half), run_dir.journeys / "part-00000.parquet", row_group_size=1000)
    pq.write_table(table.slice(half), run_dir.journeys / "part-00001.parquet")
    (run_dir.transform / "summary.json").write_text(json.dumps(_summary(table)) + "\n")
    return run_dir


def _with_probabilities(keys: pa.Table, rate: np.ndarray, horizons: tuple[int, ...], kind: pa.DataType) -> pa.Table:
    for horizon in horizons:
        keys = keys.append_column(f"p_{horizon}d", pa.array(-np.expm1(-rate * horizon), kind))
    return keys


def _history() -> list[dict[str, Any]]:
    return [
        {
            "epoch": e,
            "train_loss": 0.5 - 0.05 * np.log(e),
            "eval_loss": 0.5 - 0.04 * np.log(e),
            "eval_pr_auc": 0.2 + 0.05 * np.log(e),
            "eval_roc_auc": 0.6 + 0.05 * np.log(e),
            "learning_rate": 1e-3,
            "seconds": 3.0,
        }
        for e in range(1, 9)
    ]


def _summary(table: pa.Table) -> dict[str, Any]:
    splits = {
        split: {
            "journeys": count,
            "conversions": {"30": count // 10},
            "known": {"30": count},
            "label_rate": {"30": 0.1},
            "length": {"mean": 7.1, "p50": 6, "p90": 14, "max": 40, "empty": 30},
            "out_of_vocabulary": {"event_type": 0.001, "channel": 0.0},
        }
        for split, count in ((s, table["split"].to_pylist().count(s)) for s in ("train", "eval", "test"))
    }
    events = {"read": 5000, "used": 4200, "truncated": 300, "outside_windows": 400, "duplicate": 60, "set_aside": 40}
    return {"splits": splits, "events": events, "journeys": {"made": table.num_rows, "embargoed": 120}}
