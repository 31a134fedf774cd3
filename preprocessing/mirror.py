"""Tables under gs:// as copies on disk, where DuckDB reads them; a table is copied when it is asked for."""

from __future__ import annotations

import fnmatch
import logging
import tempfile
from pathlib import Path

from preprocessing.cli import UserError
from preprocessing.storage import Stored, download_all, open_place, scratch

_GLOB = "*?["
_log = logging.getLogger(__name__)


class Mirror:
    """What lies beside the events under an object store, and the part of it that is copied so far.

    `events` is the local path, directory or pattern that stands for the one under the store.
    """

    def __init__(self, events: str) -> None:
        """Copies the events. Raises UserError where there are none."""
        self._place = events.rstrip("/")
        self._store, name = open_place(events)
        parts = name.split("/")
        first = next((i for i, part in enumerate(parts) if any(letter in part for letter in _GLOB)), len(parts))
        is_pattern = first < len(parts)
        base = parts[: first if is_pattern else -1]
        if not is_pattern and name not in self._store.listed(name):
            base = parts  # a directory of tables
        self._base = "/".join(base)
        self._url = self._place.removesuffix(name) + self._base
        self._root = Path(tempfile.mkdtemp(prefix="tables-", dir=scratch()))
        prefix = f"{self._base}/" if self._base else ""
        self._there = {n.removeprefix(prefix): s for n, s in self._store.listed(prefix).items() if not n.endswith("/")}
        relative = name.removeprefix(prefix) if name != self._base else ""
        if relative:
            self.fetch(relative)
            if not any(_matches(found, relative) for found in self._there):
                raise UserError(
                    f"{events}: no object matches this pattern" if is_pattern else f"{events}: no such object"
                )
        elif not self._there:
            raise UserError(f"{events}: nothing here; expected the events table, or a directory of tables")
        self.events = str(self._root / relative) if relative else str(self._root)

    def fetch(self, table: str) -> None:
        """Copies what a table's name may stand for: the object, a pattern's, a directory's, or one with a suffix."""
        wanted: dict[str, Stored] = {
            name: stored
            for name, stored in self._there.items()
            if _matches(name, table) or name.startswith((f"{table}/", f"{table}."))
            if not (self._root / name).exists()
        }
        if not wanted:
            return
        size = sum(stored.size for stored in wanted.values())
        _log.info("    copying %d objects of %s (%.1f MB) to read them", len(wanted), self._place, size / 1e6)
        prefix = f"{self._base}/" if self._base else ""
        versions = {prefix + name: stored.version for name, stored in wanted.items()}
        download_all(self._store, versions, self._base, self._root, self._place)

    def shown(self, path: Path) -> str:
        """What errors call a copy: the object's own place."""
        return f"{self._url}/{path.relative_to(self._root).as_posix()}"


def _matches(name: str, pattern: str) -> bool:
    """Whether a relative name matches a pattern, part by part: * and ? stop at a slash."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(
        fnmatch.fnmatchcase(part, one) for part, one in zip(parts, patterns, strict=True)
    )
