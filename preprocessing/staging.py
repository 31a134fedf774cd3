"""What a place of artefacts offers, on disk and under an object store, and the directories that a step writes into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Staging(dict[str, Path]):
    """One empty local directory a name to write into, to take their places together when all are whole."""

    def __init__(
        self, paths: Mapping[str, Path], urls: Mapping[str, str], share: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(paths)
        self._urls, self._share = urls, share

    def url(self, name: str) -> str:
        """Where workers on other machines write the same artefact: the directory itself, or what it becomes on gs://."""
        return self._urls[name]

    def share(self, name: str) -> str:
        """Makes what lies in the directory so far readable at `url(name)`, for workers; returns that."""
        if self._share is not None:
            self._share(name)
        return self._urls[name]


class Artefacts(Protocol):
    """Named directories in one place, each whole or not there; `path` is where they lie, or are copied to, on disk."""

    path: Path

    def exists(self) -> bool:
        """Whether anything lies there."""

    def url(self, name: str) -> str:
        """Where an artefact, or a file in one, lies, as TensorFlow, Beam and the user name it."""

    def holds(self, name: str) -> bool:
        """Whether an artefact, or a file in one, is there, whole or not."""

    def mark(self, name: str) -> dict[str, Any] | None:
        """What the mark of a whole artefact says, {"stamp", "with", …}; None where there is none."""

    def is_half(self, name: str) -> bool:
        """Whether something lies there, for want of a mark."""

    def fetch(self, name: str, mark: dict[str, Any]) -> None:
        """Makes the artefact of that mark readable at path / name."""

    def lock(self) -> AbstractContextManager[None]:
        """Holds the place for this process, and finishes what a dead run had decided."""

    def stage(self, *names: str) -> AbstractContextManager[Staging]:
        """To be used while the lock is held; on any exception what was written aside is removed and the old stays."""
