"""The journeys of a double run: their keys, what became of them, and the batches that a live scorer is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.cli import UserError
from preprocessing.mirror import Mirror
from preprocessing.rundir import RunDir
from preprocessing.spec import JourneysSpec, load_spec
from preprocessing.storage import is_remote
from trainer.outcomes import KEYS, Outcomes, batches_of, gathered

# What a journeys table holds beside its fields: keys, outcome and bookkeeping, none of which a scorer may see.
NO_FIELDS = frozenset(
    (
        *("journey_id", "customer_key", "as_of", "split", "held_out", "event_time"),
        *("days_to_conversion", "observed_days", "weight"),
    )
)
_NEEDED = ("journey_id", "customer_key", "as_of", "event_time")
_TABLE = "the columns of a journeys table"


@dataclass(frozen=True)
class Population:
    """n journeys in the order of their files.

    outcomes: keys, lengths and outcomes, n rows (where the table holds no outcome, no horizon is known); fields:
    {"sequence": {name: kind}, "customer": {name: kind}} as the table's columns show them; gap_days, primary_horizon:
    as the run directory's spec says, None where the journeys come without one; dated: False for ready-made journeys.
    """

    source: str
    files: tuple[Path, ...]
    split: str | None
    outcomes: Outcomes
    fields: dict[str, dict[str, str]]
    gap_days: int | None = None
    primary_horizon: int | None = None
    dated: bool = True

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def about(self) -> dict[str, Any]:
        """The fields in the form of a model's metadata, which says how an instance is written."""
        return {"journeys": "dated" if self.dated else "ready-made", **self.fields}

    def batches(self, size: int, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yields the journeys in order, at most `size` rows at a time, with the columns that a scorer may see."""
        columns = ["journey_id", "as_of", "event_time", *self.fields["sequence"], *self.fields["customer"]]
        left = len(self) if limit is None else min(limit, len(self))
        for batch in batches_of(self.files, self.split, columns, _TABLE, size):
            if left <= 0:
                return
            yield batch.slice(0, left)
            left -= batch.num_rows


def read_population(source: str, split: str | None) -> Population:
    """The journeys of a run directory (split: test where None), or of a Parquet file or glob (None: all rows).

    Raises UserError where there is no journey, a column is missing or a journey_id occurs twice.
    """
    gap = primary = None
    dated = True
    if _is_run_dir(source):
        run = RunDir(source)
        run.fetch("journeys")
        split = split or "test"
        files = tuple(sorted(run.journeys.glob("part-*.parquet")))
        if run.holds("transform/spec.yaml"):
            spec = load_spec(run.url("transform/spec.yaml"))
            gap, primary, dated = spec.gap_days, spec.primary_horizon, not isinstance(spec, JourneysSpec)
    else:
        files = tuple(globbed(source))
    if not files:
        raise UserError(f"--journeys {source}: nothing here; expected a run directory or Parquet files of journeys")
    schema = _schema(files[0])
    columns = [name for name in KEYS if name in schema.names and name != "split"]
    outcomes = gathered(batches_of(files, split, columns, _TABLE))
    where = f"--journeys {source}" + (f", split {split}" if split else "")
    if not len(outcomes):
        raise UserError(f"{where}: no journey; expected at least one")
    twice = len(outcomes) - pc.count_distinct(outcomes.journey_id).as_py()
    if twice:
        raise UserError(f"{where}: {twice:,} journeys have a journey_id that occurs before; expected each once")
    return Population(source, files, split, outcomes, _fields(schema), gap, primary, dated)


def _is_run_dir(source: str) -> bool:
    if is_remote(source):
        return not source.endswith(".parquet")
    return Path(source).is_dir()


def globbed(source: str) -> list[Path]:
    """The files that a path or a glob names, in order; none where there is none. Under gs://, copies of them."""
    path = Path(Mirror(source).events) if is_remote(source) else Path(source)
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    if first == len(parts):
        return [path] if path.is_file() else []
    return sorted(found for found in Path(*parts[:first]).glob(str(Path(*parts[first:]))) if found.is_file())


def _schema(path: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--journeys {path}: expected a Parquet file of journeys: {error}") from None
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise UserError(f"--journeys {path}: no column {missing[0]!r}; expected a journeys table")
    return schema


def _fields(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """The fields by kind: lists are sequences, scalars are the customer's; text is categorical, numbers numeric."""
    found: dict[str, dict[str, str]] = {"sequence": {}, "customer": {}}
    for field in schema:
        if field.name not in NO_FIELDS:
            many = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
            inner = field.type.value_type if many else field.type
            text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
            found["sequence" if many else "customer"][field.name] = "categorical" if text else "numeric"
    return found
