"""Files under gs:// and on disk by one set of words, and the interface by which an object store comes in.

Google Cloud Storage is the one store there is (preprocessing.gcs). Another, S3 or Azure say, is a class with the seven
methods of ObjectStore and a line in STORES: locks, staged writing and whole artefacts are built on these alone.
"""

from __future__ import annotations

import atexit
import datetime as dt
import fnmatch
import importlib
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from preprocessing.cli import UserError

STORES = {"gs": "preprocessing.gcs"}  # scheme: the module whose `open_store(bucket)` makes the store
NO_STORES = ("bigquery", "http", "https")  # schemes that are no files at all
WHOLE = "whole.json"  # the mark of a whole artefact: its stamp, and under an object store the version of each object
_AT_ONCE = 8
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)


class Changed(Exception):
    """A precondition failed: the object is not, or no longer, of the version that was named."""


@dataclass(frozen=True)
class Stored:
    """An object as the store knows it: `version` is a token that every write changes, `written` the store's time."""

    version: str
    size: int
    written: dt.datetime


class ObjectStore(Protocol):
    """One bucket. Every write is atomic and conditional, so that it may be tried again after whatever went wrong.

    version: the object must be of that version; None: there must be none. Methods raise Changed where that does not
    hold, and UserError where the bucket, a permission or the credentials are missing, or the store doesn't answer.
    """

    def read(self, name: str) -> tuple[bytes, Stored] | None:
        """The object's content, of one version; None where there is none."""

    def write(self, name: str, content: bytes, *, version: str | None, patience: float | None = None) -> Stored:
        """Writes a small object; patience: seconds for which it is tried again."""

    def upload(self, path: Path, name: str, *, version: str | None) -> Stored:
        """Writes a file as an object."""

    def download(self, name: str, version: str, path: Path) -> None:
        """Writes the object of that version to a file. Raises Changed where that version is gone."""

    def listed(self, prefix: str) -> dict[str, Stored]:
        """The objects whose names begin with `prefix`, by name, in order."""

    def copy(self, source: str, source_version: str, target: str, *, version: str | None) -> Stored:
        """Copies an object inside the bucket; `version` is the target's."""

    def delete(self, name: str, *, version: str) -> None:
        """Deletes the object of that version; one that is gone already is no mistake."""


def is_remote(place: str | Path) -> bool:
    """Whether `place` is an object store's. Raises UserError for a scheme that no store has."""
    found = _URL.match(str(place))
    if found is None or found[1] in NO_STORES:
        return False
    if found[1] not in STORES:
        expected = " or ".join(f"{scheme}://…" for scheme in STORES)
        raise UserError(f"{place}: no storage for {found[1]}://; expected a local path or {expected}")
    return True


def open_place(url: str) -> tuple[ObjectStore, str]:
    """The store of a URL, and the object's name in it without slashes at its end. Raises UserError for a bad URL."""
    found = _URL.match(url)
    if found is None or not found[2]:
        raise UserError(f"{url}: expected a bucket, as in gs://bucket/path")
    name = found[3].rstrip("/")
    if "//" in name or any(part in (".", "..") for part in name.split("/")):
        raise UserError(f"{url}: expected a path without empty parts, . and ..")
    opened: Callable[[str], ObjectStore] = importlib.import_module(STORES[found[1]]).open_store
    return opened(found[2]), name


def join(place: str | Path, name: str) -> str:
    """A name inside a directory, under an object store or on disk."""
    return f"{str(place).rstrip('/')}/{name}" if is_remote(place) else str(Path(place) / name)


def read_text(place: str | Path, what: str) -> str:
    """The text of a UTF-8 file, without a byte order mark; `what` is what errors call it.

    Raises UserError where it cannot be read.
    """
    try:
        if is_remote(place):
            store, name = open_place(str(place))
            found = store.read(name)
            if found is None:
                raise UserError(f"{place}: cannot read the {what}: no such object")
            return found[0].decode("utf-8-sig")
        return Path(place).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{place}: cannot read the {what}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: the {what} is not UTF-8 text ({error.reason})") from None


def matching(place: str | Path, pattern: str) -> list[str]:
    """The paths in a directory, on disk or under gs://, whose names match, sorted; none where there is no directory.

    Unlike a glob of the whole path it takes the directory's own name for what it is, brackets and all.
    """
    if not is_remote(place):
        path = Path(place)
        names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    else:
        store, name = open_place(str(place))
        prefix = f"{name}/" if name else ""
        names = [found.removeprefix(prefix) for found in store.listed(prefix)]
    return [join(place, name) for name in sorted(fnmatch.filter(names, pattern)) if "/" not in name]


