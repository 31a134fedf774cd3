"""What a training shows while it runs: scalars for TensorBoard, and a log line an epoch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import tensorflow as tf

log = logging.getLogger(__name__)

_THRESHOLDS = 201
_EVAL = {"loss": "eval_loss", "pr_auc": "eval_pr_auc", "roc_auc": "eval_roc_auc"}  # a scalar's name, a history key


class Board:
    """Writes below `logs` (on disk or gs://), in train/ and eval/, runs of TensorBoard; nothing where not `writes`."""

    def __init__(self, logs: str, writes: bool = True) -> None:
        def writer(name: str) -> Any:
            place = tf.io.gfile.join(logs, name)
            return tf.summary.create_file_writer(place) if writes else tf.summary.create_noop_writer()

        self.train, self.eval = writer("train"), writer("eval")

    def tell_steps(self, step: int, loss: float, learning_rate: Any) -> None:
        """The mean loss of the steps up to `step`."""
        with self.train.as_default(step=step):
            tf.summary.scalar("loss", loss)
            tf.summary.scalar("learning_rate", learning_rate)

    def tell_resources(self, step: int, values: dict[str, float]) -> None:
        """What trainer.watch saw last, by name."""
        with self.train.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"resources/{name}", value)

    def tell_ranking(self, step: int, horizon: int, converted: np.ndarray, probability: np.ndarray) -> None:
        """The PR curve of eval, for TensorBoard's page of them. converted: bool [journeys]; probability: float.

        The plugin cuts the scores' range, 0 to 1, into even parts, of which rare conversions would fill the lowest few.
        It is given 1 - share ** (1/4) in place of the probability, where share is that of journeys ranked as high or
        higher: the same order, and fine where it matters, at the top.
        """
        from tensorboard.plugins.pr_curve import summary

        if converted.all() or not converted.any():
            return
        share = np.searchsorted(np.sort(-probability), -probability, side="right") / len(probability)
        made = summary.pb(
            f"within_{horizon}_days",
            converted,
            1 - share**0.25,
            num_thresholds=_THRESHOLDS,
            description="threshold t: the (1 - t)^4 of all journeys with the highest predictions",
        )
        for value in made.value:
            metadata = tf.compat.v1.SummaryMetadata.FromString(value.metadata.SerializeToString())
            with self.eval.as_default(step=step):
                tf.summary.write(value.tag, tf.make_ndarray(value.tensor), metadata=metadata)

    def tell_epoch(self, step: int, entry: dict[str, Any], epochs: int, better: bool) -> None:
        """An epoch's history entry, as of `step`; epochs: how many there are at most."""
        with self.eval.as_default(step=step):
            for name, key in _EVAL.items():
                if entry[key] is not None:
                    tf.summary.scalar(name, entry[key])
        self.train.flush()
        self.eval.flush()
        shown = {name: "-" if entry[key] is None else f"{entry[key]:.4f}" for name, key in _EVAL.items()}
        log.info(
            "epoch %d/%d: train loss %.4f, eval loss %s, eval PR-AUC %s, ROC-AUC %s, %.1f s%s",
            entry["epoch"],
            epochs,
            entry["train_loss"],
            shown["loss"],
            shown["pr_auc"],
            shown["roc_auc"],
            entry["seconds"],
            " (best so far)" if better else "",
        )
