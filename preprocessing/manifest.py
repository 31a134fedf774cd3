"""The manifest of an exported model: what each of its files holds, so that an altered one is never loaded.

`python -m preprocessing.manifest --model DIR` writes one for a model that has none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError, run
from preprocessing.storage import WHOLE, delivered, is_remote

MANIFEST = "manifest.json"
FORMAT = 1
# Of the place where a model lies, not of the model: the mark of a run directory, what deploy.promote notes. Neither is
# read when a model is loaded.
BESIDE = (MANIFEST, WHOLE, "promotion.json")
_ANEW = "export it anew with trainer.task"


def write_manifest(model: Path) -> str:
    """Writes manifest.json beside the files of a model that is complete; returns the SHA-256 of the manifest itself."""
    files = {name: _described(path) for name, path in _files(model).items()}
    content = (json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n").encode()
    with delivered(model / MANIFEST) as aside:
        aside.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def check_manifest(model: Path, called: str) -> str:
    """Raises UserError, which calls the directory `called`, unless it holds the very files that its manifest names.

    Returns the SHA-256 of the manifest itself: equal in every copy of one export.
    """
    content, expected = _read(model / MANIFEST, called)
    there = _files(model)
    wrong = [
        *(f"{name}: missing" for name in sorted(expected.keys() - there.keys())),
        *(f"{name}: not among the exported files" for name in sorted(there.keys() - expected.keys())),
        *(
            f"{name}: altered since the export"
            for name in sorted(expected.keys() & there.keys())
            if _described(there[name]) != expected[name]
        ),
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{called}: {wrong[0]}{more}; the model is not loaded: {_ANEW}, or copy all of it anew")
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, called: str) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{called}: no {MANIFEST} here, so nothing tells whether its files are those that were exported; {_ANEW}, "
            "or, if you vouch for the files, write one: python -m preprocessing.manifest --model DIR"
        ) from None
    except OSError as error:
        raise UserError(f"{called}: {MANIFEST}: cannot be read: {error.strerror}") from None
    try:
        found = json.loads(content)
        if found["format"] == FORMAT and isinstance(found["files"], dict):
            return content, found["files"]
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{called}: {MANIFEST}: damaged, or of another version; {_ANEW}")


def named_by(content: bytes) -> list[str]:
    """The names of files, inside the model's directory, in a manifest; none where it is damaged."""
    try:
        names = json.loads(content)["files"]
        return [name for name in names if not name.startswith("/") and ".." not in name.split("/")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _files(model: Path) -> dict[str, Path]:
    """The files by relative name. A link to a directory counts as a file: none is ever exported."""
    found = {
        path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    return {name: found[name] for name in sorted(found.keys() - set(BESIDE))}


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


def main(argv: list[str] | None = None) -> None:
    """Writes the manifest of a model that has none. Raises UserError where there is one, or no model."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.manifest",
        description="Writes manifest.json of a model that was exported by a version that wrote none. Whoever runs this "
        "vouches for the files as they are now.",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="the SavedModel, on disk")
    place = parser.parse_args(argv).model
    if is_remote(place):
        raise UserError(f"--model {place}: expected a directory on disk; copy it there, without its {WHOLE}")
    model = Path(place)
    if not (model / "saved_model.pb").is_file():
        raise UserError(f"--model {place}: no exported model here (no saved_model.pb)")
    if (model / MANIFEST).exists():
        raise UserError(f"--model {place}: has a {MANIFEST} already; it is written once, by whoever exports the model")
    print(f"{model / MANIFEST}: SHA-256 {write_manifest(model)}")


if __name__ == "__main__":
    run(main)
