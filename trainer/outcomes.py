"""What became of each journey: labels, lengths and keys, read from the run directory's journeys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing.cli import UserError

BATCH = 32_768
KEYS = ("journey_id", "customer_key", "as_of", "split", "held_out", "event_time", "days_to_conversion", "observed_days")


@dataclass(frozen=True)
class Outcomes:
    """Journeys of one split, as columns of n rows.

    journey_id, customer_key: Arrow string; as_of: int64, UTC microseconds; held_out: bool; days: float64, days to
    conversion, inf where none was seen; observed: float64, days; length: int64, events kept.
    """

    journey_id: pa.Array
    customer_key: pa.Array
    as_of: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    days: NDArray[np.float64]
    observed: NDArray[np.float64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.as_of)

    def known(self, horizon: int, gap: int) -> NDArray[np.bool_]:
        """Whether the horizon (days) counts: watched for gap + horizon days, converted or not."""
        return self.observed >= gap + horizon

    def converted(self, horizon: int) -> NDArray[np.bool_]:
        """Whether a conversion fell within [0, horizon) days; meaningful where known."""
        return self.days < horizon

    def take(self, rows: NDArray[np.int64]) -> Outcomes:
        return Outcomes(
            self.journey_id.take(pa.array(rows)),
            self.customer_key.take(pa.array(rows)),
            self.as_of[rows],
            self.held_out[rows],
            self.days[rows],
            self.observed[rows],
            self.length[rows],
        )

    def natural_weight(self, horizons: tuple[int, ...], gap: int, negative_rate: float) -> NDArray[np.float64]:
        """float64 [n]: how many journeys of the population each stands for, after negative downsampling.

        Downsampling kept `negative_rate` of those known not to convert within the longest horizon; each that is left
        counts 1 / negative_rate times (inverse probability weighting), which is exact for every horizon at once, as a
        shift of each horizon's odds would not be.
        """
        never = self.known(horizons[-1], gap) & ~self.converted(horizons[-1])
        return np.where(never, 1 / negative_rate, 1.0)


def scan(journeys: Path, split: str, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Yields the split's journeys in the order of the files, at most BATCH rows at a time, empty batches left out.

    Raises UserError where a file is missing, is no Parquet or lacks a column.
    """
    parts = sorted(journeys.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{journeys}: no part-*.parquet here; make them with: python -m preprocessing.task")
    for part in parts:
        try:
            file = pq.ParquetFile(part)
        except pa.ArrowInvalid as error:
            raise UserError(f"{part}: expected Parquet: {error}") from None
        missing = sorted({*columns, "split"} - set(file.schema_arrow.names))
        if missing:
            raise UserError(f"{part}: no column {missing[0]!r}; expected the columns of this run's journey spec")
        for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys((*columns, "split")))):
            chosen = batch.filter(pc.equal(batch["split"], split))
            if chosen.num_rows:
                yield chosen


def read_outcomes(journeys: Path, split: str) -> Outcomes:
    """All journeys of a split; no rows where the split is empty. Raises UserError as scan does."""
    batches = list(map(_outcomes, scan(journeys, split, KEYS)))
    if not batches:
        nothing = pa.array([], pa.string())
        empty = np.zeros(0)
        whole = empty.astype(np.int64)
        return Outcomes(nothing, nothing, whole, empty.astype(bool), empty, empty, whole)
    return Outcomes(
        pa.concat_arrays([batch.journey_id for batch in batches]),
        pa.concat_arrays([batch.customer_key for batch in batches]),
        np.concatenate([batch.as_of for batch in batches]),
        np.concatenate([batch.held_out for batch in batches]),
        np.concatenate([batch.days for batch in batches]),
        np.concatenate([batch.observed for batch in batches]),
        np.concatenate([batch.length for batch in batches]),
    )


def matched(
    journeys: Path, split: str, wanted: Outcomes, columns: tuple[str, ...]
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Yields (places among the wanted journeys: int64 [m], their m rows) by batch. Raises UserError as scan does."""
    for batch in scan(journeys, split, ("journey_id", *columns)):
        place = pc.index_in(batch["journey_id"].cast(pa.string()), value_set=wanted.journey_id)
        chosen = batch.filter(place.is_valid())
        if chosen.num_rows:
            yield place.drop_null().to_numpy(zero_copy_only=False).astype(np.int64), chosen


def microseconds(times: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """int64 UTC microseconds of an Arrow timestamp column without nulls."""
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)


def _outcomes(batch: pa.RecordBatch) -> Outcomes:
    return Outcomes(
        batch["journey_id"].cast(pa.string()),
        batch["customer_key"].cast(pa.string()),
        microseconds(batch["as_of"]),
        batch["held_out"].to_numpy(zero_copy_only=False).astype(bool),
        pc.fill_null(batch["days_to_conversion"], np.inf).to_numpy(zero_copy_only=False),
        batch["observed_days"].to_numpy(zero_copy_only=False),
        pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64),
    )
