"""What became of each journey: labels, lengths and keys, read from the run directory's journeys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def batches_of(
    files: Iterable[Path],
    split: str | None,
    columns: Sequence[str],
    expected: str,
    size: int = BATCH,
    *,
    without: Sequence[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Yields a split's journeys in the order of the files, at most `size` rows at a time, none empty.

    split: None is all but the splits `without`, where a file tells of splits. Raises UserError where a file is no
    Parquet or lacks a column; `expected` says what was.
    """
    for path in files:
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: expected Parquet: {error}") from None
        names = set(file.schema_arrow.names)
        leaves_out = split is None and without and "split" in names
        wanted = list(dict.fromkeys((*columns, *(["split"] if split or leaves_out else []))))
        missing = sorted(set(wanted) - names)
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r}; expected {expected}")
        for batch in file.iter_batches(size, columns=wanted):
            chosen = batch
            if split:
                chosen = batch.filter(pc.equal(batch["split"], split))
            elif leaves_out:
                chosen = batch.filter(pc.invert(pc.is_in(batch["split"], value_set=pa.array(without))))
            if chosen.num_rows:
                yield chosen


def scan(journeys: Path, split: str, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """As batches_of, of a run directory's journeys/. Raises UserError where there are none, too."""
    parts = sorted(journeys.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{journeys}: no part-*.parquet here; make them with: python -m preprocessing.task")
    yield from batches_of(parts, split, columns, "the columns of this run's journey spec")


def read_outcomes(journeys: Path, split: str) -> Outcomes:
    """All journeys of a split; no rows where the split is empty. Raises UserError as scan does."""
    return gathered(scan(journeys, split, KEYS))


def gathered(batches: Iterable[pa.RecordBatch]) -> Outcomes:
    """The outcomes of all batches, which hold KEYS; no rows where there is no batch.

    held_out may be absent (nobody is), and so may both of days_to_conversion and observed_days: then no horizon is
    known.
    """
    found = list(map(_outcomes, batches))
    if not found:
        nothing = pa.array([], pa.string())
        empty = np.zeros(0)
        whole = empty.astype(np.int64)
        return Outcomes(nothing, nothing, whole, empty.astype(bool), empty, empty, whole)
    return Outcomes(
        pa.concat_arrays([batch.journey_id for batch in found]),
        pa.concat_arrays([batch.customer_key for batch in found]),
        np.concatenate([batch.as_of for batch in found]),
        np.concatenate([batch.held_out for batch in found]),
        np.concatenate([batch.days for batch in found]),
        np.concatenate([batch.observed for batch in found]),
        np.concatenate([batch.length for batch in found]),
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
    names, rows = batch.schema.names, batch.num_rows
    is_known = "days_to_conversion" in names and "observed_days" in names

    def days(name: str, absent: float) -> NDArray[np.float64]:
        if not is_known:
            return np.full(rows, absent)
        return pc.fill_null(batch[name].cast(pa.float64()), absent).to_numpy(zero_copy_only=False)

    return Outcomes(
        batch["journey_id"].cast(pa.string()),
        batch["customer_key"].cast(pa.string()),
        microseconds(batch["as_of"]),
        batch["held_out"].to_numpy(zero_copy_only=False).astype(bool) if "held_out" in names else np.zeros(rows, bool),
        days("days_to_conversion", np.inf),
        days("observed_days", -np.inf),  # never watched
        pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64),
    )
