"""The network: embeddings, numerics and times of each event through an LSTM, joined with the customer's fields.

Only event columns, customer fields and time enter; what a recency or a count would say, the LSTM has to learn.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import hazard
from trainer.accelerators import cudnn_obstacles
from trainer.calibration import Calibration
from trainer.schema import RecordSchema
from trainer.settings import Settings


class JourneyNetwork(keras.Model):
    """Transformed features -> a hazard logit per interval between horizons.

    `bias`: float32 [intervals], the log odds of train's hazards, where the outputs start. `use_cudnn`: "auto" takes
    cuDNN's kernel on a GPU (all of its conditions hold: accelerators.cudnn_obstacles, and no mask is given); False
    keeps to kernels that any machine has, for export. settings.precision is that of all layers but the last; weights
    and logits are float32.
    """

    def __init__(
        self, schema: RecordSchema, settings: Settings, bias: np.ndarray, use_cudnn: bool | str, name: str
    ) -> None:
        super().__init__(name=name)
        self.schema = schema
        policy = keras.DTypePolicy(settings.precision)
        self.computes = policy.compute_dtype
        categorical = schema.sequence_categorical | schema.customer_categorical
        self.embeddings = {
            name: keras.layers.Embedding(
                size, embedding_width(size, settings.embedding_dim), name=f"embed_{name}", dtype=policy
            )
            for name, size in categorical.items()
        }
        self.lstm = keras.layers.LSTM(
            settings.lstm_units, return_sequences=True, use_cudnn=use_cudnn, name="lstm", dtype=policy
        )
        assert not use_cudnn or not cudnn_obstacles(self.lstm), cudnn_obstacles(self.lstm)
        self.no_events = self.add_weight(shape=(settings.lstm_units,), initializer="zeros", name="no_events")
        self.join = keras.layers.Dense(settings.dense_units, activation="relu", name="join", dtype=policy)
        self.dropout = keras.layers.Dropout(settings.dropout, name="dropout", dtype=policy)
        self.hazards = keras.layers.Dense(  # starts as the constant predictor: what train says on average, of everyone
            len(bias),
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(np.asarray(bias, np.float32)),
            name="hazards",
        )
        self(_one_empty_journey(schema))

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """features: as in records, [batch, max_events] and [batch]. Returns logits float32 [batch, intervals]."""
        return self.answer(self.read(features, training), features, training)

    def read(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The LSTM's state after each event, [batch, steps, units]; steps: of the longest, at least 1."""
        steps = tf.maximum(tf.reduce_max(tf.cast(features["length"], tf.int32)), 1)
        events = [self.embeddings[name](features[name][:, :steps]) for name in self.schema.sequence_categorical]
        events += [tf.cast(features[name][:, :steps, None], self.computes) for name in self.schema.sequence_numeric]
        return self.lstm(tf.concat(events, axis=-1), training=training)

    def answer(self, states: tf.Tensor, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits float32 [batch, intervals] from the states that `read` gives."""
        return self.hazards(self.dropout(self.represent(states, features, training), training=training))

    def represent(self, states: tf.Tensor, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Journey and customer joined, [batch, dense_units] in the precision: all that the hazards are read from."""
        length = tf.cast(features["length"], tf.int32)
        # Right-padded: the state after the last event is read by its place, which needs no mask.
        last = tf.gather(states, tf.maximum(length - 1, 0), batch_dims=1)
        journey = tf.where(length[:, None] > 0, last, tf.cast(self.no_events, self.computes))
        customer = [self.embeddings[name](features[name]) for name in self.schema.customer_categorical]
        customer += [tf.cast(features[name][:, None], self.computes) for name in self.schema.customer_numeric]
        joined = self.dropout(tf.concat([journey, *customer], axis=-1), training=training)
        return self.join(joined)


class JourneyModel(keras.Model):
    """Networks that differ in where they started, and their mean: float32 [batch, intervals] of hazard logits.

    One network learns a small table by heart in its own way; the mean of several keeps what they agree on
    (Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles").
    Arguments as for JourneyNetwork; settings.members says how many.
    """

    def __init__(
        self, schema: RecordSchema, settings: Settings, bias: np.ndarray, use_cudnn: bool | str = "auto"
    ) -> None:
        super().__init__(name="journey")
        self.schema, self.intervals = schema, len(bias)
        self.members = [
            JourneyNetwork(schema, settings, bias, use_cudnn, f"member_{i}") for i in range(settings.members)
        ]
        self(_one_empty_journey(schema))

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        logits = [member(features, training=training) for member in self.members]
        return tf.add_n(logits) / float(len(logits))

    def represent(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """What the networks made of each journey, side by side: float32 [batch, members * dense_units]."""
        parts = [member.represent(member.read(features), features) for member in self.members]
        return tf.concat(parts, axis=-1)


def _one_empty_journey(schema: RecordSchema) -> dict[str, tf.Tensor]:
    """Calling a model with it makes the weights."""
    return {name: tf.zeros((1, *feature.shape), feature.dtype) for name, feature in schema.feature_parsing().items()}


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Probabilities from transformed features. Evaluation, predictions and the exported model all go through here.

    negative_rate: by how much train's resampling, downsampling and class weight in one, thinned the never-converters;
    calibration: None before it is fitted.
    """

    model: JourneyModel
    negative_rate: float
    calibration: Calibration | None = None

    def logits(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Hazard logits at the rate of the whole population, calibrated, float32 [batch, intervals]."""
        logits = hazard.undo_negative_sampling(self.model(features, training=False), self.negative_rate)
        return logits if self.calibration is None else self.calibration(logits)

    def probabilities(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """P(conversion before each horizon), float32 [batch, horizons]."""
        return hazard.probabilities(self.logits(features))


def embedding_width(size: int, most: int) -> int:
    """1.6 * size ** 0.56, rounded (fast.ai's rule of thumb), `most` at most."""
    return min(most, round(1.6 * math.pow(size, 0.56)))


def copy_for_serving(model: JourneyModel, settings: Settings) -> JourneyModel:
    """The same weights in a model that runs wherever TensorFlow does: float32, no cuDNN, no distributed variables."""
    with tf.device("CPU:0"):
        return _copy(model, settings, use_cudnn=False)


def in_float32(model: JourneyModel, settings: Settings) -> JourneyModel:
    """The model as it is exported will answer: the same weights, computed in float32. What is evaluated and calibrated
    is this one, so that what is exported answers exactly what was evaluated."""
    return model if settings.precision == "float32" else _copy(model, settings, use_cudnn="auto")


def _copy(model: JourneyModel, settings: Settings, use_cudnn: bool | str) -> JourneyModel:
    weights: list[Any] = model.get_weights()
    plain = dataclasses.replace(settings, precision="float32")
    copy = JourneyModel(model.schema, plain, np.zeros(model.intervals, np.float32), use_cudnn=use_cudnn)
    copy.set_weights(weights)
    return copy
