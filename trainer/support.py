"""Which questions about a campaign training can speak to: of whom it saw enough treated, and enough held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.schema import RecordSchema

_BATCH = 8_192
_ARMS = 2  # held out, treated


@dataclasses.dataclass(frozen=True)
class Support:
    """campaigns: those of the assignments that training saw, sorted. `everyone` bool [campaigns]: at least `minimum`
    customers treated, and as many held out. `fields`: bool [campaigns, ids] by field, the same among the customers who
    have each of its ids (0 padding, 1 out of vocabulary)."""

    minimum: int
    campaigns: tuple[str, ...]
    everyone: np.ndarray
    fields: dict[str, np.ndarray]

    @property
    def known(self) -> tuple[str, ...]:
        """The campaigns that can be asked about at all."""
        return tuple(campaign for campaign, enough in zip(self.campaigns, self.everyone, strict=True) if enough)


def count_support(files: Sequence[str], schema: RecordSchema, fields: Sequence[str], minimum: int) -> Support:
    """Reads the assignments in record files. fields: categorical ones of the customer; minimum: customers an arm."""
    parsing = {"customer_key": tf.io.FixedLenFeature((), tf.string), **schema.assignment_parsing()}
    parsing |= {name: tf.io.FixedLenFeature((), tf.int64) for name in fields}
    dataset = tf.data.TFRecordDataset(list(files), compression_type="GZIP").batch(_BATCH)
    parts = []
    for serialized in dataset:
        batch = {name: values.numpy() for name, values in tf.io.parse_example(serialized, parsing).items()}
        assigned = batch["treated"] >= 0
        parts.append({name: values[assigned] for name, values in batch.items()})
    columns = {name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0) for name in parsing}
    names, campaign = np.unique(columns["assigned_campaign"].astype(bytes), return_inverse=True)
    _, customer = np.unique(columns["customer_key"].astype(bytes), return_inverse=True)
    treated = columns["treated"].astype(np.int64)

    def enough(ids: np.ndarray, size: int) -> np.ndarray:
        """bool [campaigns, size]: whether enough different customers have the id in both arms."""
        seen = np.unique(np.stack([campaign, ids, treated, customer]), axis=1)[:3]
        counts = np.zeros((len(names), size, _ARMS), np.int64)
        np.add.at(counts, tuple(seen), 1)
        return np.asarray((counts >= minimum).all(axis=2))

    return Support(
        minimum,
        tuple(name.decode() for name in names),
        enough(np.zeros_like(treated), 1)[:, 0],
        {name: enough(columns[name].astype(np.int64), schema.customer_categorical[name]) for name in fields},
    )
