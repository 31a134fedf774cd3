"""Assignments drawn by hand: what networks would have said of them is made up, what is true of them is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.assignments import Assigned


def drawn(
    rows: int = 8_000,
    *,
    effect: float = 0.05,
    seed: int = 0,
    propensity: str = "lots",
    campaign: str = "sale",
    share: float = 0.5,
    **changed: Any,
) -> Assigned:
    """`rows` assignments of half as many customers. A trait makes buying likely; the scores know it, with noise.

    propensity: "lots" at `share`; "targeted": the trait decides, with chance; "certain": the trait decides alone.
    changed: columns that replace the drawn ones.
    """
    generator = np.random.default_rng(seed)
    customer = np.repeat(np.arange(rows // 2), 2)
    trait = np.repeat(generator.normal(size=rows // 2), 2)
    chance = {
        "lots": np.full(rows, share),
        "targeted": 1 / (1 + np.exp(1 - trait)),
        "certain": np.where(trait > 0, 0.995, 0.005),
    }[propensity]
    treated = generator.random(rows) < chance
    without = 0.4 / (1 + np.exp(-1.5 * trait))
    converted = generator.random(rows) < without + effect * treated
    score = 0.4 / (1 + np.exp(-1.5 * trait - generator.normal(0, 0.2, rows)))
    bucket = np.repeat(generator.integers(0, 1_000_000, rows // 2), 2)
    columns: dict[str, Any] = {
        "journey_id": np.array([f"j{i}" for i in range(rows)], object),
        "customer_key": np.array([f"c{i}" for i in customer], object),
        "customer": customer,
        "campaign": np.full(rows, campaign, object),
        "as_of": np.tile([0, 86_400_000_000], rows // 2),
        "treated": treated,
        "converted": converted,
        "known": np.ones(rows, bool),
        "days_since_conversion": np.full(rows, np.inf),
        "without": score,
        "with_it": np.clip(score + effect, 0, 1),
        "state": np.column_stack([trait, generator.normal(size=(rows, 3))]).astype(np.float32),
        "network": bucket % 2,
        "bucket": bucket,
        "categories": {"segment": np.where(customer % 2 == 0, "new", "loyal").astype(object)},
        "numbers": {"age": generator.normal(size=rows)},
    }
    return Assigned(**(columns | changed))
