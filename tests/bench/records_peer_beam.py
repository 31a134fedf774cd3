"""`python -m tests.bench.records_peer_beam`: events to records as public samples of Beam and tf.Transform do it.

Rows are dicts, Beam groups them by customer, tf.Transform maps instances one by one, and WriteToTFRecord writes gzip.
The features are those of preprocessing.features. Left out, in this peer's favour: checks of rows, late arrivals, rare
values, the search for the customer row that was valid, and statistics of the splits.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import hashlib
import hmac
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from preprocessing.features import preprocessing_fn, raw_feature_spec
from preprocessing.spec import load_spec

LABELS = {
    "journey_id": tf.string,
    "customer_key": tf.string,
    "days_to_conversion": tf.float32,
    "observed_days": tf.float32,
    "weight": tf.float32,
    "held_out": tf.int64,
}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DAY = 86_400_000_000


def micros(time: dt.datetime) -> int:
    return (time - EPOCH) // dt.timedelta(microseconds=1)


def journey(grouped: tuple[str, dict[str, Any]], key: bytes, until: int, most: int) -> Iterator[dict[str, Any]]:
    """The instance of one customer: the last events before as_of, and what came after."""
    customer, found = grouped
    if not found["as_of"]:
        return
    (asked,) = found["as_of"]
    as_of = micros(asked["as_of"])
    events = sorted(((micros(one["event_time"]), one) for one in found["events"]), key=lambda one: one[0])
    seen = [one for one in events if as_of - 90 * DAY <= one[0] < as_of][-most:]
    bought = [time for time, one in events if time >= as_of and one["event_type"] == "purchase"]

    def keyed(text: str) -> str:
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    yield {
        "split": asked["split"],
        "as_of": as_of,
        "event_time": [time for time, _ in seen],
        **{name: [one[name] or "" for _, one in seen] for name in ("event_type", "channel", "campaign")},
        "amount": [math.nan if one["amount"] is None else one["amount"] for _, one in seen],
        "segment": asked["segment"] or "",
        "age": math.nan if asked["age"] is None else asked["age"],
        "journey_id": keyed(f"{customer}\x1f{as_of}"),
        "customer_key": keyed(customer),
        "days_to_conversion": (bought[0] - as_of) / DAY if bought else math.inf,
        "observed_days": (until - as_of) / DAY,
        "weight": 1.0,
        "held_out": 0,
    }


def with_labels(inputs: dict[str, Any], spec: Any) -> dict[str, tf.Tensor]:
    """The features, with labels and keys passed through."""
    features = preprocessing_fn(inputs, spec=spec)
    return features | {name: tf.identity(inputs[name]) for name in LABELS} | {"as_of": tf.identity(inputs["as_of"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.records_peer_beam", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="where tests.bench.records_data put the tables")
    parser.add_argument("--output", type=Path, required=True, help="where the records go")
    args = parser.parse_args()

    spec = load_spec(str(args.data / "spec.yaml"))
    key = bytes.fromhex((args.data / "customer.key").read_text().strip())
    until = micros(dt.datetime.combine(spec.data_until, dt.time(), dt.UTC))
    raw = raw_feature_spec(spec) | {name: tf.io.FixedLenFeature([], kind) for name, kind in LABELS.items()}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(raw))
    args.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=args.output) as aside,
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=aside),
    ):

        def by_customer(name: str) -> Any:
            rows = pipeline | f"Read {name}" >> beam.io.ReadFromParquet(str(args.data / f"{name}.parquet"))
            return rows | f"Key {name}" >> beam.Map(lambda row: (row["customer_id"], row))

        tables = {"events": by_customer("events"), "as_of": by_customer("as_of")}
        instances = (
            tables
            | "Group by customer" >> beam.CoGroupByKey()
            | "Journeys" >> beam.FlatMap(journey, key, until, spec.sequence.max_events)
        )

        def of(split: str) -> Any:
            chosen = instances | f"Only {split}" >> beam.Filter(lambda one: one["split"] == split)
            return chosen | f"Drop {split}" >> beam.Map(lambda one: {k: v for k, v in one.items() if k != "split"})

        train, transform_fn = (of("train"), metadata) | tft_beam.AnalyzeAndTransformDataset(
            functools.partial(with_labels, spec=spec)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(args.output / "transform"))
        for split in spec.splits:
            if split == "train":
                data, described = train
            else:
                data, described = ((of(split), metadata), transform_fn) | f"Map {split}" >> tft_beam.TransformDataset()
            _ = (
                data
                | f"Encode {split}" >> beam.Map(tft.coders.ExampleProtoCoder(described.schema).encode)
                | f"Write {split}"
                >> beam.io.WriteToTFRecord(str(args.output / "records" / split), file_name_suffix=".tfrecord.gz")
            )


if __name__ == "__main__":
    main()