def exists(place: str | Path) -> bool:
    """Whether a file or a directory that is not empty lies there."""
    if not is_remote(place):
        return Path(place).exists()
    store, name = open_place(str(place))
    return any(found == name or found.startswith(f"{name}/") for found in store.listed(name))


def localised(place: str | Path) -> Path:
    """A local path with the content of `place`, a file or a directory: itself on disk, else a copy of one moment.

    Copies last as long as the process, and are made anew only where the store holds another version. A directory with
    the mark of a whole artefact is copied in the versions that the mark names. Raises UserError where there is nothing,
    or it is replaced while it is copied.
    """
    if not is_remote(place):
        return Path(place)
    store, name = open_place(str(place))
    found = store.listed(name)
    wanted = {object_name: stored.version for object_name, stored in found.items() if object_name == name}
    if not wanted:
        inside = {n: s.version for n, s in found.items() if n.startswith(f"{name}/") and not n.endswith("/")}
        mark = store.read(f"{name}/{WHOLE}") if f"{name}/{WHOLE}" in inside else None
        objects = json.loads(mark[0]).get("objects") if mark else None
        wanted = inside if objects is None else {f"{name}/{relative}": v for relative, v in objects.items()}
    if not wanted:
        raise UserError(f"{place}: nothing here; expected a file or a directory")
    copies = scratch() / "copies" / re.sub(r"[^\w.-]", "_", f"{place}")
    with _COPYING:
        known = _COPIED.get(str(place))
        if known is not None and known[0] == wanted:
            return known[1]
        target = copies / secrets.token_hex(4) / (name.rpartition("/")[2] or "bucket")
        download_all(store, wanted, name, target, str(place))
        _COPIED[str(place)] = (wanted, target)
    return target


_COPYING = threading.Lock()
_COPIED: dict[str, tuple[dict[str, str], Path]] = {}


def scratch() -> Path:
    """A directory of this process for copies of what lies in object stores, removed at its end."""
    global _SCRATCH  # noqa: PLW0603 - one a process
    if _SCRATCH is None or _SCRATCH[0] != os.getpid():  # a forked worker must not remove its parent's
        _SCRATCH = (os.getpid(), Path(tempfile.mkdtemp(prefix="parcours-")))
        atexit.register(shutil.rmtree, _SCRATCH[1], ignore_errors=True)
    return _SCRATCH[1]


_SCRATCH: tuple[int, Path] | None = None


def download_all(store: ObjectStore, wanted: Mapping[str, str], name: str, target: Path, place: str) -> None:
    """Downloads the wanted objects (name: version) below `name` to the same places below `target`.

    Raises UserError where one is no longer of its version.
    """

    def one(item: tuple[str, str]) -> None:
        path = target if item[0] == name else target / item[0][len(name) :].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download(*item, path)

    try:
        in_parallel(one, wanted.items())
    except Changed:
        raise UserError(f"{place}: replaced by another run while it was read; start again") from None


def in_parallel(do: Callable[[Any], Any], items: Any) -> list[Any]:
    """do(item) of each item, several at once; the first error is raised, and what has not begun is left undone."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(do, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def keep(path: Path, place: str) -> str:
    """Copies a file to `place`, on disk or under an object store, and returns that."""
    with delivered(place) as aside:
        shutil.copyfile(path, aside)
    return place


def discard(place: str) -> None:
    """Removes the file at `place`, if there is one."""
    if not is_remote(place):
        Path(place).unlink(missing_ok=True)
        return
    store, name = open_place(place)
    found = store.listed(name).get(name)
    if found is not None:
        store.delete(name, version=found.version)


@contextmanager
def delivered(place: str | Path) -> Iterator[Path]:
    """Yields a local path to write one file to; on success it takes its place, whole; on any exception nothing does.

    Under an object store the file must be what it was when the writing began: where another run has written it
    meanwhile, that is a UserError, and the other's file stays.
    """
    if not is_remote(place):
        path = Path(place)
        if path.is_dir():
            raise UserError(f"{path}: expected a file, found a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.aside")
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        return
    store, name = open_place(str(place))
    before = store.listed(name).get(name)
    with tempfile.TemporaryDirectory(prefix="output-", dir=scratch()) as directory:
        aside = Path(directory) / (name.rpartition("/")[2] or "output")
        yield aside
        try:
            store.upload(aside, name, version=before.version if before else None)
        except Changed:
            raise UserError(f"{place}: written by another run meanwhile; that one stays, this one is dropped") from None
