"""Probabilities of a split's journeys, beside their keys and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tqdm import tqdm

from trainer import hazard
from trainer.dataset import ordered_batches
from trainer.model import Scorer
from trainer.schema import RecordSchema

_BATCH = 1_024


@dataclasses.dataclass(frozen=True)
class Predictions:
    """In the order of the records. `probabilities` float32 [journeys, horizons]; `loss` float32 [journeys]."""

    horizons: tuple[int, ...]
    gap: int
    probabilities: np.ndarray
    loss: np.ndarray
    labels: dict[str, np.ndarray]

    def outcome(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """(converted, probability) at a horizon, of the journeys that are observed so far."""
        known = self.labels["observed_days"] >= self.gap + horizon
        converted = self.labels["days_to_conversion"][known] < horizon
        return converted, self.probabilities[known, self.horizons.index(horizon)]

    def mean_loss(self) -> float:
        """Hazard log loss a journey, weighted."""
        return float(self.loss.sum(dtype=np.float64) / max(self.labels["weight"].sum(dtype=np.float64), 1e-12))

    def table(self, split: str, model_version: str) -> pa.Table:
        """customer_key, journey_id, as_of, split, held_out, model_version, and p_<h>d float32 a horizon."""
        rows = len(self.loss)
        keys = {
            name: pa.array(self.labels[name], pa.binary()).cast(pa.string()) for name in ("customer_key", "journey_id")
        }
        return pa.table(
            keys
            | {
                "as_of": pa.array(self.labels["as_of"], pa.int64()).cast(pa.timestamp("us", "UTC")),
                "split": pa.array([split] * rows, pa.string()),
                "held_out": pa.array(self.labels["held_out"] == 1, pa.bool_()),
                "model_version": pa.array([model_version] * rows, pa.string()),
            }
            | {f"p_{h}d": pa.array(self.probabilities[:, i], pa.float32()) for i, h in enumerate(self.horizons)}
        )


class Predictor:
    """Scores record files with a Scorer, whose graph is traced once."""

    def __init__(self, scorer: Scorer, schema: RecordSchema, horizons: Sequence[int], gap: int) -> None:
        self._scorer, self._schema = scorer, schema
        self._horizons, self._gap = tuple(horizons), gap
        self._traced: Callable[..., Any] | None = None

    def __call__(self, files: Sequence[str], what: str, journeys: int) -> Predictions:
        """Scores every record; `what` and `journeys` (how many) are for the progress bar."""
        batches = ordered_batches(files, self._schema, batch_size=_BATCH)
        if self._traced is None:  # one signature for every batch, the short last one too
            self._traced = tf.function(self._score, input_signature=batches.element_spec)
        parts: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
        with tqdm(total=journeys, desc=what, unit=" journeys", unit_scale=True, leave=False, disable=None) as bar:
            for features, labels in batches:
                probabilities, loss = self._traced(features, labels)
                parts.append(
                    (probabilities.numpy(), loss.numpy(), {name: value.numpy() for name, value in labels.items()})
                )
                bar.update(len(parts[-1][1]))
        columns = {name: np.concatenate([part[2][name] for part in parts]) for name in parts[0][2]}
        order = np.argsort(columns.pop("row"))
        return Predictions(
            self._horizons,
            self._gap,
            np.concatenate([part[0] for part in parts])[order],
            np.concatenate([part[1] for part in parts])[order],
            {name: values[order] for name, values in columns.items()},
        )

    def _score(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        counts, converts = hazard.targets(
            labels["days_to_conversion"], labels["observed_days"], self._horizons, self._gap
        )
        logits = self._scorer.logits(features)
        return hazard.probabilities(logits), hazard.loss(logits, counts, converts, labels["weight"])
