"""The network: embeddings, numerics and times of each event through an LSTM, joined with the customer's fields.

Only event columns, customer fields and time enter; what a recency or a count would say, the LSTM has to learn.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import hazard
from trainer.schema import RecordSchema
from trainer.settings import Settings


class JourneyModel(keras.Model):
    """Transformed features -> a hazard logit per interval between horizons.

    `bias`: float32 [intervals], the log odds of train's hazards, where the outputs start. `use_cudnn`: "auto" takes
    cuDNN's kernel on a GPU (all of its conditions hold: default activations, no recurrent dropout, no mask, no
    unrolling); False keeps to kernels that any machine has, for export.
    """

    def __init__(
        self, schema: RecordSchema, settings: Settings, bias: np.ndarray, use_cudnn: bool | str = "auto"
    ) -> None:
        super().__init__(name="journey")
        self.schema = schema
        categorical = schema.sequence_categorical | schema.customer_categorical
        self.embeddings = {
            name: keras.layers.Embedding(size, embedding_width(size, settings.embedding_dim), name=f"embed_{name}")
            for name, size in categorical.items()
        }
        self.lstm = keras.layers.LSTM(settings.lstm_units, return_sequences=True, use_cudnn=use_cudnn, name="lstm")
        self.no_events = self.add_weight(shape=(settings.lstm_units,), initializer="zeros", name="no_events")
        self.join = keras.layers.Dense(settings.dense_units, activation="relu", name="join")
        self.dropout = keras.layers.Dropout(settings.dropout, name="dropout")
        self.hazards = keras.layers.Dense(  # starts as the constant predictor: what train says on average, of everyone
            len(bias),
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(np.asarray(bias, np.float32)),
            name="hazards",
        )
        self(self._example())

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """features: as in records, [batch, max_events] and [batch]. Returns logits float32 [batch, intervals]."""
        length = tf.cast(features["length"], tf.int32)
        steps = tf.maximum(tf.reduce_max(length), 1)  # what every journey pads is not computed
        events = [self.embeddings[name](features[name][:, :steps]) for name in self.schema.sequence_categorical]
        events += [features[name][:, :steps, None] for name in self.schema.sequence_numeric]
        states = self.lstm(tf.concat(events, axis=-1), training=training)
        # Right-padded: the state after the last event is read by its place, which needs no mask.
        last = tf.gather(states, tf.maximum(length - 1, 0), batch_dims=1)
        journey = tf.where(length[:, None] > 0, last, self.no_events)
        customer = [self.embeddings[name](features[name]) for name in self.schema.customer_categorical]
        customer += [features[name][:, None] for name in self.schema.customer_numeric]
        joined = self.dropout(tf.concat([journey, *customer], axis=-1), training=training)
        return self.hazards(self.dropout(self.join(joined), training=training))

    def _example(self) -> dict[str, tf.Tensor]:
        """One empty journey: calling the model with it makes the weights."""
        return {
            name: tf.zeros((1, *feature.shape), feature.dtype)
            for name, feature in self.schema.feature_parsing().items()
        }


class Scorer:
    """Probabilities from transformed features. Evaluation, predictions and the exported model all go through here."""

    def __init__(self, model: JourneyModel, negative_rate: float) -> None:
        self.model, self.negative_rate = model, negative_rate

    def logits(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Hazard logits at the rate of the whole population, float32 [batch, intervals]."""
        return hazard.undo_negative_sampling(self.model(features, training=False), self.negative_rate)

    def probabilities(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """P(conversion before each horizon), float32 [batch, horizons]."""
        return hazard.probabilities(self.logits(features))


def embedding_width(size: int, most: int) -> int:
    """1.6 * size ** 0.56, rounded (fast.ai's rule of thumb), `most` at most."""
    return min(most, round(1.6 * math.pow(size, 0.56)))


def copy_for_serving(model: JourneyModel, settings: Settings) -> JourneyModel:
    """The same weights in a model that runs wherever TensorFlow does: no cuDNN, no distributed variables."""
    weights: list[Any] = model.get_weights()
    with tf.device("CPU:0"):
        copy = JourneyModel(model.schema, settings, np.zeros(model.hazards.units, np.float32), use_cudnn=False)
    copy.set_weights(weights)
    return copy
