"""Artefacts under an object store, with the guarantees of a directory on disk, though nothing can be renamed.

A step writes below `.staged/<stamp>/`, where no other run writes. One conditional write of the lock object then decides
(lease.note): before it the old counts, after it the new. What was decided is then done: marks of the old away, objects
copied to their places inside the store, leftovers away, marks of the new. A run killed in its middle is finished by the
next one. A mark names the version of every object, so that a reader can tell a whole artefact from a mixture; and every
copy and deletion names the version it replaces, so that a run that has lost its hold harms nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError
from preprocessing.lease import Lease, held
from preprocessing.staging import Staging
from preprocessing.storage import WHOLE, Changed, Stored, download_all, in_parallel, open_place, scratch

_LOCK, _STAGED = ".lock", ".staged"


class Bucket:
    """The artefacts below gs://bucket/path, or the one called `only` among what else lies there.

    The methods are staging.Artefacts'.
    """

    def __init__(self, url: str, only: str | None = None) -> None:
        self._store, self._prefix = open_place(url)
        self._place, self._only = url.rstrip("/"), only
        of = f"-{only}" if only else ""
        self._lock, self._staged = f"{_LOCK}{of}", f"{_STAGED}{of}"
        self._lease: Lease | None = None
        self._fetched: dict[str, str] = {}
        self.path = Path(tempfile.mkdtemp(prefix="run-", dir=scratch()))

    def exists(self) -> bool:
        return bool(self._store.listed(f"{self._prefix}/" if self._prefix else ""))

    def url(self, name: str) -> str:
        return f"{self._place}/{name}"

    def holds(self, name: str) -> bool:
        return any(found == self._name(name) or found.startswith(self._name(name, "")) for found in self._under(name))

    def mark(self, name: str) -> dict[str, Any] | None:
        found = self._store.read(self._name(name, WHOLE))
        return None if found is None else dict(json.loads(found[0]))

    def is_half(self, name: str) -> bool:
        return self.holds(name) or any(f"/{name}/" in found for found in self._under(self._staged))

    def fetch(self, name: str, mark: dict[str, Any]) -> None:
        if self._fetched.get(name) == mark["stamp"]:
            return
        shutil.rmtree(self.path / name, ignore_errors=True)
        self._fetched.pop(name, None)
        if "objects" in mark:
            wanted = {self._name(name, relative): version for relative, version in mark["objects"].items()}
        else:  # a run directory of a disk, copied here as it was
            inside = self._store.listed(self._name(name, ""))
            wanted = {found: stored.version for found, stored in inside.items() if not found.endswith("/")}
        (self.path / name).mkdir(parents=True)
        download_all(self._store, wanted, self._name(name), self.path / name, self.url(name))
        self._fetched[name] = mark["stamp"]

    @contextmanager
    def lock(self) -> Iterator[None]:
        place, flag = (self.url(self._only), "place") if self._only else (self._place, "--run_dir")
        with held(self._store, self._name(self._lock), place, flag) as lease:
            self._lease = lease
            try:
                if lease.replacing is not None:
                    self._roll_forward(lease)
                self._sweep(self._under(self._staged))
                yield
            finally:
                self._lease = None

    @contextmanager
    def stage(self, *names: str) -> Iterator[Staging]:
        lease = self._lease
        assert lease is not None, "stage() is for whoever holds the lock"
        stamp = os.urandom(8).hex()
        aside = self.path / f"{stamp}.partial"
        local = {name: aside / name for name in names}
        for directory in local.values():
            directory.mkdir(parents=True)
        sent: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in names}

        def share(name: str) -> None:
            self._send(local[name], self._name(self._staged, stamp, name), sent[name])

        try:
            yield Staging(local, {name: self.url(f"{self._staged}/{stamp}/{name}") for name in names}, share)
            for name in names:
                share(name)
            objects = {name: len(self._objects(stamp, name)) for name in sorted(names)}
        except BaseException:
            if not lease.is_lost:
                self._sweep(self._under(f"{self._staged}/{stamp}"))
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        # Should the answer to this write be lost, nobody knows yet which of the two counts: nothing is swept then, and
        # the next run, who sees the lock, either finishes what was decided or sweeps.
        lease.note({"stamp": stamp, "objects": objects})
        self._roll_forward(lease)

    def _send(self, directory: Path, place: str, sent: dict[str, tuple[int, int]]) -> None:
        """Uploads the files that are new or changed since they were sent last."""
        todo = []
        for path in sorted(p for p in directory.rglob("*") if p.is_file()):
            relative, stat = path.relative_to(directory).as_posix(), path.stat()
            if sent.get(relative) != (stat.st_size, stat.st_mtime_ns):
                todo.append((path, f"{place}/{relative}", relative in sent))
                sent[relative] = (stat.st_size, stat.st_mtime_ns)

        def one(item: tuple[Path, str, bool]) -> None:
            path, name, again = item
            version = self._store.listed(name)[name].version if again else None
            self._store.upload(path, name, version=version)

        in_parallel(one, todo)

    def _roll_forward(self, lease: Lease) -> None:
        """Does what lease.replacing says, from wherever an earlier attempt left off."""
        stamp, counts = lease.replacing["stamp"], lease.replacing["objects"]
        staged = {name: self._objects(stamp, name) for name in counts}
        for name, count in counts.items():
            if len(staged[name]) != count:
                raise UserError(
                    f"{self._place}: {len(staged[name])} of {count} objects are left of what {name}/ was to become; "
                    f"remove {self.url(self._lock)}, and the old {name}/ counts"
                )
        try:
            left = [name for name in counts if not self._is_in_place(name, stamp)]
            objects = {name: self._place_objects(stamp, name, staged[name]) for name in left}
            for name in left:
                lease.check()
                content = {"stamp": stamp, "with": sorted(counts), "objects": objects[name]}
                body = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
                self._store.write(self._name(name, WHOLE), body, version=None)
        except Changed as error:
            lease.note(lease.replacing)  # says so where another run has taken over
            raise UserError(
                f"{self._place}: {error} was changed by something that holds no lock here; start again"
            ) from None
        lease.note(None)
        self._sweep(self._under(f"{self._staged}/{stamp}"))

    def _is_in_place(self, name: str, stamp: str) -> bool:
        """Whether an earlier attempt has finished this artefact; any other mark is taken away, so that nobody reads."""
        found = self._store.read(self._name(name, WHOLE))
        if found is None:
            return False
        content, place = json.loads(found[0]), self._name(name, "")
        there = {n.removeprefix(place): s.version for n, s in self._store.listed(place).items() if n[-1] != "/"}
        if content.get("stamp") == stamp and there == content.get("objects", {}) | {WHOLE: found[1].version}:
            return True
        self._store.delete(self._name(name, WHOLE), version=found[1].version)
        return False

    def _place_objects(self, stamp: str, name: str, source: Mapping[str, Stored]) -> dict[str, str]:
        """Copies the staged objects to their places and removes others; returns the versions by relative name."""
        staged, place = self._name(self._staged, stamp, name, ""), self._name(name, "")
        target = {found.removeprefix(place): stored for found, stored in self._store.listed(place).items()}

        def one(item: tuple[str, Stored]) -> tuple[str, str]:
            relative, stored = item
            there = target[relative].version if relative in target else None
            copied = self._store.copy(staged + relative, stored.version, place + relative, version=there)
            return relative, copied.version

        objects = dict(in_parallel(one, source.items()))
        self._sweep({place + relative: stored for relative, stored in target.items() if relative not in source})
        return objects

    def _objects(self, stamp: str, name: str) -> dict[str, Stored]:
        """What is staged, by relative name, without the empty objects by which TensorFlow stands for directories."""
        staged = self._name(self._staged, stamp, name, "")
        return {n.removeprefix(staged): s for n, s in self._store.listed(staged).items() if not n.endswith("/")}

    def _sweep(self, objects: Mapping[str, Stored]) -> None:
        in_parallel(lambda item: self._store.delete(item[0], version=item[1].version), objects.items())

    def _under(self, name: str) -> dict[str, Stored]:
        found = self._store.listed(self._name(name))
        return {n: stored for n, stored in found.items() if n == self._name(name) or n.startswith(self._name(name, ""))}

    def _name(self, *parts: str) -> str:
        return "/".join((self._prefix, *parts) if self._prefix else parts)
