"""What a stopped training goes on from: weights, optimizer, random state, the place in the data and the history.

All of it lies in one TensorFlow checkpoint, so that no part can be newer than another. The weights of the best epoch
lie beside it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from preprocessing.cli import UserError
from trainer.cluster import Cluster

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """Where a training stands. `loss_sum` runs over the steps of the epoch under way; `spent_seconds`: of all attempts
    so far, from the start of their processes, as budgets count them; `call_seconds`, `look_seconds`: what the last call
    of several steps took by the same clock, and the last look at eval."""

    epoch: int = 1
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    spent_seconds: float = 0.0
    call_seconds: float = 0.0
    look_seconds: float | None = None
    best_epoch: int = 0
    best_score: float | None = None
    finished: bool = False
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class _Stored(tf.train.experimental.PythonState):
    """Progress, as a checkpoint keeps it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self.progress))

    def deserialize(self, string_value: str) -> None:
        for name, value in json.loads(string_value).items():
            setattr(self.progress, name, value)


class Checkpoints:
    """Saves and restores one training in `directory`; `settings_file` says which training that is."""

    def __init__(
        self,
        directory: str,
        settings_file: str,
        identity: dict[str, Any],
        model: keras.Model,
        others: Sequence[keras.Variable],
        *,
        cluster: Cluster,
    ) -> None:
        """identity: what must be the same for an earlier training to be taken up again, JSON values by name; others:
        what training needs beside the model, the optimizer's state say; cluster: of which only the chief writes."""
        self._settings_file, self._identity, self._cluster = settings_file, identity, cluster
        self.progress = Progress()
        # `variables`, not `weights`: they hold the random state of dropout too. By place, not by name, since Keras
        # numbers the names of random states through the whole process.
        weights = [variable.value for variable in model.variables]
        state = [variable.value for variable in others]
        self._places = {name: tf.io.gfile.join(directory, name) for name in ("latest", "best")}
        self._latest = self._manager("latest", weights=weights, others=state, progress=_Stored(self.progress))
        self._best = self._manager("best", weights=weights)

    def _manager(self, name: str, **parts: Any) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(tf.train.Checkpoint(**parts), self._places[name], max_to_keep=2)

    def resume(self, restart: bool = False) -> bool:
        """Takes up what an earlier run with the same identity left, or clears it away and says why.

        Returns whether there was something to go on from. Raises UserError where its checkpoint can't be read.
        """
        there = self._cluster.agree(float(self._cluster.is_chief and self._is_there(restart)))
        if not there:
            return False
        _restore(self._latest.checkpoint, self._latest.latest_checkpoint)
        where = "finished" if self.progress.finished else f"stopped after step {self.progress.step:,}"
        log.info("training: an earlier run with these settings %s; going on from there", where)
        return True

    def _is_there(self, restart: bool) -> bool:
        """Whether there is a training to go on from; if not, its place is made ready for a new one."""
        reason = "--restart" if restart else self._difference()
        if reason is None and self._latest.latest_checkpoint:
            return True
        if reason is not None:
            log.info("training anew: %s", reason)
        for place in self._places.values():
            if tf.io.gfile.exists(place):
                tf.io.gfile.rmtree(place)
        tf.io.gfile.makedirs(self._settings_file.rpartition("/")[0])
        with tf.io.gfile.GFile(self._settings_file, "w") as file:
            file.write(json.dumps(self._identity, indent=1) + "\n")
        return False

    def _difference(self) -> str | None:
        """Why what lies there can't be taken up; None where it can, or where nothing lies there."""
        if not tf.io.gfile.exists(self._settings_file):
            return None
        with tf.io.gfile.GFile(self._settings_file) as file:
            try:
                found = json.loads(file.read())
            except ValueError:
                return "the settings of the training before are only half written"
        wanted = json.loads(json.dumps(self._identity))
        changed = [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
        return "; ".join(f"{name} was {found.get(name)}, is {wanted.get(name)}" for name in changed) or None

    def save(self) -> None:
        """Saves the training as it stands."""
        if not self._cluster.is_chief:
            return
        self._latest.save(self.progress.step)

    def save_best(self) -> None:
        """Keeps the weights of the epoch under way, the best so far, for the end."""
        if not self._cluster.is_chief:
            return
        self._best.save(self.progress.epoch)

    def restore_best(self) -> None:
        """Puts the weights of the best epoch into the model; on the chief alone, which exports it."""
        if not self._cluster.is_chief:
            return
        _restore(self._best.checkpoint, tf.io.gfile.join(self._places["best"], f"ckpt-{self.progress.best_epoch}"))


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.restore(path).assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:  # all of these TensorFlow raises
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: cannot restore this checkpoint ({reason}); train anew with --restart") from None
