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
from trainer.calibration import Calibration, fit_calibration
from trainer.dataset import ordered_batches
from trainer.model import Scorer
from trainer.schema import RecordSchema

_BATCH = 1_024


@dataclasses.dataclass(frozen=True)
class Predictions:
    """In the order of the records. `logits` of the hazards and `probabilities` float32 [journeys, horizons]; `loss`
    float32 [journeys]."""

    horizons: tuple[int, ...]
    gap: int
    logits: np.ndarray
    probabilities: np.ndarray
    loss: np.ndarray
    labels: dict[str, np.ndarray]

    def outcome(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """(converted, probability) at a horizon, of the journeys that are observed so far."""
        known = self.labels["observed_days"] >= self.gap + horizon
        converted = self.labels["days_to_conversion"][known] < horizon
        return converted, self.probabilities[known, self.horizons.index(horizon)]

    def calibrated(self) -> tuple[Calibration, Predictions]:
        """The calibration that these journeys' outcomes ask for, by weight, and the predictions under it."""
        days, observed = self.labels["days_to_conversion"], self.labels["observed_days"]
        counts, converts = hazard.targets(days, observed, self.horizons, self.gap)
        calibration = fit_calibration(self.logits, counts.numpy(), converts.numpy(), self.labels["weight"])
        logits = calibration(tf.constant(self.logits))
        changed = {
            "logits": logits.numpy(),
            "probabilities": hazard.probabilities(logits).numpy(),
            "loss": hazard.loss(logits, counts, converts, self.labels["weight"]).numpy(),
        }
        return calibration, dataclasses.replace(self, **changed)

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
            self._traced = tf.function(self._score, input_signature=batches.element_spec, autograph=False)
        parts: list[tuple[list[np.ndarray], dict[str, np.ndarray]]] = []
        with tqdm(total=journeys, desc=what, unit=" journeys", unit_scale=True, leave=False, disable=None) as bar:
            for features, labels in batches:
                scored = [values.numpy() for values in self._traced(features, labels)]
                parts.append((scored, {name: value.numpy() for name, value in labels.items()}))
                bar.update(len(scored[0]))
        columns = {name: np.concatenate([labels[name] for _, labels in parts]) for name in parts[0][1]}
        order = np.argsort(columns.pop("row"))
        logits, probabilities, loss = (np.concatenate([scored[i] for scored, _ in parts])[order] for i in range(3))
        labels = {name: values[order] for name, values in columns.items()}
        return Predictions(self._horizons, self._gap, logits, probabilities, loss, labels)

    def _score(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        counts, converts = hazard.targets(
            labels["days_to_conversion"], labels["observed_days"], self._horizons, self._gap
        )
        logits = self._scorer.logits(features)
        loss = hazard.loss(logits, counts, converts, labels["weight"])
        return logits, hazard.probabilities(logits), loss


def ranking(predictions: Predictions, horizon: int) -> tuple[float | None, float | None]:
    """(PR-AUC as average precision, ROC-AUC) at a horizon; None where the journeys hold one outcome only."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    converted, probability = predictions.outcome(horizon)
    if converted.all() or not converted.any():
        return None, None
    return float(average_precision_score(converted, probability)), float(roc_auc_score(converted, probability))
