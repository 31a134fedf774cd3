"""Artefacts in a directory on disk: a lock of the kernel's, and renames, journalled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from preprocessing.cli import UserError
from preprocessing.staging import Staging
from preprocessing.storage import WHOLE


class Disk:
    """The artefacts of a local run directory, or the one called `only` among what else lies there.

    The methods are staging.Artefacts'.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path, self._only = path, only
        of = f"-{only}" if only else ""
        self._lock, self._journal = path / f".lock{of}", path / f".replacing{of}.json"

    def exists(self) -> bool:
        return self.path.is_dir()

    def url(self, name: str) -> str:
        return str(self.path / name)

    def holds(self, name: str) -> bool:
        return (self.path / name).exists()

    def mark(self, name: str) -> dict[str, Any] | None:
        mark = self.path / name / WHOLE
        return dict(json.loads(mark.read_text())) if mark.is_file() else None

    def is_half(self, name: str) -> bool:
        return (self.path / name).exists() or (self.path / f"{name}.partial").exists()

    def fetch(self, name: str, mark: dict[str, Any]) -> None:
        """Nothing to do: what lies on disk is here."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: expected a directory, found a file")
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            place, flag = (self.path / self._only, "place") if self._only else (self.path, "--run_dir")
            raise UserError(
                f"{place}: in use by another run; wait for it, or give this one a {flag} of its own"
            ) from None
        try:
            self._recover()
            yield
        finally:
            lock.release()

    @contextmanager
    def stage(self, *names: str) -> Iterator[Staging]:
        partial = {name: self.path / f"{name}.partial" for name in names}
        for directory in partial.values():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        try:
            yield Staging(partial, {name: str(directory) for name, directory in partial.items()})
            stamp = os.urandom(8).hex()
            for directory in partial.values():
                (directory / WHOLE).write_text(json.dumps({"stamp": stamp, "with": sorted(names)}) + "\n")
            self._journal.write_text(json.dumps(sorted(names)) + "\n")
            _sync(self.path)
        except BaseException:
            for directory in partial.values():
                shutil.rmtree(directory, ignore_errors=True)
            raise
        self._roll_forward()

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
        for leftover in [self.path / f"{self._only}.partial"] if self._only else self.path.glob("*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync(directory: Path) -> None:
    """Asks the disk to hold the directory's entries before anything is moved."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
