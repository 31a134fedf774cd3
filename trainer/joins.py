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
    truth: Path, outcomes: Outcomes, horizons: tuple[int, ...], notes: list[str], *, name: str | None = None
) -> dict[int, Floats]:
    """{horizon: true probability of each of the n journeys, float64 [n], NaN where the truth says null}; empty, with a
    note, unless every journey has its truth.

    truth: Parquet with customer_key (string), as_of (timestamp) and p_<h>d, from 0 to 1, null where it is not known;
    name: what errors call it. Raises UserError where it cannot be read, lacks a column, names a customer and as_of
    twice, or holds what is of another type or no probability.
    """
    name = name or str(truth)
    table = _truth(truth, horizons, name)
    keys = _keys(table["customer_key"], microseconds(table["as_of"]))
    if pc.count_distinct(keys).as_py() < len(keys):
        raise UserError(f"{name}: a customer_key has two rows for one as_of; expected one true probability")
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
            found[horizon] = table[f"p_{horizon}d"].to_numpy()[rows]
        else:
            notes.append(f"The truth has no p_{horizon}d: no oracle at {horizon} days.")
    return found


def require_truth(truth: Path, test: Outcomes, horizons: tuple[int, ...], gap: int, name: str) -> None:
    """Raises UserError as true_probabilities does, and where a test journey whose outcome is known has no probability,
    so that a truth is refused before a training and not after it."""
    for horizon, probability in true_probabilities(truth, test, horizons, [], name=name).items():
        known = test.known(horizon, gap)
        lacking = np.count_nonzero(known & np.isnan(probability))
        if lacking:
            raise UserError(
                f"{name}: p_{horizon}d is null for {lacking:,} of {np.count_nonzero(known):,} test journeys that are "
                f"observed for {gap + horizon} days; expected a probability"
            )


def _truth(truth: Path, horizons: tuple[int, ...], name: str) -> pa.Table:
    """The file's table, with float64 p_<h>d of those horizons that it has."""
    try:
        table = pq.read_table(truth)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{name}: expected a Parquet file with the true probabilities: {error}") from None
    probabilities = [column for column in (f"p_{horizon}d" for horizon in horizons) if column in table.column_names]
    missing = [column for column in ("customer_key", "as_of") if column not in table.column_names]
    if missing or not probabilities:
        expected = f"customer_key, as_of and {', '.join(f'p_{horizon}d' for horizon in horizons)}"
        raise UserError(f"{name}: no column {[*missing, f'p_{horizons[0]}d'][0]!r}; expected {expected}")
    for column, holds, words in (
        ("customer_key", is_text, "text"),
        ("as_of", pa.types.is_timestamp, "a timestamp"),
        *((column, _is_number, "a number from 0 to 1") for column in probabilities),
    ):
        found = table[column]
        if not holds(found.type):
            raise UserError(f"{name}: column {column}: expected {words}, found {found.type}")
        if column not in probabilities and found.null_count:
            raise UserError(
                f"{name}: column {column}: {found.null_count:,} of {len(found):,} values are null; expected {words}"
            )
    try:
        table = table.set_column(
            table.column_names.index("as_of"), "as_of", table["as_of"].cast(pa.timestamp("us", "UTC"))
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{name}: column as_of: expected whole microseconds: {error}") from None
    for column in probabilities:
        values = table[column].cast(pa.float64())
        numbers = values.to_numpy()
        off = len(values) - values.null_count - np.count_nonzero((numbers >= 0) & (numbers <= 1))
        if off:
            raise UserError(
                f"{name}: column {column}: {off:,} of {len(values):,} values are no number from 0 to 1; expected "
                "probabilities, null where one is not known"
            )
        table = table.set_column(table.column_names.index(column), column, values)
    return table


def is_text(kind: pa.DataType) -> bool:
    """Whether the column holds texts, categories and views among them."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


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
