"""Long work in steps that are kept: a step is done again only where what went into it has changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preprocessing.cli import UserError

ROOT = Path(__file__).parents[2]
# What only draws or prints decides no figure: to change it must not cost a night of training.
DRAWING = frozenset({"report", "plots", "svg", "page", "tables", "summary", "card"})
_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)


class Steps:
    """The steps kept below a directory; what commands say goes to its steps.log."""

    def __init__(self, work: Path) -> None:
        self.work = work.absolute()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--work {work}: cannot make this directory: {error.strerror}") from None
        self.log = self.work / "steps.log"
        self.seconds = 0.0  # that all steps took, kept ones too

    def done(self, name: str, ingredients: list[Any], make: Callable[[Path], None]) -> tuple[Path, str]:
        """The directory of a step, made by `make(directory)` unless it is there from the same ingredients.

        ingredients: what JSON can say, paths by their content. Returns the directory, and a digest of the ingredients
        that later steps take as one of theirs. A step that fails, or is stopped, leaves nothing that counts as done.
        """
        digest = _digest(ingredients)
        place = self.work / name
        mark = place / "done.json"
        if mark.is_file() and (kept := json.loads(mark.read_text()))["digest"] == digest:
            self.seconds += kept["seconds"]
            say(f"{name}: kept from an earlier run")
            return place, digest
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        began = time.monotonic()
        say(f"{name}: begins")
        make(place)
        seconds = time.monotonic() - began
        self.seconds += seconds
        mark.write_text(json.dumps({"digest": digest, "seconds": round(seconds, 1)}) + "\n")
        say(f"{name}: done in {seconds:.0f} s")
        return place, digest

    def command(self, module: str, *flags: object) -> None:
        """Runs `python -m module flags`. Raises UserError with the last lines it said where it fails."""
        words = [sys.executable, "-m", module, *map(str, flags)]
        with self.log.open("ab") as log:
            log.write(f"\n$ python -m {' '.join(words[2:])}\n".encode())
            log.flush()
            start = log.tell()
            done = subprocess.run(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            with self.log.open("rb") as log:
                log.seek(start)
                said = log.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"python -m {module} ended with {done.returncode}: {' / '.join(said[-3:])}; see {self.log}")


def say(line: str) -> None:
    """A line of progress, with the time."""
    _log.info("%s %s", time.strftime("%H:%M:%S"), line)


def code(*packages: str) -> list[Path]:
    """The files whose change changes figures."""
    found: list[Path] = []
    for package in packages:
        files = [path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".sql")]
        found += sorted(path for path in files if path.stem not in DRAWING)
    return found


def linked(source: Path, target: Path) -> None:
    """The directory once more without its bytes: files are hard links. For what is only ever replaced whole."""
    shutil.copytree(source, target, copy_function=os.link)


def _digest(ingredients: list[Any]) -> str:
    whole = hashlib.sha256()
    for one in ingredients:
        if isinstance(one, Path):
            where = one.relative_to(ROOT) if one.is_relative_to(ROOT) else Path(one.name)
            whole.update(f"{where} {hashlib.sha256(one.read_bytes()).hexdigest()}\n".encode())
        else:
            whole.update(json.dumps(one, sort_keys=True, default=str).encode() + b"\n")
    return whole.hexdigest()[:16]
