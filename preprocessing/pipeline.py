"""The Beam pipeline: journeys in, transformed TFRecords and the transform graph out.

tf.Transform's analysis reads what trains, the train split and the train journeys at assignments, and nothing else;
every split then goes through the graph that came out.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import schema_utils
from tfx_bsl.tfxio import tensor_adapter, tensor_representation_util

from preprocessing import records
from preprocessing.features import FIRST_ID, preprocessing_fn, raw_feature_spec
from preprocessing.sources import ReadJourneys, alongside, batch_schema
from preprocessing.spec import AnySpec
from preprocessing.storage import join, matching


def parts_of(journeys: str) -> list[str]:
    """The parts of the journeys table in a directory, on disk or under gs://, in order."""
    return matching(journeys, "part-*.parquet")


def run_pipeline(
    parts: Sequence[str | Path],
    spec: AnySpec,
    *,
    records_dir: str | Path,
    transform_dir: str | Path,
    options: PipelineOptions,
) -> dict[str, Any]:
    """Transforms the journeys in `parts` (Parquet); returns the summary of each split, for transform/summary.json.

    Writes shards to records_dir; transform_fn/, transformed_metadata/, raw_schema.pbtxt and features.json to
    transform_dir. All three are where every worker of the runner reads and writes: directories on disk, or gs://….
    """
    raw_spec = raw_feature_spec(spec)
    schema = schema_utils.schema_from_feature_spec(raw_spec)
    config = tensor_adapter.TensorAdapterConfig(
        arrow_schema=batch_schema(spec),
        tensor_representations=tensor_representation_util.InferTensorRepresentationsFromMixedSchema(schema),
    )
    counts_file = join(records_dir, "counts.json")
    with (
        _temporary(transform_dir) as aside,
        beam.Pipeline(options=options) as pipeline,
        tft_beam.Context(temp_dir=aside, passthrough_keys=set(alongside(spec)), use_deep_copy_optimization=True),
    ):
        # Read twice: what both steps shared would wait in memory, all of it, for the graph that the first step makes.
        train = pipeline | "Read what trains" >> ReadJourneys(parts, spec, spec.train_splits, apart=False)
        journeys = pipeline | "Read the journeys" >> ReadJourneys(parts, spec, spec.splits)
        transform_fn = (train, config) | "Analyse the train split" >> tft_beam.AnalyzeDataset(
            functools.partial(preprocessing_fn, spec=spec)
        )
        _ = transform_fn | "Write the transform graph" >> tft_beam.WriteTransformFn(str(transform_dir))
        counts = []
        for split in spec.splits:
            transformed, _ = (
                (journeys[split], config),
                transform_fn,
            ) | f"Transform {split}" >> tft_beam.TransformDataset(output_record_batches=True)
            counts.append(
                transformed
                | f"Write {split} records" >> beam.ParDo(records.WriteShards(str(records_dir), split, spec))
                | f"Gather the {split} shards" >> beam.combiners.ToList()
                | f"Name the {split} shards" >> beam.Map(records.finalise, str(records_dir), split, spec)
            )
        _ = (
            counts
            | "Counts of all splits" >> beam.Flatten()
            | "Gather the counts" >> beam.combiners.ToList()
            | "Write the counts" >> beam.Map(_write_counts, counts_file, spec.splits)
        )
    _write(join(transform_dir, "raw_schema.pbtxt"), str(schema))
    _write(join(transform_dir, "features.json"), json.dumps(_features(str(transform_dir), spec), indent=1) + "\n")
    with tf.io.gfile.GFile(counts_file) as file:
        splits: dict[str, Any] = json.load(file)
    tf.io.gfile.remove(counts_file)
    for path in matching(records_dir, "*.aside"):  # of bundles that Beam ran once more
        tf.io.gfile.remove(path)
    return splits


def _write_counts(counts: list[tuple[str, records.Stats]], path: str, splits: tuple[str, ...]) -> None:
    described = {split: records.describe(stats) for split, stats in counts}
    with tf.io.gfile.GFile(path, "w") as file:
        json.dump({split: described[split] for split in splits}, file)


@contextmanager
def _temporary(transform_dir: str | Path) -> Iterator[str]:
    """A directory beside `transform_dir` for what tf.Transform writes in between."""
    parent = join(transform_dir, "").rstrip("/").rpartition("/")[0]
    aside = join(parent, f".beam-{uuid.uuid4().hex}.partial")
    tf.io.gfile.makedirs(aside)
    try:
        yield aside
    finally:
        if tf.io.gfile.exists(aside):
            tf.io.gfile.rmtree(aside)


def _write(path: str, text: str) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def _features(transform_dir: str, spec: AnySpec) -> dict[str, Any]:
    """What the trainer needs to know of the records to build a network over them."""
    output = tft.TFTransformOutput(transform_dir)

    def categorical(name: str) -> dict[str, Any]:
        vocabulary = [value.decode("utf-8", "replace") for value in output.vocabulary_by_name(name)]
        return {"kind": "categorical", "size": len(vocabulary) + FIRST_ID, "vocabulary": vocabulary}

    def numeric(names: tuple[str, ...]) -> dict[str, Any]:
        return {key: {"kind": "numeric"} for name in names for key in (name, f"{name}_missing")}

    return {
        "max_events": spec.sequence.max_events,
        "sequence": {name: categorical(name) for name in spec.sequence.categorical}
        | numeric(spec.sequence_numeric)
        | {name: {"kind": "numeric"} for name in spec.time_features},
        "customer": {name: categorical(name) for name in spec.customer_categorical} | numeric(spec.customer_numeric),
    }
