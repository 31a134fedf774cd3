"""What tests of several packages share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests import job as main_job


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all test processes of this session share; PARCOURS_TEST_PLACE keeps one between sessions."""
    kept = os.environ.get("PARCOURS_TEST_PLACE")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def job(shared_place: Path) -> dict[str, Any]:
    """The main job's run directory, model and scores, made once by the real commands: only to be read."""
    place = shared_place / "job"
    with FileLock(f"{place}.lock"):
        if not (place / "said.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            main_job.walk(place)
    return main_job.described(place)
