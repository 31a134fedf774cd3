"""What tests of several packages share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
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


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules whose tests wait for what takes a minute to make, once, come after those that need none of it.

    And tests that share a fixture of their module keep to one process (--dist loadgroup), which makes it once.
    """
    slow = {item.path for item in items if {"job", "prepared"} & {*getattr(item, "fixturenames", ())}}
    items.sort(key=lambda item: item.path in slow)
    for item in items:
        fixtures = item.session._fixturemanager
        defined = [fixtures.getfixturedefs(name, item) or () for name in getattr(item, "fixturenames", ())]
        if any(one.scope == "module" for found in defined for one in found):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(item.config.rootpath))))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist once lost the groups without a word, and each process made every fixture anew."""
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("--dist loadgroup: pytest-xdist and this pytest do not agree on how a group is named")


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest, shared_place: Path) -> Iterator[None]:
    """Of several test processes the first begins to make the main job at once, beside its tests: else, when they come
    to those that want it, one would make it and the others wait."""
    wanted = any("job" in getattr(item, "fixturenames", ()) for item in request.session.items)
    making = Thread(target=_made, args=[shared_place])
    if wanted and os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        making.start()
    yield
    if making.ident is not None:
        making.join()


@pytest.fixture(scope="session")
def job(shared_place: Path) -> dict[str, Any]:
    """The main job's run directory, model and scores, made once by the real commands: only to be read."""
    return main_job.described(_made(shared_place))


def _made(shared_place: Path) -> Path:
    place = shared_place / "job"
    with FileLock(f"{place}.lock"):
        if not (place / "said.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            main_job.walk(place)
    return place
