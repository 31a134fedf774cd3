"""Made-up tables of a plain e-mail test in the layout of Hillstrom's, with a known effect of each e-mail."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SENT = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
CAMPAIGNS = ("mens_email", "womens_email")
HELD_OUT = 2
BASE, OF_NEWBIES = 0.15, 0.1
EFFECTS = (0.3, 0.0)  # what each e-mail adds to the probability of a visit: one works, one does nothing


def write(folder: Path, customers: int = 3000, seed: int = 1) -> None:
    """Writes customers, assignments and events, Parquet, into `folder`: no event before the assignment."""
    rng = np.random.default_rng(seed)
    ids = pa.array([f"H{i:05d}" for i in range(customers)])
    newbie = rng.integers(2, size=customers)
    people = {
        "customer_id": ids,
        "recency": rng.integers(1, 13, size=customers),
        "history": rng.gamma(1.5, 160.0, size=customers).round(2),
        "mens": rng.integers(2, size=customers),
        "womens": rng.integers(2, size=customers),
        "zip_code": pa.array(rng.choice(["Urban", "Surburban", "Rural"], size=customers)),
        "newbie": newbie,
        "channel": pa.array(rng.choice(["Web", "Phone", "Multichannel"], size=customers)),
    }
    arm = rng.integers(3, size=customers)
    visits = rng.random(customers) < BASE + OF_NEWBIES * newbie + np.array([*EFFECTS, 0.0])[arm]
    rows = [(i, c, arm[i] == c) for i in range(customers) for c in range(2) if arm[i] in (c, HELD_OUT)]
    assigned = {
        "customer_id": ids.take(pa.array([i for i, _, _ in rows])),
        "campaign": pa.array([CAMPAIGNS[c] for _, c, _ in rows]),
        "assigned_at": pa.array([SENT] * len(rows), pa.timestamp("us", "UTC")),
        "treated": pa.array([int(treated) for _, _, treated in rows]),
    }
    who = np.flatnonzero(visits)
    buys = rng.random(len(who)) < 0.1
    at = [SENT + dt.timedelta(hours=float(h)) for h in rng.uniform(1, 13 * 24, size=len(who))]
    events = {
        "customer_id": pa.concat_arrays([ids.take(pa.array(who)), ids.take(pa.array(who[buys]))]),
        "event_time": pa.array([*at, *(t + dt.timedelta(minutes=9) for t, b in zip(at, buys, strict=True) if b)]),
        "event_type": pa.array(["visit"] * len(who) + ["purchase"] * int(buys.sum())),
        "spend": pa.array(
            [None] * len(who) + rng.gamma(2.0, 50.0, size=int(buys.sum())).round(2).tolist(), pa.float64()
        ),
    }
    for name, table in (("customers", people), ("assignments", assigned), ("events", events)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
