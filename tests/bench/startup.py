"""Start-up: --help of every entry point, and how soon a training takes its first step.

`python -m tests.bench.startup first RUN_DIR` runs trainer.task to its first step, `bare RUN_DIR` what cannot be spared:
TensorFlow's import, the network's graph and one step of it on a batch out of the air.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError, run
from tests.bench.bars import Bar, table
from tests.bench.steps import ROOT, Steps, linked
from tests.test_package import ENTRY_POINTS

ROUNDS = 3
BATCH = 512


def section(place: Path) -> str:
    """The best of three each, the processes' own start included."""
    from tests.bench import speed_data

    helps = {module: min(_seconds("-m", module, "--help") for _ in range(ROUNDS)) for module in ENTRY_POINTS}
    slowest = max(helps, key=lambda module: helps[module])
    run_dir = speed_data.records(Steps(place)).run_dir
    found: dict[str, list[float]] = {"first": [], "bare": []}
    for _ in range(ROUNDS):
        for kind, seconds in found.items():
            with tempfile.TemporaryDirectory(dir=place) as aside:
                for part in ("journeys", "records", "transform"):
                    linked(run_dir / part, Path(aside) / part)
                seconds.append(_seconds("-m", "tests.bench.startup", kind, aside))
    first, bare = min(found["first"]), min(found["bare"])
    bars = [
        Bar(f"--help of {len(helps)} entry points, the slowest, seconds", helps[slowest], 0.5, True, slowest),
        Bar(
            "trainer.task to its first step / TensorFlow's import, graph and a step",
            first / bare,
            1.3,
            True,
            f"{first:.1f} s and {bare:.1f} s",
        ),
    ]
    return "\n".join([table(bars), "", f"The best of {ROUNDS}, each a process of its own, its start included."])


def _seconds(*words: str) -> float:
    began = time.monotonic()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"python {' '.join(words[:3])} ended with {done.returncode}: {said[-1]}")
    return seconds


def _first(run_dir: str) -> None:
    """trainer.task, ended as soon as its first step is done."""
    from trainer import task
    from trainer.watch import Watch

    def stop(*_: Any) -> None:
        raise SystemExit(0)

    Watch.steps = stop  # type: ignore[method-assign]
    flags = ("--log_every", "1", "--members", "1", "--batch_size", str(BATCH), "--restart")
    task.main(["--run_dir", run_dir, *flags])


def _bare(run_dir: str) -> None:
    """The same step without a run directory's checks, scans, locks, checkpoints and logs."""
    import numpy as np
    import tensorflow as tf

    from trainer.cluster import local_strategy
    from trainer.dataset import Counts
    from trainer.schema import RecordSchema
    from trainer.settings import Settings
    from trainer.steps import Step, Task

    schema = RecordSchema.load(Path(run_dir) / "transform")
    counts = Counts(BATCH, np.full(3, float(BATCH)), np.ones(3))
    learnt = Task(schema, (7, 14, 30), 0, 30, 1.0, [], counts, [], counts)
    step = Step(learnt, Settings(batch_size=BATCH, members=1), local_strategy(), BATCH, 100)
    parsed = schema.feature_parsing()
    features = {name: tf.ones((BATCH, *feature.shape), feature.dtype) for name, feature in parsed.items()}
    labels = {name: tf.ones((BATCH,), feature.dtype) for name, feature in schema.label_parsing().items()}
    batches = iter(tf.data.Dataset.from_tensors((features, labels)).repeat())
    float(step.several(batches, tf.constant(1))[0])


def main() -> None:
    """One of the two, to be timed from outside."""
    {"first": _first, "bare": _bare}[sys.argv[1]](sys.argv[2])


if __name__ == "__main__":
    run(main)
