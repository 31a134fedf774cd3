"""Scoring as a Beam pipeline: the journeys' row groups spread over workers, each with the SavedModel loaded once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from deploy.score_table import score_schema, scores
from deploy.scorer import Scorer
from preprocessing.padded import padded

log = logging.getLogger(__name__)


class ScoreRowGroup(beam.DoFn):
    """(path, row group) of the journeys table -> tables of scores, `batch_size` journeys each."""

    def __init__(self, model: str, about: dict[str, Any], batch_size: int) -> None:
        self._model, self._about, self._batch_size = model, about, batch_size

    def setup(self) -> None:
        self._scorer = Scorer(self._model)

    def process(self, element: tuple[str, int]) -> Iterator[pa.Table]:
        path, row_group = element
        for batch in pq.ParquetFile(path).iter_batches(self._batch_size, row_groups=[row_group]):
            probabilities = self._scorer.score(padded(batch, self._about))
            yield pa.Table.from_batches([scores(batch, probabilities, self._about)])
        log.info("    %s, row group %d scored", Path(path).name, row_group)


def score_by_beam(
    model: str, about: dict[str, Any], parts: list[Path], aside: Path, *, batch_size: int, options: PipelineOptions
) -> list[Path]:
    """Scores the journeys in `parts`; returns the Parquet files with the scores, in `aside`, an existing directory.

    The journeys and `aside` must lie where every worker of the runner reads and writes.
    """
    groups = [(str(path), i) for path in parts for i in range(pq.ParquetFile(path).num_row_groups)]
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "List the row groups of the journeys" >> beam.Create(groups)
            | "Spread them over workers" >> beam.Reshuffle()
            | "Score the journeys" >> beam.ParDo(ScoreRowGroup(model, about, batch_size))
            | "Write the scores"
            >> beam.io.parquetio.WriteToParquetBatched(
                str(aside / "scores"), schema=score_schema(about), file_name_suffix=".parquet"
            )
        )
    return sorted(aside.glob("scores-*.parquet"))
