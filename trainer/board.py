"""What a training shows while it runs: scalars for TensorBoard, and a log line an epoch."""

from __future__ import annotations

import logging
from typing import Any

import tensorflow as tf

log = logging.getLogger(__name__)

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
