"""An exported model, loaded: arrays in, probabilities out. Needs TensorFlow and the model's directory, no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.blocks import ASKED
from preprocessing.cli import UserError, import_quietly
from preprocessing.manifest import check_manifest
from preprocessing.padded import Coded
from preprocessing.storage import join, localised

METADATA = "parcours.json"
_ROWS_AT_ONCE = 64  # of one journey asked about many campaigns
_LIKE_LENGTH = 512  # of a larger batch so many journeys of like length are scored at once: less padding is computed


class Scorer:
    """A SavedModel of trainer.task behind plain numpy. Safe to call from several threads."""

    def __init__(
        self, model: str | Path, *, intra_op_threads: int | None = None, inter_op_threads: int | None = None
    ) -> None:
        """model: RUN_DIR/model, or gs://…. Threads: as tf.config.threading; None leaves what TensorFlow chooses.

        Raises UserError where there is no model, or none that can be read.
        """
        self.about = read_metadata(model)
        import_quietly("tensorflow")
        import tensorflow as tf

        if intra_op_threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
        if inter_op_threads is not None:
            tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)
        self._constant, self._gather = tf.constant, tf.gather
        try:
            # held on to: its tables and variables are freed with it
            self._loaded = tf.saved_model.load(str(localised(model)))
            self._signatures = dict(self._loaded.signatures)
            self._score = self._signatures["serving_default"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"--model {model}: cannot load the SavedModel: {type(error).__name__}; export it anew with trainer.task"
            ) from None
        self.inputs = frozenset(_inputs(self._score))

    @property
    def has_influence(self) -> bool:
        """Whether the model says what campaigns change."""
        return "influence" in self._signatures

    @property
    def has_evolution(self) -> bool:
        """Whether the model says how the probability moves with each event and each day."""
        return "evolution" in self._signatures

    def score(self, arrays: Mapping[str, np.ndarray | Coded]) -> np.ndarray:
        """float32 [n, horizons]: what `serving_default` answers for arrays as preprocessing.padded makes them."""
        lengths = np.asarray(arrays["length"])
        if len(lengths) <= _LIKE_LENGTH:
            return self._scored(arrays)
        order = np.argsort(lengths, kind="stable")
        parts = []
        for start in range(0, len(order), _LIKE_LENGTH):
            rows = order[start : start + _LIKE_LENGTH]
            steps = slice(lengths[rows[-1]])
            cut = {name: values[rows, steps] if values.ndim == 2 else values[rows] for name, values in arrays.items()}
            parts.append(self._scored(cut))
        answer = np.empty((len(order), parts[0].shape[1]), np.float32)
        answer[order] = np.concatenate(parts)
        return answer

    def _scored(self, arrays: Mapping[str, np.ndarray | Coded]) -> np.ndarray:
        answer: np.ndarray = self._score(**self._tensors(arrays))["probabilities"].numpy()
        return answer

    def influence(
        self, arrays: Mapping[str, np.ndarray | Coded], campaigns: list[str], at_once: int = _ROWS_AT_ONCE
    ) -> dict[str, np.ndarray]:
        """What each campaign changes: campaigns[i] is asked of row i, or all of them of the one row of `arrays`.

        at_once: rows a call of the model. Returns with_campaign, without_campaign, difference float32 [n, horizons],
        NaN where reason object [n] of str is not ""; campaign and claim object [n] of str. Raises KeyError where the
        model has no influence signature.
        """
        signature = self._signatures["influence"]
        rows = len(np.asarray(arrays["length"]))
        parts = []
        for start in range(0, len(campaigns), at_once):
            some = campaigns[start : start + at_once]
            at = np.zeros(len(some), np.int64) if rows == 1 else np.arange(start, start + len(some))
            tensors = self._tensors({name: values[at] for name, values in arrays.items()})
            tensors[ASKED] = self._constant(np.array(some, object))
            answer = signature(**tensors)
            parts.append({name: _plain(value.numpy()) for name, value in answer.items() if name != "key"})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def evolution(self, arrays: Mapping[str, np.ndarray | Coded]) -> dict[str, np.ndarray]:
        """curve float32 [n, d] at days int64 [d]; running float32 [n, r, horizons] at running_time int64 [n, r] (UTC
        microseconds), of which the first running_length int64 [n] count.

        Raises KeyError where the model has no evolution signature.
        """
        answer = self._signatures["evolution"](**self._tensors(arrays))
        evolution = {name: value.numpy() for name, value in answer.items() if name != "key"}
        days = evolution["days"]
        return evolution | {"days": days.reshape(-1, days.shape[-1])[0]}

    def _tensors(self, arrays: Mapping[str, np.ndarray | Coded]) -> dict[str, Any]:
        return {
            name: self._gather(self._constant(values.values), values.codes)
            if isinstance(values, Coded)
            else self._constant(values)
            for name, values in arrays.items()
        }


def read_metadata(model: str | Path, *, checked: bool = True, manifest: str | None = None) -> dict[str, Any]:
    """model/parcours.json: what the exported model says about itself.

    checked: the model's files must be those that its manifest names. manifest: the manifest's own SHA-256, where it is
    known. Raises UserError where they are not, or there is no model.
    """
    directory = localised(model)
    try:
        content = (directory / METADATA).read_bytes()
    except OSError as error:
        raise UserError(
            f"--model {model}: no exported model here ({METADATA}: {error.strerror}); "
            "expected RUN_DIR/model of trainer.task"
        ) from None
    if checked:
        found = check_manifest(directory, f"--model {model}")
        if manifest not in (None, found):
            raise UserError(f"--model {model}: its manifest's SHA-256 is {found}, expected {manifest}: another export")
    try:
        return dict(json.loads(content))
    except ValueError:
        raise UserError(
            f"{join(model, METADATA)}: damaged: not JSON; export the model anew with trainer.task"
        ) from None


def _inputs(signature: Any) -> dict[str, Any]:
    return dict(signature.structured_input_signature[1])


def _plain(values: np.ndarray) -> np.ndarray:
    """Strings as str."""
    if values.dtype != object:
        return values
    return np.array([value.decode() for value in values], object)
