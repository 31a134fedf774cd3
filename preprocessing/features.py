"""From a raw journey to fixed-length tensors: the only place where features are made.

`preprocessing_fn` runs twice: in the pipeline, where tf.Transform also measures vocabularies and moments on the train
split, and inside the exported model, as the graph that came out. Training and serving are one graph.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from preprocessing.blocks import NONE, RARE
from preprocessing.spec import AnySpec, EventsSpec, JourneysSpec

PADDING, OUT_OF_VOCABULARY, FIRST_ID = 0, 1, 2
_MICROS = 1e-6
_FAR = 3.0  # standard deviations


def raw_feature_spec(spec: AnySpec) -> dict[str, Any]:
    """What a raw journey is to TensorFlow: ragged sequence fields, scalar customer fields, times in UTC µs."""

    def ragged(name: str, dtype: tf.DType) -> tf.io.RaggedFeature:
        return tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64)

    features: dict[str, Any] = {
        "as_of": tf.io.FixedLenFeature([], tf.int64),
        "event_time": ragged("event_time", tf.int64),
    }
    features |= {name: ragged(name, tf.string) for name in spec.sequence.categorical}
    features |= {name: ragged(name, tf.float32) for name in spec.sequence_numeric}
    features |= {name: tf.io.FixedLenFeature([], tf.string) for name in spec.customer_categorical}
    features |= {name: tf.io.FixedLenFeature([], tf.float32) for name in spec.customer_numeric}
    return features


def preprocessing_fn(journey: dict[str, Any], spec: AnySpec) -> dict[str, tf.Tensor]:
    """Makes the features of a batch of journeys, events oldest first.

    journey: as raw_feature_spec says. Returns [batch, max_events] tensors for the sequence (int64 ids or float32),
    right-padded with 0, `length` int64 [batch], and [batch] tensors for the customer fields. Events at or after as_of,
    or older than the lookback, are dropped here too, so that a request which brings them is answered as training would
    have seen it.
    """
    steps = _VisibleSteps(journey["event_time"], journey["as_of"], spec)
    features: dict[str, tf.Tensor] = {"length": steps.lengths}
    for name in spec.sequence.categorical:
        features[name] = steps.pad(_ids(steps.of(journey[name]), name))
    for name in spec.sequence_numeric:
        value, missing = _standardised(_signed_log(steps.of(journey[name])))
        features[name], features[f"{name}_missing"] = steps.pad(value), steps.pad(missing)
    features |= _time_features(steps, spec)
    for name in spec.customer_categorical:
        features[name] = _ids(journey[name], name)
    for name in spec.customer_numeric:
        features[name], features[f"{name}_missing"] = _standardised(_signed_log(journey[name]))
    return features


def _time_features(steps: _VisibleSteps, spec: AnySpec) -> dict[str, tf.Tensor]:
    """The time since the event before and, where there is one, until as_of, each as its log and as it is."""
    gap = steps.seconds_since_previous()
    features = {"no_gap": steps.pad(tf.cast(gap == 0, tf.float32))}
    seconds = {"gap": gap} | ({"to_as_of": steps.seconds_to_as_of()} if isinstance(spec, EventsSpec) else {})
    for name, value in seconds.items():
        features[f"log_{name}"] = steps.pad(_standardised(tf.math.log1p(value))[0])
        # The log tells minutes from hours, the other one March from May; what lies far out says no more than far.
        linear, _ = _standardised(value)
        features[f"linear_{name}"] = steps.pad(tf.clip_by_value(linear, -_FAR, _FAR))
    return features


class _VisibleSteps:
    """The events of each journey that the model may see, as flat tensors with their row of the batch."""

    def __init__(self, times: tf.RaggedTensor, as_of: tf.Tensor, spec: AnySpec) -> None:
        rows, flat = times.value_rowids(), times.flat_values
        self._count = times.nrows()
        if isinstance(spec, JourneysSpec):
            visible = tf.ones_like(flat, tf.bool)
        else:
            until = tf.gather(as_of, rows)
            visible = (flat < until) & (flat >= until - spec.lookback_us)
        position = _position(rows, visible, self._count)
        if spec.first_events is not None:
            visible &= position < spec.first_events
        kept = tf.math.unsorted_segment_sum(tf.cast(visible, tf.int64), rows, self._count)
        visible &= position >= tf.gather(kept, rows) - spec.sequence.max_events
        self._visible = visible
        self._rows = tf.boolean_mask(rows, visible)
        self._times = tf.boolean_mask(flat, visible)
        self._max_events = spec.sequence.max_events
        self._until = tf.gather(as_of, self._rows)
        self.lengths = tf.math.minimum(kept, spec.sequence.max_events)

    def of(self, field: tf.RaggedTensor) -> tf.Tensor:
        """The visible values of a ragged field, flat."""
        return tf.boolean_mask(field.flat_values, self._visible)

    def pad(self, flat: tf.Tensor) -> tf.Tensor:
        """[batch, max_events], right-padded with 0."""
        ragged = tf.RaggedTensor.from_value_rowids(flat, self._rows, nrows=self._count, validate=False)
        return ragged.to_tensor(shape=[None, self._max_events])

    def seconds_since_previous(self) -> tf.Tensor:
        """float32; 0 for the first event of a journey."""
        gap = self._times[1:] - self._times[:-1]
        same = tf.cast(self._rows[1:] == self._rows[:-1], tf.int64)
        return _seconds(tf.concat([tf.zeros_like(self._times[:1]), gap * same], axis=0))

    def seconds_to_as_of(self) -> tf.Tensor:
        return _seconds(self._until - self._times)


def _position(rows: tf.Tensor, visible: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The index of each visible event among the visible ones of its journey."""
    ones = tf.cast(visible, tf.int64)
    starts = tf.cumsum(tf.math.unsorted_segment_sum(ones, rows, count), exclusive=True)
    return tf.cumsum(ones, exclusive=True) - tf.gather(starts, rows)


def _seconds(micros: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(micros, tf.float64) * _MICROS, tf.float32)


def _signed_log(value: tf.Tensor) -> tf.Tensor:
    """sign(x) log(1 + |x|): amounts span decades, and returns are negative."""
    return tf.sign(value) * tf.math.log1p(tf.abs(value))


def _standardised(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z-scores by the moments of the train split, 0 where missing (NaN); and 1.0 where missing."""
    missing = tf.math.is_nan(value)
    present = tf.boolean_mask(value, ~missing)
    mean, variance = tft.mean(present), tft.var(present)
    scale = tf.where(variance > 0, tf.sqrt(variance), tf.ones_like(variance))
    return tf.where(missing, tf.zeros_like(value), (value - mean) / scale), tf.cast(missing, tf.float32)


def _ids(value: tf.Tensor, name: str) -> tf.Tensor:
    """int64 ids: 1 out of vocabulary, 2… by falling frequency in train."""
    value = tf.where(value == "", NONE, value)
    counted = tf.where(value == RARE, "", value)  # the empty string enters no vocabulary
    # Weights of one make tf.Transform count within a batch in the graph, which is twice as fast as counting in Beam.
    vocabulary = tft.vocabulary(counted, weights=tf.ones_like(counted, tf.float32), vocab_filename=name)
    return tft.apply_vocabulary(value, vocabulary, default_value=OUT_OF_VOCABULARY - FIRST_ID) + FIRST_ID
