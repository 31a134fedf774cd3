"""The machines that train together: one chief, which alone writes, and workers that compute the same steps with it.

Vertex AI says who is who in TF_CONFIG, and in CLUSTER_SPEC in its own words.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError

if TYPE_CHECKING:
    import tensorflow as tf

_ROLES = {"workerpool0": "chief", "workerpool1": "worker"}  # the other two pools are for other strategies


@dataclasses.dataclass(frozen=True)
class Cluster:
    """strategy: over all machines and their GPUs; machines: how many there are; is_chief: whether this is the one that
    writes checkpoints, logs, the model and the evaluation."""

    strategy: tf.distribute.Strategy
    machines: int = 1
    is_chief: bool = True

    @classmethod
    def join(cls) -> Cluster:
        """The cluster of the environment; to be called before TensorFlow does anything else.

        Raises UserError where TF_CONFIG or CLUSTER_SPEC cannot be read, or names machines that do not train.
        """
        import tensorflow as tf

        config = _config()
        machines = _machines(config)
        if machines <= 1:
            return cls(local_strategy())
        others = set(config["cluster"]) - set(_ROLES.values())
        if others:
            raise UserError(f"TF_CONFIG: expected chief and worker alone, got {', '.join(sorted(others))}")
        os.environ["TF_CONFIG"] = json.dumps(config)
        return cls(tf.distribute.MultiWorkerMirroredStrategy(), machines, is_chief())

    def agree(self, value: float) -> float:
        """The chief's value, on every machine: what decides how training goes on must not differ by a rounding."""
        return self._sum(value if self.is_chief else 0.0)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any machine: the same answer on all, which all must ask for."""
        return self._sum(float(flag)) > 0.0

    def _sum(self, value: float) -> float:
        """The sum over all machines."""
        if self.machines == 1:
            return value
        return float(self._added(value)) / (self.strategy.num_replicas_in_sync / self.machines)

    @functools.cached_property
    def _added(self) -> Any:
        """The graph that sums over all replicas, traced once."""
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
        def added(mine: tf.Tensor) -> tf.Tensor:
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, self.strategy.run(lambda: mine + 0.0), axis=None)

        return added

    def wait(self) -> None:
        """Returns once every machine has come here."""
        self.agree(0.0)


def is_chief() -> bool:
    """Whether this machine writes what comes out of training: the chief, or the one machine there is."""
    config = _config()
    if _machines(config) <= 1:
        return True
    role, index = config["task"]["type"], config["task"]["index"]
    return bool(role == "chief" or ("chief" not in config["cluster"] and index == 0))


def local_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or the one device there is."""
    import tensorflow as tf

    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _config() -> dict[str, Any]:
    """TF_CONFIG, or what CLUSTER_SPEC says in its words; {} where neither is set."""
    for name in ("TF_CONFIG", "CLUSTER_SPEC"):
        text = os.environ.get(name)
        if not text:
            continue
        try:
            found = json.loads(text)
            cluster, task = found.get("cluster") or {}, found.get("task") or {}
            if not cluster:
                continue
            own = {"cluster": _renamed(cluster), "task": {"type": task["type"], "index": int(task["index"])}}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{name}: expected JSON with cluster and task, got {text[:200]!r}") from None
        own["task"]["type"] = _ROLES.get(own["task"]["type"], own["task"]["type"])
        return own
    return {}


def _machines(config: dict[str, Any]) -> int:
    return sum(len(addresses) for addresses in config["cluster"].values()) if config else 1


def _renamed(cluster: dict[str, list[str]]) -> dict[str, list[str]]:
    return {_ROLES.get(role, role): list(addresses) for role, addresses in cluster.items()}
