"""`python -m deploy.batch_input`: journeys as the input files of batch prediction, one form a server."""

from __future__ import annotations

import argparse
import base64
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, import_quietly, run
from preprocessing.storage import delivered, localised

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger(__name__)

FORMATS = {
    "jsonl": "an instance of deploy.serve a line: Vertex AI batch prediction with our server as its container",
    "padded_jsonl": "a row of serving_default a line, all of one width: Vertex AI's prebuilt TensorFlow container",
    "tf_serving": "a whole request of rows a line, for TensorFlow Serving's REST API",
    "tf_serving_examples": "a whole request of tf.train.Example a line, for TensorFlow Serving's REST API",
    "bigquery": "the SELECT of a view over the journeys table: Vertex AI batch prediction with BigQuery as its source",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.batch_input",
        description="Writes journeys as batch prediction takes them.",
        epilog="Formats: " + "; ".join(f"{name}: {what}" for name, what in FORMATS.items()) + ".",
    )
    parser.add_argument("--model", required=True, help="the SavedModel: RUN_DIR/model")
    parser.add_argument("--journeys", required=True, help="RUN_DIR/journeys, or for bigquery project.dataset.table")
    parser.add_argument("--format", required=True, choices=FORMATS, help="see below")
    parser.add_argument("--output", required=True, help="the file; replaced only when all is written")
    parser.add_argument(
        "--request_size", type=int, default=64, help="journeys a request, for tf_serving* (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, help="only the first so many journeys")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, writes the file aside and renames it."""
    args = _parser().parse_args(argv)
    for name in ("request_size", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name}: expected 1 or more, got {getattr(args, name)}")

    from deploy.scorer import read_metadata

    about = read_metadata(args.model)
    output = args.output
    if args.format == "bigquery":
        lines: Iterator[str] = iter([view(args.journeys, about)])
    else:
        lines = _lines(args.format, _batches(args.journeys, args.request_size, args.limit), about)
    count = 0
    with delivered(output) as aside, aside.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    print(f"{output}: {count:,} {'lines' if args.format != 'bigquery' else 'query'}; {FORMATS[args.format]}")


def _lines(form: str, batches: Iterator[pa.RecordBatch], about: dict[str, Any]) -> Iterator[str]:
    from deploy.instances import to_instances
    from preprocessing.padded import padded

    for batch in batches:
        if form == "jsonl":
            yield from (json.dumps(one, allow_nan=False, ensure_ascii=False) for one in to_instances(batch, about))
        elif form == "padded_jsonl":
            for row in rows(padded(batch, about), width=about["max_events"]):
                yield json.dumps(row, ensure_ascii=False)
        elif form == "tf_serving":
            yield json.dumps(
                {"signature_name": "serving_default", "instances": rows(padded(batch, about))}, ensure_ascii=False
            )
        else:
            instances = [{"b64": base64.b64encode(one).decode()} for one in examples(padded(batch, about))]
            yield json.dumps({"signature_name": "examples", "instances": instances})


def rows(arrays: dict[str, np.ndarray], width: int | None = None) -> list[dict[str, Any]]:
    """TensorFlow Serving's row form of serving_default's arrays: every input by name, lists of one length.

    width: to which lists are padded; None: the longest journey's. A missing number is NaN, which TensorFlow Serving
    reads and strict JSON does not know. Raises UserError where a journey is longer than width.
    """
    import numpy as np

    steps = arrays["event_time"].shape[1]
    if width is not None and steps > width:
        raise UserError(f"--journeys: a journey has {steps} events; the model's max_events is {width}")
    more = 0 if width is None else width - steps
    columns = {}
    for name, values in arrays.items():
        if values.ndim == 2:
            values = np.pad(values, ((0, 0), (0, more)), constant_values=b"" if values.dtype == object else 0)  # noqa: PLW2901
        columns[name] = [_json(value) for value in values.tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def examples(arrays: dict[str, np.ndarray]) -> list[bytes]:
    """serving_default's arrays as serialized tf.train.Example, one a journey, without padding."""
    import_quietly("tensorflow")
    import tensorflow as tf

    made = []
    for row, length in enumerate(arrays["length"].tolist()):
        example = tf.train.Example()
        for name, values in arrays.items():
            if name == "length":
                continue
            value = values[row, :length] if values.ndim == 2 else values[row : row + 1]
            feature = example.features.feature[name]
            kind = {"O": feature.bytes_list, "i": feature.int64_list, "f": feature.float_list}[value.dtype.kind]
            kind.value.extend(value.tolist())
        made.append(example.SerializeToString(deterministic=True))
    return made


def view(table: str, about: dict[str, Any]) -> str:
    """GoogleSQL that gives the journeys table the columns of an instance of deploy.serve, and no others.

    Raises UserError where `table` is no project.dataset.table.
    """
    if table.count(".") != 2 or not all(table.split(".")) or set(table) & set("` \\"):
        raise UserError(f"--journeys {table}: for --format bigquery expected project.dataset.table")
    if about["journeys"] != "dated":
        raise UserError("--format bigquery: the model is of ready-made journeys; expected one of dated events")
    # Text and fractions survive whatever rules make JSON of a row; timestamps, INT64 and NaN may not. Within an event a
    # missing number is NULL, which an array of numbers could not hold.
    numbers = {
        name: "IF(IS_NAN({0}), NULL, {0})" if kind == "numeric" else "{0}"
        for part in ("sequence", "customer")
        for name, kind in about[part].items()
    }
    event = [
        f"{_text_of('t')} AS event_time",
        *(numbers[name].format(f"`{name}`[OFFSET(i)]") + f" AS `{name}`" for name in about["sequence"]),
    ]
    selected = [
        "journey_id AS `key`",
        f"{_text_of('as_of')} AS as_of",
        *(numbers[name].format(f"`{name}`") + f" AS `{name}`" for name in about["customer"]),
        "ARRAY(\n    SELECT AS STRUCT\n      "
        + ",\n      ".join(event)
        + "\n    FROM UNNEST(event_time) AS t WITH OFFSET AS i ORDER BY i\n  ) AS events",
    ]
    return "SELECT\n  " + ",\n  ".join(selected) + f"\nFROM `{table}`"


def _text_of(timestamp: str) -> str:
    return f"FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6SZ', {timestamp})"


def _batches(journeys: str, size: int, limit: int | None) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    parts = sorted(localised(journeys).glob("part-*.parquet"))
    if not parts:
        raise UserError(f"--journeys {journeys}: no part-*.parquet here; expected RUN_DIR/journeys")
    left = limit
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches(size):
            if left is not None:
                batch = batch.slice(0, left)  # noqa: PLW2901
                left -= batch.num_rows
            if batch.num_rows:
                yield batch
            if left == 0:
                return


if __name__ == "__main__":
    run(main)
