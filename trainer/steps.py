"""One step of the training, and several at a call: losses, gradients, and what the optimizer makes of them."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer import hazard
from trainer.dataset import Counts
from trainer.model import JourneyModel
from trainer.next_event import NextEvent
from trainer.optimizer import adamw, loss_scale
from trainer.schema import RecordSchema
from trainer.settings import Settings

_CLIP = 1.0  # global norm of the gradient


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learnt: the records, their fields, and the conversion's windows in days."""

    schema: RecordSchema
    horizons: tuple[int, ...]
    gap: int
    primary_horizon: int
    negative_rate: float
    train_files: Sequence[str]
    train: Counts
    eval_files: Sequence[str]
    eval: Counts


class Step:
    """The model, what is learnt of it, and the optimizer; `several` trains.

    batch_size: journeys a step, over all replicas; steps: how many there may be in all, for the learning rate.
    """

    def __init__(
        self, task: Task, settings: Settings, strategy: tf.distribute.Strategy, batch_size: int, steps: int
    ) -> None:
        self.task, self.settings, self.strategy, self.batch_size = task, settings, strategy, batch_size
        bias = hazard.log_odds(task.train.events, task.train.at_risk, settings.positive_weight)
        with strategy.scope():
            self.model = JourneyModel(task.schema, settings, bias)
            self.next_events = [NextEvent(task.schema, settings.lstm_units) for _ in self.model.members]
            heads = [next_event.trainable_variables if settings.next_event else [] for next_event in self.next_events]
            self.learnt = [
                [*member.trainable_variables, *head] for member, head in zip(self.model.members, heads, strict=True)
            ]
            self.optimizer = adamw(settings, steps, list(itertools.chain(*self.learnt)))
        self.several = tf.function(self._several)

    @property
    def state(self) -> list[Any]:
        """The variables beside the model's that training goes on from."""
        return [*(v for next_event in self.next_events for v in next_event.variables), *self.optimizer.variables]

    def _several(self, batches: Any, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(The summed loss of `count` steps, seconds in which they waited for their batch): one graph call for many, so
        that Python waits seldom.

        A step begins to wait when the gradients of the one before are there. On a GPU they are, for the graph, as soon
        as its work is queued: where the input is quick enough, the wait is nothing there either.
        """
        loss_sum, waited = tf.constant(0.0), tf.constant(0.0, tf.float64)
        for _ in tf.range(count):
            asked = _now(loss_sum)
            with tf.control_dependencies([asked]):
                batch = next(batches)
            waited += _now(*tf.nest.flatten(batch, expand_composites=True)) - asked
            losses = self.strategy.run(self.one, args=batch)
            loss_sum += self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        return loss_sum, waited

    @tf.autograph.experimental.do_not_convert  # no tensor decides an `if` of Python's: reading the source takes seconds
    def one(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> tf.Tensor:
        """One replica's part of a step; returns its part of the members' mean loss of the global batch."""
        scale, replicas = loss_scale(self.optimizer), self.strategy.num_replicas_in_sync
        with tf.GradientTape(persistent=True) as tape:
            losses = [self._losses(number, features, labels) for number in range(len(self.learnt))]
            aims = [aim * scale for _, aim in losses]
        gradients: list[tf.Tensor] = []
        for aim, weights in zip(aims, self.learnt, strict=True):
            found = [tf.convert_to_tensor(gradient) / scale for gradient in tape.gradient(aim, weights)]
            if replicas > 1:  # clipped as one gradient, so that the number of replicas does not matter
                found = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, found)
            gradients += tf.clip_by_global_norm(found, _CLIP)[0]
        # Keras' optimizer takes the scale away, and sums over the replicas once more
        applied = [gradient * (scale / replicas) for gradient in gradients]
        self.optimizer.apply(applied, list(itertools.chain(*self.learnt)))
        with tf.control_dependencies(gradients):
            return tf.add_n([loss for loss, _ in losses]) / len(losses)

    def _losses(
        self, number: int, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One member's hazard loss on a replica's part of the batch, and what it is trained to make small."""
        task, settings, member = self.task, self.settings, self.model.members[number]
        outcome = labels["days_to_conversion"], labels["observed_days"], task.horizons, task.gap
        weight = labels["weight"] * hazard.class_weights(
            *outcome, negative_rate=task.negative_rate, positive_weight=settings.positive_weight
        )
        states = member.read(features, training=True)
        losses = hazard.loss(member.answer(states, features, training=True), *hazard.targets(*outcome), weight)
        loss = tf.reduce_sum(losses) / self.batch_size
        if not settings.next_event:
            return loss, loss
        next_event = tf.reduce_sum(self.next_events[number](states, features)) / self.batch_size
        return loss, loss + settings.next_event * next_event


def _now(*after: tf.Tensor) -> tf.Tensor:
    """Seconds, float64, once the tensors are there. Python's clock: deterministic ops exclude TensorFlow's."""
    with tf.control_dependencies(after):
        return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])
