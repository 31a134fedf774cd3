"""Scoring: the SavedModel on raw journeys beside the bare Keras model, and deploy.predict beside a loop over JSON.

`python -m tests.bench.scoring RUN_DIR` compares the models in one process, and prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError, run
from tests.bench.bars import Bar, ours, table
from tests.bench.steps import ROOT, Steps

BATCH, SINGLES, AS_OF = 2048, 400, "2026-05-06"
AGREE = 1e-3  # of the mean probability: rare values alone may differ


def section(place: Path) -> str:
    """Both comparisons in processes of their own."""
    from tests.bench import speed_data

    steps = Steps(place)
    found = ours("tests.bench.scoring", speed_data.trained(steps))
    many = speed_data.many(steps)
    whole, mean = _predict(many, place / "scores.parquet")
    began = time.monotonic()
    peer = ours("tests.bench.scoring_peer", many.run_dir, many.tables, AS_OF, place / "journeys.jsonl")
    theirs = time.monotonic() - began
    if abs(mean - peer["mean"]) > AGREE * mean:
        raise UserError(f"the two ways disagree: mean probability {mean:.6f}, and {peer['mean']:.6f} by the loop")
    bars = [
        Bar(
            f"SavedModel on raw journeys / bare model on transformed tensors, batches of {BATCH}",
            found["raw"] / found["bare"],
            0.75,
            False,
            f"{found['raw']:,.0f} and {found['bare']:,.0f} journeys/s",
        ),
        Bar(
            "one journey, p50: SavedModel - bare model, ms",
            found["raw_ms"] - found["bare_ms"],
            2,
            True,
            f"{found['raw_ms']:.2f} and {found['bare_ms']:.2f} ms",
        ),
        Bar(
            "4M events to scores: rows of Python, JSON lines and a loop of model.predict / deploy.predict",
            theirs / whole,
            5,
            False,
            f"{theirs:.0f} s and {whole:.0f} s",
        ),
        Bar(
            "of that the loop of model.predict alone, its JSON ready / deploy.predict from the events",
            peer["loop"] / whole,
            5,
            False,
            f"{peer['loop']:.0f} s and {whole:.0f} s",
        ),
    ]
    return "\n".join(
        [
            table(bars),
            "",
            "The bare model is the Keras network behind one `tf.function`, on tensors that lie ready. Raw journeys are"
            " Arrow batches of the journeys table in memory; making tensors of them counts, and so does sorting each"
            " batch by length, which spares padding that the bare model computes. `deploy.predict` and the program"
            f" beside it (`tests/bench/scoring_peer.py`) are whole processes, imports and the journeys of"
            f" {peer['journeys']:,} customers included; both give a mean probability of {mean:.5f}.",
        ]
    )


def _predict(many: Any, output: Path) -> tuple[float, float]:
    """Seconds of deploy.predict as a process, and the mean probability that it gave within the longest horizon."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flags: list[object] = ["--model", many.run_dir / "model", "--spec", many.spec, "--events", many.tables]
    flags += ["--as_of", AS_OF, "--key_file", many.key, "--output", output]
    words = [sys.executable, "-m", "deploy.predict", *map(str, flags)]
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"deploy.predict ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    seconds, table = time.monotonic() - began, pq.read_table(output)
    return seconds, pc.mean(table.column(table.num_columns - 1)).as_py()


def _test_batches(run_dir: Path, size: int) -> list[Any]:
    """The test split's journeys as Arrow batches of `size`, the last as small as it comes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parts = sorted((run_dir / "journeys").glob("part-*.parquet"))
    tables = [pq.read_table(part) for part in parts]
    found = pa.concat_tables([table.filter(pc.field("split") == "test") for table in tables]).combine_chunks()
    return list(found.to_batches(max_chunksize=size))


def _bare(run_dir: Path) -> dict[str, float]:
    """Journeys a second and p50 in ms, of the SavedModel (raw) and of the bare network (bare), in turns."""
    import numpy as np
    import tensorflow as tf

    from deploy.scorer import Scorer
    from preprocessing.padded import coded
    from trainer.dataset import ordered_batches, record_files
    from trainer.model import JourneyModel
    from trainer.schema import RecordSchema
    from trainer.settings import Settings

    scorer = Scorer(run_dir / "model")
    schema = RecordSchema.load(run_dir / "transform")
    settings = Settings(**scorer.about["settings"])
    horizons = len(scorer.about["horizons_days"])
    model = JourneyModel(schema, settings, np.zeros(horizons, np.float32), use_cudnn=False)
    names = {name: tf.TensorSpec([None, *f.shape], f.dtype) for name, f in schema.feature_parsing().items()}
    call = tf.function(lambda features: model(features, training=False), input_signature=[names])
    raw = _test_batches(run_dir, BATCH)
    # window=1: sorted within a batch, which costs the same as unsorted; not over several, as the raw ones are not
    files = record_files(run_dir / "records", "test")
    ready = [features for features, _ in ordered_batches(files, schema, batch_size=BATCH, window=1)]
    count = sum(len(batch) for batch in raw)
    assert count == sum(len(features["length"]) for features in ready), "records and journeys differ"

    def score(batch: Any) -> None:
        scorer.score(coded(batch, scorer.about))

    best = {"raw": 0.0, "bare": 0.0}
    for number in range(4):  # the first is the warm-up
        ways: list[tuple[str, Callable[[Any], Any], list[Any]]]
        ways = [("raw", score, raw), ("bare", lambda features: call(features).numpy(), ready)]
        for name, way, batches in ways:
            began = time.perf_counter()
            for batch in batches:
                way(batch)
            if number:
                best[name] = max(best[name], count / (time.perf_counter() - began))
    rows = np.linspace(0, len(raw[0]) - 1, 100).astype(int).tolist()  # of all lengths, as ready[0] is sorted
    arrays = [coded(raw[0].slice(i, 1), scorer.about) for i in rows]
    alone = [{name: values[i : i + 1] for name, values in ready[0].items()} for i in rows]
    taken: dict[str, list[float]] = {"raw_ms": [], "bare_ms": []}
    for i in range(SINGLES + 50):
        start = time.perf_counter()
        scorer.score(arrays[i % 100])
        middle = time.perf_counter()
        call(alone[i % 100]).numpy()
        if i >= 50:
            taken["raw_ms"].append((middle - start) * 1e3)
            taken["bare_ms"].append((time.perf_counter() - middle) * 1e3)
    return best | {name: float(np.median(values)) for name, values in taken.items()}


def main() -> None:
    """The models of a run directory, as JSON."""
    print(json.dumps(_bare(Path(sys.argv[1]))))


if __name__ == "__main__":
    run(main)
