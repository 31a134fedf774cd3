"""The SavedModel: the transform graph and the network as one, raw journeys in, probabilities out.

It loads with TensorFlow alone and needs no file beside it. Two ways in, which meet in one function:
`serving_default` takes rectangular tensors (what TF Serving's rows are), `examples` serialized tf.train.Example.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from preprocessing.spec import AnySpec, EventsSpec
from trainer import __version__
from trainer.model import JourneyModel, Scorer, copy_for_serving
from trainer.settings import Settings

METADATA = "parcours.json"
_LAST = tf.int64.max


class ServedModel(tf.Module):
    """A trained model behind its transform graph."""

    def __init__(self, model: JourneyModel, transform: Path, spec: AnySpec, settings: Settings) -> None:
        """transform: the run directory's transform/, whose graph is taken in whole, vocabularies included."""
        super().__init__()
        copy = copy_for_serving(model, settings)
        self._spec = spec
        self._scorer = Scorer(copy, spec.sampling.negative_rate)
        self._variables = [variable.value for variable in copy.variables]
        self._transform = tf.saved_model.load(str(transform / "transform_fn"))
        self._sequence = {
            "event_time": tf.int64,
            **dict.fromkeys(spec.sequence.categorical, tf.string),
            **dict.fromkeys(spec.sequence_numeric, tf.float32),
        }
        self._customer = dict.fromkeys(spec.customer_categorical, tf.string) | dict.fromkeys(
            spec.customer_numeric, tf.float32
        )

    def signatures(self) -> dict[str, Any]:
        """The functions that tf.saved_model.save takes, traced."""
        padded = {name: tf.TensorSpec([None, None], dtype, name) for name, dtype in self._sequence.items()}
        scalars = {name: tf.TensorSpec([None], dtype, name) for name, dtype in self._customer.items()}
        given = {name: tf.TensorSpec([None], dtype, name) for name, dtype in _GIVEN.items()}
        return {
            "serving_default": tf.function(self.padded).get_concrete_function(**padded, **scalars, **given),
            "examples": tf.function(self.examples).get_concrete_function(
                examples=tf.TensorSpec([None], tf.string, "examples")
            ),
        }

    def padded(self, **journeys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores journeys given as rectangular tensors.

        journeys: every sequence field [batch, steps] (event_time int64 UTC microseconds, others string or float32), of
        which the first `length` int64 [batch] count, in any order; customer fields, as_of int64 and key string [batch].
        Returns key as it came and probabilities float32 [batch, horizons].
        """
        length, as_of = journeys["length"], journeys["as_of"]
        times = journeys["event_time"]
        steps = tf.shape(times, tf.int64)[1]
        tf.debugging.assert_non_negative(length, "length: expected 0 or more")
        tf.debugging.assert_less_equal(length, steps, "length: expected no more than the steps that the fields have")
        inside = tf.sequence_mask(length, steps)
        # Events come in any order; the graph reads them oldest first. Equal times keep the order they came in.
        order = tf.argsort(tf.where(inside, times, _LAST), axis=1, stable=True)
        raw: dict[str, Any] = {name: journeys[name] for name in self._customer} | {"as_of": as_of}
        for name in self._sequence:
            ordered = tf.gather(journeys[name], order, batch_dims=1)
            raw[name] = tf.RaggedTensor.from_tensor(ordered, lengths=length)
        features = self._transform.transform_fn(raw)
        return {"key": journeys["key"], "probabilities": self._scorer.probabilities(features)}

    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores journeys given as serialized tf.train.Example, string [batch], whose features bear the fields' names.

        as_of is required. Sequence fields are lists as long as event_time; one left out counts as missing throughout,
        and so does a customer field (a journey without event_time is empty). Returns what `padded` does.
        """
        parsing: dict[str, Any] = {
            name: tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64)
            for name, dtype in self._sequence.items()
        }
        parsing |= {name: tf.io.FixedLenFeature([], dtype, _MISSING[dtype]) for name, dtype in self._customer.items()}
        parsing |= {"as_of": tf.io.FixedLenFeature([], tf.int64), "key": tf.io.FixedLenFeature([], tf.string, "")}
        journeys = tf.io.parse_example(examples, parsing)
        length = journeys["event_time"].row_lengths()
        steps = tf.reduce_max(tf.concat([length, [0]], axis=0))
        shape = tf.stack([tf.constant(-1, tf.int64), steps])
        for name, dtype in self._sequence.items():
            lengths = journeys[name].row_lengths()
            tf.debugging.Assert(
                tf.reduce_all((lengths == length) | (lengths == 0)),
                [f"{name}: expected as many values as event_time has"],
            )
            journeys[name] = journeys[name].to_tensor(_MISSING[dtype], shape=shape)
        return self.padded(length=length, **journeys)


