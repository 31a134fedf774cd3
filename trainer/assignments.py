"""Assignments of customers to campaigns, with all that is known of each from before, and what came after.

What networks say of an assignment comes from networks that never saw its customer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.experiment import Flags, Floats, Ints

BUCKETS = 1_000_000  # of the hash of a customer's key
STOPPING = 10  # one customer in so many decides when a fold's network stops and how it is calibrated


@dataclass(frozen=True)
class Assigned:
    """All arrays [n], in one order; [n, d] for `state`.

    customer: codes of customer_key; as_of: UTC microseconds; converted: within the primary horizon; known: observed to
    its end; days_since_conversion: before as_of, inf where none. Out of fold, at the primary horizon: without and
    with_it, P(converts) asked without and with the campaign, NaN where the network never saw it treated; state:
    float32, the network's view of the journey, no campaign asked; network: which fold's network said so; bucket: the
    customer's hash. categories, numbers: customer fields by name, as text and as float64.
    """

    journey_id: NDArray[np.object_]
    customer_key: NDArray[np.object_]
    customer: Ints
    campaign: NDArray[np.object_]
    as_of: Ints
    treated: Flags
    converted: Flags
    known: Flags
    days_since_conversion: Floats
    without: Floats
    with_it: Floats
    state: NDArray[np.float32]
    network: Ints
    bucket: Ints
    categories: dict[str, NDArray[np.object_]]
    numbers: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.treated)

    def take(self, rows: Flags | Ints) -> Assigned:
        """These rows alone."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            kept[field.name] = {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value[rows]
        return Assigned(**kept)

    def encoded_fields(self) -> Floats:
        """float64 [n, f]: categorical customer fields as indicators, the first value left out, then numeric ones."""
        columns = [
            (values == value).astype(np.float64)
            for values in self.categories.values()
            for value in sorted(set(values.tolist()))[1:]
        ]
        columns += [np.nan_to_num(values) for values in self.numbers.values()]
        return np.column_stack(columns) if columns else np.empty((len(self), 0))


def fold_of(buckets: Ints, folds: int) -> Ints:
    return buckets % folds


def stopping(buckets: Ints, folds: int) -> Flags:
    """Whose journeys decide when a network stops."""
    return buckets // folds % STOPPING == 0


def part_of(buckets: Ints, folds: int, parts: int) -> Ints:
    """The customer's part within the fold, for what is cross-fitted on the fold's own assignments."""
    return buckets // (folds * STOPPING) % parts
