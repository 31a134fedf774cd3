"""A run directory holds the old whole or the new whole, whatever happens in between."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing.cli import UserError
from preprocessing.rundir import RunDir


def write(run: RunDir, text: str, *names: str) -> None:
    with run.lock(), run.stage(*names) as staged:
        for directory in staged.values():
            (directory / "data").write_text(text)


def read(run: RunDir, name: str) -> str:
    run.require(name)
    return (run.path / name / "data").read_text()


def test_staged_directories_take_their_places_together(tmp_path):
    run = RunDir(tmp_path / "run")
    write(run, "old", "records", "transform")
    write(run, "new", "records", "transform")
    run.require("records", "transform")
    assert (read(run, "records"), read(run, "transform")) == ("new", "new")
    assert run.stamp("records") == run.stamp("transform")
    assert sorted(p.name for p in run.path.iterdir()) == [".lock", "records", "transform"]


def test_a_failure_leaves_the_old_whole(tmp_path):
    run = RunDir(tmp_path)
    write(run, "old", "records", "transform")
    with pytest.raises(OSError, match="disk full"), run.lock(), run.stage("records", "transform") as staged:
        (staged["records"] / "data").write_text("half")
        raise OSError("disk full")
    assert (read(run, "records"), read(run, "transform")) == ("old", "old")
    assert not list(run.path.glob("*.partial"))


@pytest.mark.parametrize("renames", range(5))
def test_a_kill_between_the_renames_is_rolled_forward(tmp_path, renames):
    """A child replaces two directories and dies at its n-th rename: whoever locks next finds the new whole."""
    run = RunDir(tmp_path)
    write(run, "old", "records", "transform")
    child = f"""
import os, pathlib
from preprocessing.rundir import RunDir
real, left = pathlib.Path.rename, [{renames}]
def rename(self, target):
    if left[0] == 0:
        os._exit(9)
    left[0] -= 1
    return real(self, target)
pathlib.Path.rename = rename
run = RunDir({str(tmp_path)!r})
with run.lock(), run.stage("records", "transform") as staged:
    for directory in staged.values():
        (directory / "data").write_text("new")
"""
    code = subprocess.run([sys.executable, "-c", child], check=False).returncode
    assert code == (9 if renames < 4 else 0)
    with run.lock():
        pass
    assert (read(run, "records"), read(run, "transform")) == ("new", "new")
    assert run.stamp("records") == run.stamp("transform")


def test_half_written_is_not_taken_for_whole(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "records.partial").mkdir()
    with pytest.raises(
        UserError, match=r"no whole records/ here \(only half written\); make it with: python -m prepro"
    ):
        run.require("records")
    with run.lock():
        assert not list(tmp_path.glob("*.partial"))


def test_directories_of_different_runs_do_not_mix(tmp_path):
    run = RunDir(tmp_path)
    write(run, "one", "records", "transform")
    mark = run.records / "whole.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"stamp": "other"}))
    with pytest.raises(UserError, match="come from different runs"):
        run.require("records", "transform")


def test_one_run_at_a_time(tmp_path):
    child = (
        f"from preprocessing.rundir import RunDir\nwith RunDir({str(tmp_path)!r}).lock():\n"
        "    print('held', flush=True)\n    input()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="in use by another run"), RunDir(tmp_path).lock():
        pass
    holder.kill()
    holder.wait()
    with RunDir(tmp_path).lock():  # the kernel released what the killed run held
        pass


def test_wrong_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a directory, found a file"), RunDir(tmp_path / "file").lock():
        pass
    with pytest.raises(UserError, match="no such run directory; make it with"):
        RunDir(tmp_path / "none").require("records")


def test_a_full_disk_is_one_line():
    code = "from preprocessing.cli import run\ndef main():\n    open('/dev/full', 'w').write('x' * 100000)\nrun(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 2
    assert done.stderr == "error: cannot write: No space left on device; nothing was replaced\n"
