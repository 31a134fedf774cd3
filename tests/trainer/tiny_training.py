"""`python -m tests.trainer.tiny_training RECORDS PLACE`: trains on a few records, and leaves weights.npz.

A process that can be killed: its checkpoints are in PLACE, and the same command goes on from them.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from preprocessing.cli import run
from tests.trainer.test_fit import SETTINGS, habits, make_task, weights
from trainer.fit import fit

LONG = dataclasses.replace(SETTINGS, epochs=12, patience=12, members=1)


def main() -> None:
    records, place = map(Path, sys.argv[1:])
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(LONG.seed)
    records.mkdir(exist_ok=True)
    model, history = fit(make_task(records), LONG, habits(place, checkpoint_every=2, log_every=2))
    steps = sum(1 for _ in history)
    aside = place / "aside.npz"
    np.savez(aside, np.array(steps), *weights(model))
    aside.rename(place / "weights.npz")


if __name__ == "__main__":
    run(main)
