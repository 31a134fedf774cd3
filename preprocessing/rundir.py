"""The run directory: where each step's artefacts lie, one run at a time, never half an artefact.

A step writes its directories aside and they change places with the old ones only when all are whole: by journalled
renames on disk (disk.Disk), by a conditional write and copies inside the store under gs:// (bucket.Bucket). A run that
was killed in the middle is rolled forward by the next one, so that what lies in a run directory is the old whole or the
new whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from preprocessing.bucket import Bucket
from preprocessing.cli import UserError
from preprocessing.disk import Disk
from preprocessing.staging import Artefacts, Staging
from preprocessing.storage import is_remote

MADE_BY = {
    "journeys": "python -m preprocessing.task",
    "records": "python -m preprocessing.task",
    "transform": "python -m preprocessing.task",
    "training": "python -m trainer.task",
    "model": "python -m trainer.task",
    "evaluation": "python -m trainer.task",
    "influence": "python -m trainer.influence",
}


class RunDir:
    """Paths of one run: journeys/ records/ transform/ training/ model/ evaluation/ influence/.

    On disk `journeys` and its like are the artefacts themselves. Under gs:// they are places for copies, to be read
    after `fetch`; `url(name)` is where the artefact itself lies, for TensorFlow and Beam, which read gs:// themselves.
    """

    def __init__(self, path: str | Path) -> None:
        if any(letter in str(path) for letter in "*?["):  # by which it would clear another run's checkpoints away
            raise UserError(f"--run_dir {path}: TensorFlow takes * ? and [ for a pattern; expected a path without them")
        self._artefacts: Artefacts = Bucket(str(path)) if is_remote(path) else Disk(Path(path))
        self.place = str(path).rstrip("/") if is_remote(path) else str(Path(path))  # what errors call it
        self.path = self._artefacts.path
        self.journeys = self.path / "journeys"
        self.records = self.path / "records"
        self.transform = self.path / "transform"
        self.training = self.path / "training"
        self.model = self.path / "model"
        self.evaluation = self.path / "evaluation"
        self.influence = self.path / "influence"

    @property
    def is_remote(self) -> bool:
        """Whether it lies under an object store."""
        return is_remote(self.place)

    def exists(self) -> bool:
        """Whether there is such a run directory."""
        return self._artefacts.exists()

    def url(self, name: str) -> str:
        """Where an artefact, or a file in one, lies: a path on disk, or gs://…"""
        return self._artefacts.url(name)

    def holds(self, name: str) -> bool:
        """Whether an artefact, or a file in one, is there."""
        return self._artefacts.holds(name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run directory for this process. Raises UserError where another run holds it."""
        with self._artefacts.lock():
            yield

    def stage(self, *names: str) -> AbstractContextManager[Staging]:
        """Yields one empty directory a name to write into; on success all take their places together.

        To be used while the lock is held. On any exception what was written aside is removed and the old stays.
        """
        return self._artefacts.stage(*names)

    def require(self, *names: str) -> None:
        """Raises UserError unless each of the named artefacts is there, whole, and from one and the same run."""
        self._marks(names)

    def fetch(self, *names: str) -> None:
        """As require; and the named artefacts can then be read at their paths, under gs:// as copies of one moment."""
        for name, mark in self._marks(names).items():
            self._artefacts.fetch(name, mark)

    def stamp(self, name: str) -> str:
        """Names the run that made the artefact, so that a later step knows whether it still builds on the same."""
        return str(self._marks((name,))[name]["stamp"])

    def _marks(self, names: tuple[str, ...]) -> dict[str, dict[str, object]]:
        if not self.exists():
            raise UserError(
                f"{self.place}: no such run directory; make it with: {MADE_BY['records']} --run_dir {self.place} …"
            )
        marks: dict[str, dict[str, object]] = {}
        stamps: dict[str, set[str]] = {}
        for name in names:
            mark = self._artefacts.mark(name)
            if mark is None:
                half = " (only half written)" if self._artefacts.is_half(name) else ""
                raise UserError(
                    f"{self.place}: no whole {name}/ here{half}; make it with: {MADE_BY[name]} --run_dir {self.place} …"
                )
            marks[name] = mark
            stamps.setdefault(" ".join(mark["with"]), set()).add(mark["stamp"])
        for group, found in stamps.items():
            if len(found) > 1:
                raise UserError(
                    f"{self.place}: {group} come from different runs; make them anew with: {MADE_BY[group.split()[0]]}"
                )
        return marks
