"""The names by which a SavedModel's lookup tables are shared, freed of the paths that TensorFlow puts into them.

TensorFlow calls a table after the file that fills it, and that file lay in a temporary directory of the machine that
prepared the journeys. Left alone, the name would tell of that machine, and differ from run to run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def without_paths(model: Path) -> None:
    """Renames the tables in `model`/saved_model.pb by number and by what the vocabularies hold, and signs it anew.

    By what they hold, since tables of one name in one process are one table.
    """
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.saved_model import fingerprinting_utils  # what tf.saved_model.save calls; none is public

    digest = hashlib.sha256()
    for asset in sorted((model / "assets").glob("*")):
        digest.update(asset.name.encode() + asset.read_bytes())
    file = model / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    tables = [node for graph in saved.meta_graphs for node in _nodes(graph.graph_def) if node.op == "HashTableV2"]
    known = {node.attr["shared_name"].s for node in tables}
    # by the vocabulary's own name, which follows the path; what follows that differs from export to export
    ordered = sorted(known, key=lambda name: name.rpartition(b"/")[2])
    names = {name: f"vocabulary_{i}_{digest.hexdigest()[:16]}".encode() for i, name in enumerate(ordered)}
    for node in tables:
        node.attr["shared_name"].s = names[node.attr["shared_name"].s]
    file.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(model))


def _nodes(graph: Any) -> list[Any]:
    """Every node of a GraphDef, those of its functions included."""
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
