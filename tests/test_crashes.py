"""A disk that is full, limited or read-only, and clocks that jump: one line, and the old artefacts stay whole."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocessing import simulate
from preprocessing.rundir import RunDir
from tests.job import ROOT, SPEC


def content(directory: Path) -> dict[str, str]:
    """Every file below, by its digest; the empty lock file aside."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_old(run: Path) -> None:
    with RunDir(run).lock(), RunDir(run).stage("journeys", "records", "transform") as staged:
        for directory in staged.values():
            (directory / "data").write_text("old")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    simulate.main(["--customers", "300", "--output", str(base / "events.parquet")])
    (base / "key").write_text(f"{'5a' * 32}\n")
    (base / "key").chmod(0o600)
    return base


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of 1 MB at a place; only root may."""
    places = []

    def mount(place: Path, *more: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", *more, "tmpfs", str(place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.decode().strip()}")
        places.append(place)

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def prepare(source: Path, run: Path, before: str = "") -> subprocess.CompletedProcess:
    flags = f"--spec {SPEC} --events {source}/events.parquet --key_file {source}/key --run_dir {run} --overwrite"
    shell = f"{before} exec {sys.executable} -m preprocessing.task {flags}"
    return subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)


def one_line(done: subprocess.CompletedProcess, reason: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert reason in line and "nothing was replaced" in line


def test_a_file_that_may_grow_no_further(source, tmp_path):
    write_old(tmp_path / "run")
    before = content(tmp_path / "run")
    one_line(prepare(source, tmp_path / "run", "ulimit -f 200;"), "File too large")
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("size", "last"),
    [("200k", "journeys: "), ("2m", "journeys read from part-")],
    ids=["journeys", "records"],
)
def test_a_full_disk(source, tmp_path, mounted, size, last):
    """Full while DuckDB writes journeys, or while Beam writes records."""
    mounted(tmp_path, "-o", f"size={size}")
    write_old(tmp_path / "run")
    before = content(tmp_path / "run")
    done = prepare(source, tmp_path / "run")
    one_line(done, "No space left on device")
    assert last in done.stderr.splitlines()[-2], "the disk was full at another step"
    assert content(tmp_path / "run") == before


def test_a_read_only_target(source, tmp_path, mounted):
    mounted(tmp_path)
    write_old(tmp_path / "run")
    before = content(tmp_path / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
    done = prepare(source, tmp_path / "run")
    one_line(done, "Read-only file system")
    assert content(tmp_path / "run") == before


def test_a_clock_that_jumps_moves_nothing(tmp_path, monkeypatch):
    """By a year ahead and back while a step is under way: neither locks nor marks read it."""
    run, real = RunDir(tmp_path / "run"), time.time
    write_old(run.path)
    old = run.stamp("records")
    with run.lock(), run.stage("journeys", "records", "transform") as staged:
        monkeypatch.setattr(time, "time", lambda: real() + 3e7)
        for directory in staged.values():
            (directory / "data").write_text("new")
        os.utime(run.path / ".lock", (1, 1))
        monkeypatch.setattr(time, "time", lambda: real() - 3e7)
    run.require("journeys", "records", "transform")
    assert run.stamp("records") != old
    assert (run.records / "data").read_text() == "new"
