"""Predictions, labels and truth brought to the same rows: by journey_id, and truth by customer_key and as_of."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing.cli import UserError
from trainer.outcomes import Outcomes, microseconds

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def aligned(
    split: str, predictions: pa.Table, outcomes: Outcomes, horizons: tuple[int, ...], notes: list[str]
) -> tuple[Outcomes, dict[int, Floats]]:
    """The outcomes of the predicted journeys, in the predictions' order, and {horizon: probability, float64 [n]}.

    Journeys without a prediction are left out and noted. Raises UserError where a prediction belongs to no journey of
    the split, a journey is predicted twice, or a probability is missing.
    """
    predicted = predictions["journey_id"].combine_chunks().cast(pa.string())
    if pc.count_distinct(predicted).as_py() < len(predicted):
        raise UserError(f"predictions of {split}: a journey_id occurs twice; expected one prediction a journey")
    place = pc.index_in(predicted, value_set=outcomes.journey_id)
    if place.null_count:
        raise UserError(
            f"predictions of {split}: {place.null_count:,} of {len(predicted):,} belong to no {split} journey of this "
            "run directory; journeys/ and records/ come from different runs"
        )
    if len(predicted) < len(outcomes):
        notes.append(
            f"{split}: {len(predicted):,} of {len(outcomes):,} journeys were predicted; only these are measured."
        )
        logger.info(notes[-1])
    probabilities = {}
    for horizon in horizons:
        if f"p_{horizon}d" not in predictions.column_names:
            raise UserError(
                f"predictions of {split}: no column p_{horizon}d; expected one for each horizon of the spec"
            )
        column = predictions[f"p_{horizon}d"].cast(pa.float64()).to_numpy()
        if not np.isfinite(column).all():
            raise UserError(
                f"predictions of {split}: p_{horizon}d holds {np.count_nonzero(~np.isfinite(column)):,} values that "
                "are no number; training diverged: try a lower --learning_rate"
            )
        probabilities[horizon] = column
    return outcomes.take(place.to_numpy(zero_copy_only=False).astype(np.int64)), probabilities


def true_probabilities(
    truth: Path, outcomes: Outcomes, horizons: tuple[int, ...], notes: list[str]
) -> dict[int, Floats]:
    """{horizon: true probability of each of the n journeys}; empty, with a note, unless every journey has its truth.

    truth: Parquet with customer_key (string), as_of (timestamp) and p_<h>d. Raises UserError where it cannot be read,
    lacks a column or names a customer and as_of twice.
    """
    try:
        table = pq.read_table(truth)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{truth}: expected a Parquet file with the true probabilities: {error}") from None
    missing = [name for name in ("customer_key", "as_of") if name not in table.column_names]
    if missing:
        raise UserError(f"{truth}: no column {missing[0]!r}; expected customer_key, as_of and p_<h>d")
    keys = _keys(table["customer_key"], microseconds(table["as_of"]))
    if pc.count_distinct(keys).as_py() < len(keys):
        raise UserError(f"{truth}: a customer_key has two rows for one as_of; expected one true probability")
    place = pc.index_in(_keys(outcomes.customer_key, outcomes.as_of), value_set=keys)
    if place.null_count:
        notes.append(
            f"The truth lacks {place.null_count:,} of {len(place):,} test journeys: there is no oracle to compare with."
        )
        return {}
    rows = place.to_numpy(zero_copy_only=False).astype(np.int64)
    found = {}
    for horizon in horizons:
        if f"p_{horizon}d" in table.column_names:
            found[horizon] = np.asarray(table[f"p_{horizon}d"].cast(pa.float64()).to_numpy()[rows], dtype=np.float64)
        else:
            notes.append(f"The truth has no p_{horizon}d: no oracle at {horizon} days.")
    return found


def customer_codes(customer_key: pa.Array) -> NDArray[np.int64]:
    """int64 [n]: customers numbered 0 … c - 1 by their key, so that the numbers don't depend on the rows' order."""
    encoded = customer_key.dictionary_encode()
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _keys(customer_key: pa.Array | pa.ChunkedArray, as_of: NDArray[np.int64]) -> pa.Array:
    """One string a row for the pair: Arrow's index_in takes single columns only."""
    if isinstance(customer_key, pa.ChunkedArray):
        customer_key = customer_key.combine_chunks()
    return pc.binary_join_element_wise(customer_key.cast(pa.string()), pa.array(as_of).cast(pa.string()), "@")
