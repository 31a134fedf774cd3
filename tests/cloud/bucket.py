"""Files of this disk as objects of the local Cloud Storage."""

from __future__ import annotations

from pathlib import Path

from tests.cloud.storage import Storage


def put_files(server: Storage, prefix: str, directory: Path) -> None:
    """Puts every file below a directory into the bucket `shop`, below a prefix."""
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        server.put("shop", f"{prefix}/{path.relative_to(directory).as_posix()}", path.read_bytes())
