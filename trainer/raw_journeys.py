"""Chosen rows of the journeys table as the padded arrays that a served model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocessing.padded import padded
from preprocessing.spec import AnySpec
from trainer.outcomes import Outcomes, matched

Arrays = dict[str, np.ndarray]


def read_padded(journeys: Path, split: str, spec: AnySpec, wanted: Outcomes) -> Arrays:
    """The wanted journeys (n, in their order) as serving_default takes them.

    event_time int64 UTC microseconds and every sequence field [n, steps], right-padded, steps the longest journey's
    events; as_of int64, length int64, key bytes (the journey_id) and customer fields [n]. Categorical
    values are bytes, numeric ones float32, NaN where missing. Raises UserError as outcomes.scan does.
    """
    sequence = (*spec.sequence.categorical, *spec.sequence_numeric)
    customer = (*spec.customer_categorical, *spec.customer_numeric)
    columns = ("journey_id", "as_of", "event_time", *sequence, *customer)
    found = [(place, batch.select(list(columns))) for place, batch in matched(journeys, split, wanted, columns[1:])]
    order = pa.array(np.argsort(np.concatenate([place for place, _ in found])))
    table = pa.Table.from_batches([batch for _, batch in found]).take(order).combine_chunks()
    return padded(table.to_batches()[0], spec.kinds)
