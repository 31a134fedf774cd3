"""What a transformed record holds, as transform/features.json says it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.blocks import ASSIGNMENT_COLUMNS
from preprocessing.cli import UserError

if TYPE_CHECKING:
    import tensorflow as tf

LABELS = ("days_to_conversion", "observed_days", "weight")
KEYS = ("customer_key", "journey_id", "as_of", "held_out")


@dataclasses.dataclass(frozen=True)
class RecordSchema:
    """Fields of a record: how many ids each categorical one has (0 = padding, 1 = out of vocabulary), the numerics."""

    max_events: int
    sequence_categorical: dict[str, int]
    sequence_numeric: tuple[str, ...]
    customer_categorical: dict[str, int]
    customer_numeric: tuple[str, ...]

    @classmethod
    def load(cls, transform: Path) -> RecordSchema:
        """Reads transform/features.json. Raises UserError where it is not what the pipeline writes."""
        path = transform / "features.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(content["max_events"]), *_split(content["sequence"]), *_split(content["customer"]))
        except OSError as error:
            raise UserError(
                f"{path}: cannot read: {error.strerror}; make it with: python -m preprocessing.task"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: expected max_events, sequence and customer with their kinds: {error!r}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature that the model takes."""
        return (
            *self.sequence_categorical,
            *self.sequence_numeric,
            *self.customer_categorical,
            *self.customer_numeric,
            "length",
        )

    def feature_parsing(self) -> dict[str, tf.io.FixedLenFeature]:
        """How tf.io.parse_example reads the features."""
        import tensorflow as tf

        steps = (self.max_events,)
        return {
            **{name: tf.io.FixedLenFeature(steps, tf.int64) for name in self.sequence_categorical},
            **{name: tf.io.FixedLenFeature(steps, tf.float32) for name in self.sequence_numeric},
            **{name: tf.io.FixedLenFeature((), tf.int64) for name in self.customer_categorical},
            **{name: tf.io.FixedLenFeature((), tf.float32) for name in self.customer_numeric},
            "length": tf.io.FixedLenFeature((), tf.int64),
        }

    @staticmethod
    def assignment_parsing() -> dict[str, tf.io.FixedLenFeature]:
        """How tf.io.parse_example reads the assignment that rides along, where the spec has assignments."""
        import tensorflow as tf

        kinds = (tf.string, tf.int64, tf.float32)
        return {name: tf.io.FixedLenFeature((), kind) for name, kind in zip(ASSIGNMENT_COLUMNS, kinds, strict=True)}

    @staticmethod
    def label_parsing(keys: bool = False) -> dict[str, tf.io.FixedLenFeature]:
        """How tf.io.parse_example reads what rides along: the labels, and on demand the keys."""
        import tensorflow as tf

        labels = {name: tf.io.FixedLenFeature((), tf.float32) for name in LABELS}
        if keys:
            kinds = (tf.string, tf.string, tf.int64, tf.int64)
            labels |= {name: tf.io.FixedLenFeature((), kind) for name, kind in zip(KEYS, kinds, strict=True)}
        return labels


def read_vocabulary(transform: Path) -> dict[str, list[str]]:
    """Every value of the categorical fields, from transform/features.json, in the order of their ids, from 2 on."""
    fields = json.loads((transform / "features.json").read_text(encoding="utf-8"))
    found = fields["sequence"] | fields["customer"]
    return {name: field["vocabulary"] for name, field in found.items() if field["kind"] == "categorical"}


def _split(fields: dict[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    kinds = {name: field["kind"] for name, field in fields.items()}
    unknown = set(kinds.values()) - {"categorical", "numeric"}
    if unknown:
        raise ValueError(f"unknown kind {sorted(unknown)[0]!r}")
    categorical = {name: int(fields[name]["size"]) for name, kind in kinds.items() if kind == "categorical"}
    return categorical, tuple(name for name, kind in kinds.items() if kind == "numeric")
