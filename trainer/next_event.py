"""The auxiliary task: from what the LSTM has read up to an event, what comes next and when.

Labels are rare and events are many. Predicting each next event teaches the network what journeys are like before, and
while, it learns which of them convert (Dai & Le 2015, "Semi-supervised sequence learning"). Its heads exist in training
only: nothing of them is exported.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.schema import RecordSchema

TIME = "log_gap"  # the standardised log of the seconds since the event before


class NextEvent(keras.layers.Layer):
    """One softmax a categorical field, and the time to the next event."""

    def __init__(self, schema: RecordSchema, units: int) -> None:
        """units: of the LSTM."""
        super().__init__(name="next_event")
        self.fields = dict(schema.sequence_categorical)
        self.heads = {name: keras.layers.Dense(size, name=f"next_{name}") for name, size in self.fields.items()}
        self.time = keras.layers.Dense(1, name=f"next_{TIME}")
        for head in (*self.heads.values(), self.time):
            head.build((None, None, units))

    def call(self, states: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """states: float32 [batch, steps, units], the LSTM's after each event; features: as in records, of as many steps
        or more. Returns float32 [batch]: over the events that have a next one and over the heads, the mean of the
        cross-entropies of its fields and of the squared error of its time; 0 for a journey of fewer than two events.
        """
        steps = tf.shape(states)[1]
        before = states[:, :-1]
        follows = tf.sequence_mask(features["length"] - 1, steps - 1, tf.float32)
        error = tf.square(features[TIME][:, 1:steps] - self.time(before)[..., 0])
        for name, head in self.heads.items():
            error += tf.nn.sparse_softmax_cross_entropy_with_logits(features[name][:, 1:steps], head(before))
        error /= float(len(self.heads) + 1)
        return tf.reduce_sum(error * follows, axis=1) / tf.maximum(tf.reduce_sum(follows, axis=1), 1)
