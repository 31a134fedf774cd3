"""Training beside PyTorch's: examples a second of the same network, loss and optimizer, on the same journeys.

`python -m tests.bench.training RUN_DIR SECONDS [JOURNEYS.npz]` measures this package's side and prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError, run
from tests.bench.bars import Bar, measured, ours, table

TORCH = "2.13.0"
BATCH, THREADS, SECONDS = 512, 2, 12.0
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"parcours-torch-{TORCH}"


def section(place: Path) -> str:
    """Both sides twice, in turns; the better of the two counts on each."""
    from tests.bench import speed_data
    from tests.bench.steps import Steps

    python = _torch()
    run_dir = speed_data.records(Steps(place)).run_dir
    data = place / "train.npz"
    rounds: list[dict[str, Any]] = []
    for _ in range(2):
        mine = ours("tests.bench.training", run_dir, SECONDS, data)
        rounds.append(measured(python, "tests/bench/torch_peer.py", data, SECONDS) | mine)
        if rounds[-1]["weights"] != rounds[-1]["torch_weights"]:
            raise UserError(
                f"the networks differ: {rounds[-1]['weights']:,} weights here, {rounds[-1]['torch_weights']:,} in"
                " tests/bench/torch_peer.py; make that one as trainer/model.py is"
            )
    best = {name: max(found[name] for found in rounds) for name in ("ours", "padded", "packed")}
    said = {name: f"{best['ours']:,.0f} and {best[name]:,.0f} journeys/s" for name in ("padded", "packed")}
    bars = [
        Bar("this package / PyTorch, padded batches", best["ours"] / best["padded"], 1.5, False, said["padded"]),
        Bar("this package / PyTorch, packed sequences", best["ours"] / best["packed"], 1.0, False, said["packed"]),
    ]
    first = rounds[0]
    return "\n".join(
        [
            table(bars),
            "",
            f"{first['journeys']:,} journeys of {first['mean_length']:.1f} events on average, at most"
            f" {first['max_events']}, lengths as the simulator has them; batches of {BATCH}; {THREADS} threads; PyTorch"
            f" {first['torch']}. The same layers, hazard loss, AdamW and clipping; one network; the auxiliary task",
            "(`--next_event`) off on both sides. This package reads, parses and shuffles its gzip records inside the"
            " time, with deterministic ops; PyTorch has whole tensors in memory. Warm-up and tracing are left out; of"
            " two rounds in turns the better counts on each side.",
        ]
    )


def _torch() -> Path:
    """A Python with PyTorch, in an environment of its own outside the repository, made on first use."""
    python = Path(os.environ["BENCH_TORCH_PYTHON"]) if "BENCH_TORCH_PYTHON" in os.environ else HOME / "bin/python"
    check = [str(python), "-c", f"import torch; assert torch.__version__.split('+')[0] == '{TORCH}'"]
    if python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return python
    if "BENCH_TORCH_PYTHON" in os.environ:
        raise UserError(f"BENCH_TORCH_PYTHON={python}: expected a Python with torch {TORCH}")
    venv.create(HOME, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", f"torch=={TORCH}", "numpy"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"pip install torch=={TORCH} into {HOME} failed: {done.stderr.strip().splitlines()[-1]}")
    return python


def _ours(run_dir: Path, seconds: float, data: Path | None) -> dict[str, Any]:
    """Trains as trainer.fit does, and writes `data`, the same journeys for PyTorch, where it is not there."""
    import keras
    import tensorflow as tf

    from preprocessing.spec import load_spec
    from trainer.cluster import local_strategy
    from trainer.dataset import ordered_batches, record_files, scan, train_batches
    from trainer.schema import RecordSchema
    from trainer.settings import Settings
    from trainer.steps import Step, Task

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    spec = load_spec(run_dir / "transform/spec.yaml")
    schema = RecordSchema.load(run_dir / "transform")
    files = record_files(run_dir / "records", "train")
    counts = scan(files, schema, spec.horizons_days, spec.gap_days)
    settings = Settings(batch_size=BATCH, members=1, next_event=0.0)
    windows = spec.horizons_days, spec.gap_days, spec.primary_horizon, spec.sampling.negative_rate
    step = Step(Task(schema, *windows, files, counts, files, counts), settings, local_strategy(), BATCH, 10_000)
    lengths: list[int] = []
    arrays: dict[str, list[Any]] = {}
    for features, labels in ordered_batches(files, schema, batch_size=4096):
        lengths += features["length"].numpy().tolist()
        for name, value in {**features, **{n: labels[n] for n in schema.label_parsing()}}.items():
            arrays.setdefault(name, []).append(value.numpy())
    if data is not None:
        _write(data, arrays, step, spec)

    def calls() -> Iterator[int]:
        """Trains, and yields the steps of each call. As in trainer.fit no epoch's iterator outlives it: beside one
        that is alive, the next takes seconds to make."""
        for epoch in range(1, 1_000):
            dataset = train_batches(files, schema, batch_size=BATCH, window=settings.length_window, seed=0, epoch=epoch)
            left, batches = counts.journeys // BATCH, iter(dataset)
            while left:
                count = min(20, left)
                float(step.several(batches, tf.constant(count))[0])
                yield count
                left -= count
            del batches

    done, start = 0, 0.0
    for number, count in enumerate(calls()):
        if number == 2:
            start = time.perf_counter()
        elif number > 2:
            done += count * BATCH
            if time.perf_counter() - start >= seconds:
                break
    rate = done / (time.perf_counter() - start)
    mean = sum(lengths) / len(lengths)
    weights = step.model.count_params()
    return {
        "ours": rate,
        "weights": weights,
        "journeys": len(lengths),
        "mean_length": mean,
        "max_events": schema.max_events,
    }


def _write(data: Path, arrays: dict[str, list[Any]], step: Any, spec: Any) -> None:
    """The journeys as arrays, and what PyTorch's side needs to know of the network."""
    import numpy as np

    member, schema, settings = step.model.members[0], step.task.schema, step.settings
    about = {
        "embeddings": {name: (layer.input_dim, layer.output_dim) for name, layer in member.embeddings.items()},
        "sequence_categorical": list(schema.sequence_categorical),
        "sequence_numeric": list(schema.sequence_numeric),
        "customer_categorical": list(schema.customer_categorical),
        "customer_numeric": list(schema.customer_numeric),
        "units": settings.lstm_units,
        "dense": settings.dense_units,
        "dropout": settings.dropout,
        "horizons": list(spec.horizons_days),
        "gap": spec.gap_days,
        "threads": THREADS,
    }
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    np.savez(data, about=json.dumps(about), **whole)


def main() -> None:
    """This package's side."""
    data = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print(json.dumps(_ours(Path(sys.argv[1]), float(sys.argv[2]), data)))


if __name__ == "__main__":
    run(main)
