"""The run directory: where each step's artefacts lie, one run at a time, never half an artefact.

A step writes its directories aside (`records.partial`) and they change places with the old ones only when all are
whole. The change itself is journalled: a run killed in its middle is rolled forward by the next one, so that what lies
in a run directory is the old whole or the new whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from preprocessing.cli import UserError

MADE_BY = {
    "journeys": "python -m preprocessing.task",
    "records": "python -m preprocessing.task",
    "transform": "python -m preprocessing.task",
    "training": "python -m trainer.task",
    "model": "python -m trainer.task",
    "evaluation": "python -m trainer.task",
}
_WHOLE = "whole.json"


class RunDir:
    """Paths of one run: journeys/ records/ transform/ training/ model/ evaluation/."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.journeys = self.path / "journeys"
        self.records = self.path / "records"
        self.transform = self.path / "transform"
        self.training = self.path / "training"
        self.model = self.path / "model"
        self.evaluation = self.path / "evaluation"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run directory for this process. Raises UserError where another run holds it."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: expected a directory, found a file")
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path}: in use by another run; wait for it, or give this one a --run_dir of its own"
            ) from None
        try:
            self._recover()
            yield
        finally:
            lock.release()

    @contextmanager
    def stage(self, *names: str) -> Iterator[dict[str, Path]]:
        """Yields one empty directory a name to write into; on success all take their places together.

        To be used while the lock is held. On any exception what was written aside is removed and the old stays.
        """
        partial = {name: self.path / f"{name}.partial" for name in names}
        for directory in partial.values():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        try:
            yield partial
            stamp = os.urandom(8).hex()
            for directory in partial.values():
                (directory / _WHOLE).write_text(json.dumps({"stamp": stamp, "with": sorted(names)}) + "\n")
            self._journal.write_text(json.dumps(sorted(names)) + "\n")
            _sync(self.path)
        except BaseException:
            for directory in partial.values():
                shutil.rmtree(directory, ignore_errors=True)
            raise
        self._roll_forward()

    def require(self, *names: str) -> None:
        """Raises UserError unless each of the named artefacts is there, whole, and from one and the same run."""
        if not self.path.is_dir():
            raise UserError(
                f"{self.path}: no such run directory; make it with: {MADE_BY['records']} --run_dir {self.path} …"
            )
        stamps: dict[str, set[str]] = {}
        for name in names:
            directory = self.path / name
            mark = directory / _WHOLE
            if not mark.is_file():
                half = " (only half written)" if directory.exists() or (self.path / f"{name}.partial").exists() else ""
                raise UserError(
                    f"{self.path}: no whole {name}/ here{half}; make it with: {MADE_BY[name]} --run_dir {self.path} …"
                )
            content = json.loads(mark.read_text())
            stamps.setdefault(" ".join(content["with"]), set()).add(content["stamp"])
        for group, found in stamps.items():
            if len(found) > 1:
                raise UserError(
                    f"{self.path}: {group} come from different runs; make them anew with: {MADE_BY[group.split()[0]]}"
                )

    def stamp(self, name: str) -> str:
        """Names the run that made the artefact, so that a later step knows whether it still builds on the same."""
        self.require(name)
        return str(json.loads((self.path / name / _WHOLE).read_text())["stamp"])

    @property
    def _journal(self) -> Path:
        return self.path / ".replacing.json"

    def _roll_forward(self) -> None:
        for name in json.loads(self._journal.read_text()):
            partial, place, old = self.path / f"{name}.partial", self.path / name, self.path / f"{name}.old"
            if not partial.exists():
                continue  # this one changed places before the kill
            shutil.rmtree(old, ignore_errors=True)
            if place.exists():
                place.rename(old)
            partial.rename(place)
        for name in json.loads(self._journal.read_text()):
            shutil.rmtree(self.path / f"{name}.old", ignore_errors=True)
        self._journal.unlink()

    def _recover(self) -> None:
        if self._journal.exists():
            try:
                json.loads(self._journal.read_text())
            except ValueError:
                self._journal.unlink()  # killed while the journal was written: nothing had moved yet
            else:
                self._roll_forward()
        for leftover in self.path.glob("*.partial"):
            shutil.rmtree(leftover)


def _sync(directory: Path) -> None:
    """Asks the disk to hold the directory's entries before anything is moved."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
