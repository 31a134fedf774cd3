"""A small run directory made by the real pipeline: journeys whose conversions depend on their last events."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from preprocessing.rundir import RunDir
from tests.trainer.synthetic_run import make_run

SPEC = """
events:      {table: events, customer: customer_id, time: event_time}
sequence:    {categorical: [event_type, channel], numeric: [amount], max_events: 12}
customer:    {table: customers, static: true, categorical: [segment], numeric: [age]}
conversion:  {where: "event_type = 'purchase'", horizons_days: [7, 14, 30], primary_horizon: 30}
snapshots:   {first: 2026-01-05, last: 2026-06-29, every_days: 14, lookback_days: 90}
data_until:  2026-07-31
split:       {eval_from: 2026-04-06, test_from: 2026-05-25, holdout_customers: 0.2}
campaigns:   {column: channel}
"""


def prepare(path: Path, spec_text: str = SPEC, customers: int = 400) -> RunDir:
    """Writes journeys/, and through tf.Transform records/ and transform/."""
    from apache_beam.options.pipeline_options import PipelineOptions

    from preprocessing.pipeline import run_pipeline

    made = make_run(path / "made", customers=customers, spec_text=spec_text, intercept=-1.5)
    run_dir = RunDir(path / "run")
    with run_dir.lock(), run_dir.stage("journeys", "records", "transform") as staged:
        shutil.copytree(made.run_dir.journeys, staged["journeys"], dirs_exist_ok=True)
        run_pipeline(
            sorted(staged["journeys"].glob("*.parquet")),
            made.spec,
            records_dir=staged["records"],
            transform_dir=staged["transform"],
            options=PipelineOptions(["--runner=FnApiRunner"]),
        )
        shutil.copy(made.run_dir.transform / "summary.json", staged["transform"])
        (staged["transform"] / "spec.yaml").write_text(spec_text)
    return run_dir


@pytest.fixture(scope="session")
def prepared(shared_place: Path) -> RunDir:
    """The run directory as preprocessing leaves it; shared by all test processes, so only to be read."""
    place = shared_place / "prepared"
    with FileLock(f"{place}.lock"):
        if not (place / "run/records/whole.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            prepare(place)
    return RunDir(place / "run")


@pytest.fixture
def run_dir(prepared: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the prepared run directory, to train in."""
    shutil.copytree(prepared.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


@dataclass(frozen=True)
class Trained:
    """What a training left, its run directory deleted; `said` is what the command printed."""

    model: Path
    predictions: Path
    journeys: Path
    said: str


TRAIN = (
    "--members 2 --epochs 3 --lstm_units 16 --dense_units 16 --learning_rate 0.01 --batch_size 64 "
    "--no_baselines --bootstrap 0"
)


@pytest.fixture(scope="session")
def trained(prepared: RunDir) -> Trained:
    """Trains with the real command in a copy of the run directory, then deletes all but what came out."""
    place = prepared.path.parent / "trained"
    with FileLock(f"{place}.lock"):
        if not (place / "said.txt").exists():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(prepared.path, place / "run")
            command = [sys.executable, "-m", "trainer.task", "--run_dir", str(place / "run"), *TRAIN.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            for name in ("model", "evaluation", "journeys"):
                shutil.move(place / "run" / name, place / name)
            shutil.rmtree(place / "run")
            (place / "said.txt").write_text(done.stdout)
    said = (place / "said.txt").read_text()
    return Trained(place / "model", place / "evaluation/predictions.parquet", place / "journeys", said)
