"""SIGKILL at random moments of each step: the run directory is the old whole or the new whole, and a rerun finishes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from tests.job import ROOT, SPEC, TEST_AS_OF, command
from tests.test_crashes import content

KILLS = int(os.environ.get("PARCOURS_KILLS", "10"))
SMALL = ("--epochs", 1, "--lstm_units", 8, "--members", 1, "--bootstrap", 2, "--no_baselines")
MADE = {
    "preprocessing.task": ("journeys", "records", "transform"),
    "trainer.task": ("model", "evaluation"),
    "trainer.influence": ("influence",),
    "deploy.predict": (),
}


def flags_of(step: str, base: Path) -> tuple:
    run, given = base / "run", ("--spec", SPEC, "--events", base / "events.parquet", "--key_file", base / "key")
    return {
        "preprocessing.task": (*given, "--run_dir", run, "--overwrite"),
        "trainer.task": ("--run_dir", run, *SMALL, "--restart"),
        "trainer.influence": ("--run_dir", run, "--draws", 20),
        "deploy.predict": (
            *given,
            "--model",
            run / "model",
            "--as_of",
            TEST_AS_OF,
            "--output",
            base / "scores.parquet",
        ),
    }[step]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A whole run directory, and how long each step took."""
    base = tmp_path_factory.mktemp("walked")
    command(
        "preprocessing.simulate",
        "--customers",
        900,
        "--seed",
        7,
        "--base_rate",
        0.2,
        "--output",
        base / "events.parquet",
    )
    (base / "key").write_text(f"{'5a' * 32}\n")
    (base / "key").chmod(0o600)
    took = {}
    for step in MADE:
        began = time.monotonic()
        command(step, *flags_of(step, base))
        took[step] = time.monotonic() - began
    return base, took


def fates(step: str, base: Path, old: Path) -> set[str]:
    """Of each artefact of the step, whether it is the old one or a new one; both are whole, or this fails."""
    found = set()
    if step == "deploy.predict":
        rows, before = (pq.read_table(place / "scores.parquet") for place in (base, old))
        assert rows["journey_id"].to_pylist() == before["journey_id"].to_pylist()
        assert rows.schema == before.schema
        return {"old"} if content(base)["scores.parquet"] == content(old)["scores.parquet"] else {"new"}
    run, before = RunDir(base / "run"), RunDir(old / "run")
    run.require(*MADE[step])
    for name in MADE[step]:
        here, there = content(run.path / name), content(before.path / name)
        assert here.keys() == there.keys(), name
        found.add("old" if run.stamp(name) == before.stamp(name) else "new")
        assert run.stamp(name) != before.stamp(name) or here == there, name
    return found


@pytest.mark.slow
@pytest.mark.parametrize("step", MADE)
def test_killed_at_random_moments(step, walked, tmp_path):
    old, took = walked
    draw, after, killed, most = random.Random(step), [], 0, took[step]
    for number in range(3 * KILLS):
        base = tmp_path / str(number)
        shutil.copytree(old, base)
        process = subprocess.Popen(
            [sys.executable, "-m", step, *map(str, flags_of(step, base))],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        # half of them late, where what was made changes places
        share = draw.uniform(0.0, 1.0) if number % 2 else draw.uniform(0.7, 1.0)
        began = time.monotonic()
        try:
            process.wait(share * most)
            most = min(most, time.monotonic() - began)  # it was done before: the machine has less to do than it had
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        try:  # as a reader sees it at once, before anybody has put anything in order
            RunDir(base / "run").require(*MADE[step])
        except UserError as error:
            assert "no whole" in str(error) or "different runs" in str(error)
        with RunDir(base / "run").lock():
            pass
        found = fates(step, base, old)
        assert len(found) == 1, found
        after += found
        command(step, *flags_of(step, base))
        assert fates(step, base, old) == {"new"} or step == "deploy.predict"
        left = [
            p.name for p in base.rglob("*") if p.name.endswith((".partial", ".aside", ".old")) or ".predict-" in p.name
        ]
        assert not [name for name in left if not name.startswith(".")] or step == "deploy.predict", left
        shutil.rmtree(base)
        if killed == KILLS:
            break
    print(f"{step}: {killed} of {number + 1} killed under way; {after.count('old')} old, {after.count('new')} new")
    assert killed == KILLS
