"""Batch scoring as one would write it: events as rows of Python, journeys as JSON lines, a loop of model.predict.

`python -m tests.bench.scoring_peer RUN_DIR TABLES AS_OF LINES` prints JSON: seconds to make the journeys, of the loop
over them, and how many they are. Gives the model what deploy.predict gives it, but for rare values and checks of rows.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 512
LOOKBACK = dt.timedelta(days=90)


def journeys(tables: Path, as_of: dt.datetime, most: int) -> Iterator[dict[str, Any]]:
    """One a customer: the last `most` events of the lookback, and the customer's row valid at as_of."""
    import pyarrow.parquet as pq

    events = defaultdict(list)
    for row in pq.read_table(tables / "events.parquet").to_pylist():
        if as_of - LOOKBACK <= row["event_time"] < as_of:
            events[row["customer_id"]].append(row)
    people: dict[str, dict[str, Any]] = {}
    for row in pq.read_table(tables / "customers.parquet").to_pylist():
        known = people.get(row["customer_id"])
        if row["updated_at"] <= as_of and (known is None or known["updated_at"] < row["updated_at"]):
            people[row["customer_id"]] = row
    for customer, person in people.items():
        own = sorted(events[customer], key=lambda row: row["event_time"])[-most:]
        yield {
            "key": customer,
            "as_of": _micros(as_of),
            "length": len(own),
            "event_time": [_micros(row["event_time"]) for row in own],
            **{name: [row[name] for row in own] for name in ("event_type", "channel", "campaign", "amount")},
            **{name: person[name] for name in ("segment", "age")},
        }


def predictor(run_dir: Path) -> Callable[[list[str]], Any]:
    """What scores some JSON lines: parsed, padded, and given to keras.Model.predict over the SavedModel's signature."""
    import keras
    import tensorflow as tf

    about = json.loads((run_dir / "model/parcours.json").read_text(encoding="utf-8"))
    loaded = tf.saved_model.load(str(run_dir / "model"))
    signature = loaded.signatures["serving_default"]
    kinds = about["sequence"] | about["customer"]
    types = {name: "float32" if kind == "numeric" else "string" for name, kind in kinds.items()}
    types |= {"event_time": "int64", "as_of": "int64", "length": "int64", "key": "string"}

    class Served(keras.Model):
        held = loaded  # its variables live as long as it does

        def call(self, batch: dict[str, Any]) -> Any:
            return signature(**batch)["probabilities"]

    model = Served()

    def predict(lines: list[str]) -> Any:
        some = [json.loads(line) for line in lines]
        steps = max(journey["length"] for journey in some)
        arrays = {}
        for name, dtype in types.items():
            missing: Any = "" if dtype == "string" else float("nan")
            empty: Any = "" if dtype == "string" else 0
            values = [journey[name] for journey in some]
            if name == "event_time" or name in about["sequence"]:
                values = [[missing if v is None else v for v in row] + [empty] * (steps - len(row)) for row in values]
            else:
                values = [missing if value is None else value for value in values]
            arrays[name] = tf.constant(values, dtype)
        return model.predict(tf.data.Dataset.from_tensors(arrays), verbose=0)

    return predict


def _micros(instant: dt.datetime) -> int:
    return (instant - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def main() -> None:
    """The whole way, its two parts timed; imports are the process's, and timed from outside."""
    import numpy as np

    run_dir, tables, lines = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[4])
    as_of = dt.datetime.fromisoformat(sys.argv[3]).replace(tzinfo=dt.UTC)
    most = json.loads((run_dir / "model/parcours.json").read_text(encoding="utf-8"))["max_events"]
    began, count = time.perf_counter(), 0
    with lines.open("w", encoding="utf-8") as file:
        for journey in journeys(tables, as_of, most):
            file.write(json.dumps(journey) + "\n")
            count += 1
    made = time.perf_counter()
    predict, mass = predictor(run_dir), 0.0
    with lines.open(encoding="utf-8") as file:
        while some := list(islice(file, BATCH)):
            mass += float(np.sum(predict(some)[:, -1], dtype=np.float64))
    found = {"journeys": count, "making": made - began, "loop": time.perf_counter() - made, "mean": mass / count}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
