"""Directories that a command replaces as a whole: reports, figures and keys that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocessing.bucket import Bucket
from preprocessing.cli import UserError
from preprocessing.disk import Disk
from preprocessing.storage import exists, is_remote, join


def check_replaceable(output: str, mark: str) -> None:
    """Raises UserError unless `output` is new, empty, or holds what the same command made: a file named `mark`."""
    if is_remote(output):
        taken = exists(output)
    else:
        taken = Path(output).is_file() or (Path(output).is_dir() and any(Path(output).iterdir()))
    if taken and not exists(join(output, mark)):
        raise UserError(f"--output {output}: expected a new directory, or that of an earlier run that made {mark}")


@contextmanager
def replaced(output: str) -> Iterator[Path]:
    """Yields an empty directory to write into; on success it takes the place of `output`, whole, on any exception not.

    By the protocol of run directories, with a lock beside the output: a run killed in its midst leaves the old whole or
    the new, and the next one tidies up. Raises UserError where another run is writing there.
    """
    place: Bucket | Disk
    if is_remote(output):
        parent, _, name = output.rstrip("/").rpartition("/")
        place = Bucket(parent, only=name)
    else:
        path = Path(output).absolute()
        name, place = path.name, Disk(path.parent, only=path.name)
    with place.lock(), place.stage(name) as staged:
        yield staged[name]
