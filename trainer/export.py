"""The SavedModel as files: written, named by what it computes, described for servers, published.

It loads with TensorFlow alone and needs no file beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from preprocessing.manifest import MANIFEST, named_by
from preprocessing.spec import AnySpec, EventsSpec
from preprocessing.storage import WHOLE
from trainer import __version__
from trainer.model import Scorer
from trainer.served import ServedModel, vocabulary
from trainer.settings import Settings
from trainer.support import Support
from trainer.table_names import without_paths

METADATA = "parcours.json"
_VALUES = 50  # of a categorical field, in the metadata: enough to make up a request by


def export(
    scorer: Scorer,
    transform: Path,
    spec: AnySpec,
    settings: Settings,
    output: Path,
    *,
    support: Support | None = None,
) -> str:
    """Writes the SavedModel, parcours.json and spec.yaml to `output`, an existing directory; returns model_version.

    support: wanted where the spec has assignments (trainer.support).
    """
    served = ServedModel(scorer, transform, spec, settings, support)
    tf.saved_model.save(served, str(output), signatures=served.signatures())
    without_paths(output)
    version = model_version(scorer, transform, spec)
    about = _metadata(spec, settings, version, transform, support)
    (output / METADATA).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (output / "spec.yaml").write_bytes((transform / "spec.yaml").read_bytes())
    return version


def model_version(scorer: Scorer, transform: Path, spec: AnySpec) -> str:
    """Twelve hexadecimal digits that say what the model computes: its weights, its transform graph, its
    corrections and its windows.

    The same training on the same journeys has the same version. Of the graph count its vocabularies and its numbers,
    where tf.Transform's moments are: node names and argument orders differ from run to run and compute nothing.
    """
    digest = hashlib.sha256()
    for variable in scorer.model.weights:
        digest.update(variable.path.encode() + np.ascontiguousarray(variable.numpy()).tobytes())
    graph = transform / "transform_fn"
    for asset in sorted(graph.glob("assets/*")):
        digest.update(asset.name.encode() + asset.read_bytes())
    for number in _constants(graph / "saved_model.pb"):
        digest.update(number)
    calibration = scorer.calibration and dataclasses.asdict(scorer.calibration)
    corrections = [spec.horizons_days, spec.gap_days, scorer.negative_rate, calibration]
    asked = [spec.assignments.consequences, spec.assignments.randomised] if spec.assignments else []
    digest.update(json.dumps([*corrections, *asked]).encode())
    return digest.hexdigest()[:12]


def _constants(saved_model: Path) -> list[bytes]:
    """Every number in the graph of a SavedModel, in an order of their own."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString(saved_model.read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    numeric = [tensor for tensor in tensors if tensor.dtype != tf.string.as_datatype_enum]
    return sorted(tensor.SerializeToString(deterministic=True) for tensor in numeric)


def _metadata(
    spec: AnySpec, settings: Settings, version: str, transform: Path, support: Support | None = None
) -> dict[str, Any]:
    """What a server needs to know of the model, without the spec."""
    dated = isinstance(spec, EventsSpec)
    values = vocabulary(transform, (*spec.sequence.categorical, *spec.customer_categorical))
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
        **spec.kinds,
        "campaigns": _campaigns(spec, transform, support),
        "vocabulary": {name: found[:_VALUES] for name, found in values.items()},
        "settings": dataclasses.asdict(settings),
    }


def _campaigns(spec: AnySpec, transform: Path, support: Support | None) -> dict[str, Any] | None:
    """The events' campaign column, None where they have none; the campaigns that can be asked about (`assigned`: at an
    assignment, touched or not); and those over which lots were drawn."""
    if not isinstance(spec, EventsSpec) or spec.campaigns is None:
        return None
    column = spec.campaigns.column
    if spec.assignments is None or support is None:
        known = vocabulary(transform, (column,))[column] if column else []
        return {"column": column, "assigned": False, "known": known, "randomised": []}
    drawn = [campaign for campaign in support.known if spec.assignments.is_randomised(campaign)]
    return {"column": column, "assigned": True, "known": list(support.known), "randomised": drawn}


def publish(model: Path, place: str) -> None:
    """Copies an exported model to `place`, a directory or gs://…; saved_model.pb last: without it, it is no model.

    What an earlier model left there goes away first: its manifest would not name it.
    """
    files = sorted(
        (path for path in model.rglob("*") if path.is_file() and path.name != WHOLE),  # its mark is of its own place
        key=lambda path: path.name == "saved_model.pb",
    )
    for name in ("saved_model.pb", *_of_earlier(place)):
        stale = tf.io.gfile.join(place, name)
        if tf.io.gfile.exists(stale):
            tf.io.gfile.remove(stale)
    for path in files:
        target = tf.io.gfile.join(place, path.relative_to(model).as_posix())
        tf.io.gfile.makedirs(target.rpartition("/")[0])
        tf.io.gfile.copy(str(path), target, overwrite=True)


def _of_earlier(place: str) -> list[str]:
    """The files of the model that was published there before, as its manifest names them."""
    manifest = tf.io.gfile.join(place, MANIFEST)
    if not tf.io.gfile.exists(manifest):
        return []
    with tf.io.gfile.GFile(manifest, "rb") as file:
        return named_by(file.read())
