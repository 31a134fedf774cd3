"""Scoring as a Beam pipeline: the journeys' row groups spread over workers, each with the SavedModel loaded once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from deploy.score_table import answered, score_schema
from deploy.scorer import Scorer
from preprocessing.cli import UserError
from preprocessing.sources import row_groups
from preprocessing.storage import download_all, in_parallel, is_remote, join, open_place

log = logging.getLogger(__name__)


class ScoreRowGroup(beam.DoFn):
    """(path, row group) of the journeys table -> tables of scores, `batch_size` journeys each."""

    def __init__(self, model: str, about: dict[str, Any], batch_size: int, campaigns: Sequence[str] = ()) -> None:
        self._model, self._about, self._batch_size, self.campaigns = model, about, batch_size, campaigns

    def setup(self) -> None:
        self._scorer = Scorer(self._model)

    def process(self, element: tuple[str, int]) -> Iterator[pa.Table]:
        path, row_group = element
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            for batch in pq.ParquetFile(file).iter_batches(self._batch_size, row_groups=[row_group]):
                yield pa.Table.from_batches([answered(self._scorer, batch, self._about, self.campaigns)])
        log.info("    %s, row group %d scored", path.rpartition("/")[2], row_group)


def score_by_beam(
    model: str,
    about: dict[str, Any],
    parts: list[Path],
    aside: Path,
    *,
    batch_size: int,
    options: PipelineOptions,
    campaigns: Sequence[str] = (),
) -> list[Path]:
    """Scores the journeys in `parts`; returns the Parquet files with the scores, in `aside`, an existing directory.

    Journeys and scores go by way of the pipeline's --temp_location where that is gs://; else every worker of the runner
    must read and write `aside`, and the parts.
    """
    scorer = ScoreRowGroup(model, about, batch_size, campaigns)
    temporary = options.view_as(GoogleCloudOptions).temp_location
    if temporary is None or not is_remote(temporary):
        scoring([str(path) for path in parts], scorer, about, str(aside / "scores"), options).run().wait_until_finish()
        return sorted(aside.glob("scores-*.parquet"))
    if not is_remote(model):
        raise UserError(f"--model {model}: workers on other machines load it themselves; expected gs://…")
    place = join(temporary, f"predict-{uuid.uuid4().hex}")
    store, name = open_place(place)
    try:
        in_parallel(lambda path: store.upload(path, f"{name}/{path.name}", version=None), parts)
        shared = [join(place, path.name) for path in parts]
        scoring(shared, scorer, about, join(place, "scores"), options).run().wait_until_finish()
        found = {n: s.version for n, s in store.listed(f"{name}/scores-").items() if n.endswith(".parquet")}
        download_all(store, found, name, aside / "scores", place)
        return sorted((aside / "scores").glob("scores-*.parquet"))
    finally:
        for object_name, stored in store.listed(f"{name}/").items():
            store.delete(object_name, version=stored.version)


def parts_in(journeys: str) -> list[str]:
    """The parts of the journeys table in a directory, on disk or under gs://. Raises UserError where there is none."""
    (found,) = FileSystems.match([join(journeys, "part-*.parquet")])
    if not found.metadata_list:
        raise UserError(f"--journeys {journeys}: no part-*.parquet here; expected RUN_DIR/journeys")
    return sorted(metadata.path for metadata in found.metadata_list)


def check_free(output: str) -> None:
    """Raises UserError where files begin with `output`: of a run with other shards they would stay beside the new."""
    (found,) = FileSystems.match([f"{output}-*.parquet"])
    if found.metadata_list:
        raise UserError(f"{output}-*.parquet: {len(found.metadata_list)} there already; expected a place without any")


def scoring(
    parts: list[str], scorer: ScoreRowGroup, about: dict[str, Any], output: str, options: PipelineOptions
) -> beam.Pipeline:
    """A pipeline, not yet run: the journeys in `parts` to scores in Parquet files whose names begin with `output`."""
    pipeline = beam.Pipeline(options=options)
    schema = score_schema(about, scorer.campaigns)
    _ = (
        pipeline
        | "List the row groups of the journeys" >> beam.Create(row_groups(parts))
        | "Spread them over workers" >> beam.Reshuffle()
        | "Score the journeys" >> beam.ParDo(scorer)
        | "Write the scores"
        >> beam.io.parquetio.WriteToParquetBatched(output, schema=schema, file_name_suffix=".parquet")
    )
    return pipeline
