"""The sdist that a job installs: where it does not build, the error names a command that says why."""

import shlex
import subprocess
import sys

import pytest

from deploy import package
from preprocessing.cli import UserError


def test_an_sdist_that_does_not_build_is_told_with_a_command_that_shows_why(tmp_path, monkeypatch):
    root = tmp_path / "a checkout"
    root.mkdir()
    (root / "setup.py").write_text("raise SystemExit('the setup is broken')")
    monkeypatch.setattr(package, "ROOT", root)
    with pytest.raises(UserError, match=r"the sdist does not build: .*; see: python -m build ") as told:
        package.build_sdist(tmp_path)
    python, *command = shlex.split(str(told.value).partition("; see: ")[2])
    assert python == "python"
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "the setup is broken" in done.stdout + done.stderr


def test_outside_a_checkout_there_is_nothing_to_build(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"no setup\.py here; run deploy\.submit from a checkout"):
        package.build_sdist(tmp_path)