_GIVEN = {"as_of": tf.int64, "length": tf.int64, "key": tf.string}
_MISSING: dict[tf.DType, Any] = {tf.string: "", tf.float32: float("nan"), tf.int64: 0}


def export(model: JourneyModel, transform: Path, spec: AnySpec, settings: Settings, output: Path) -> str:
    """Writes the SavedModel, parcours.json and spec.yaml to `output`, an existing directory; returns model_version."""
    served = ServedModel(model, transform, spec, settings)
    tf.saved_model.save(served, str(output), signatures=served.signatures())
    version = model_version(model, transform, spec)
    (output / METADATA).write_text(json.dumps(_metadata(spec, settings, version), indent=1) + "\n", encoding="utf-8")
    (output / "spec.yaml").write_bytes((transform / "spec.yaml").read_bytes())
    return version


def model_version(model: JourneyModel, transform: Path, spec: AnySpec) -> str:
    """Twelve hexadecimal digits that say what the model computes: its weights, its transform graph and its windows.

    The same training on the same journeys has the same version. Of the graph count its vocabularies and its numbers,
    where tf.Transform's moments are: node names and argument orders differ from run to run and compute nothing.
    """
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(variable.path.encode() + np.ascontiguousarray(variable.numpy()).tobytes())
    graph = transform / "transform_fn"
    for asset in sorted(graph.glob("assets/*")):
        digest.update(asset.name.encode() + asset.read_bytes())
    for number in _constants(graph / "saved_model.pb"):
        digest.update(number)
    digest.update(json.dumps([spec.horizons_days, spec.gap_days, spec.sampling.negative_rate]).encode())
    return digest.hexdigest()[:12]


def _constants(saved_model: Path) -> list[bytes]:
    """Every number in the graph of a SavedModel, in an order of their own."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString(saved_model.read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    numeric = [tensor for tensor in tensors if tensor.dtype != tf.string.as_datatype_enum]
    return sorted(tensor.SerializeToString(deterministic=True) for tensor in numeric)


def _metadata(spec: AnySpec, settings: Settings, version: str) -> dict[str, Any]:
    """What a server needs to know of the model, without the spec."""
    dated = isinstance(spec, EventsSpec)
    return {
        "model_version": version,
        "package_version": __version__,
        "tensorflow_version": tf.__version__,
        "journeys": "dated" if dated else "ready-made",
        "horizons_days": list(spec.horizons_days),
        "gap_days": spec.gap_days,
        "primary_horizon": spec.primary_horizon,
        "conversion": spec.conversion.where if isinstance(spec, EventsSpec) else spec.journeys.label,
        "max_events": spec.sequence.max_events,
        "first_events": spec.first_events,
        "lookback_days": spec.snapshots.lookback_days if isinstance(spec, EventsSpec) else None,
        "sequence": {
            **dict.fromkeys(spec.sequence.categorical, "categorical"),
            **dict.fromkeys(spec.sequence_numeric, "numeric"),
        },
        "customer": {
            **dict.fromkeys(spec.customer_categorical, "categorical"),
            **dict.fromkeys(spec.customer_numeric, "numeric"),
        },
        "settings": dataclasses.asdict(settings),
    }


def publish(model: Path, place: str) -> None:
    """Copies an exported model to `place`, a directory or gs://…; saved_model.pb last: without it, it is no model."""
    files = sorted(
        (path for path in model.rglob("*") if path.is_file()), key=lambda path: path.name == "saved_model.pb"
    )
    stale = tf.io.gfile.join(place, "saved_model.pb")
    if tf.io.gfile.exists(stale):
        tf.io.gfile.remove(stale)
    for path in files:
        target = tf.io.gfile.join(place, path.relative_to(model).as_posix())
        tf.io.gfile.makedirs(target.rpartition("/")[0])
        tf.io.gfile.copy(str(path), target, overwrite=True)
