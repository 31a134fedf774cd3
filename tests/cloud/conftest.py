"""The local cloud for tests: one house a session, every test finds its servers empty."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from preprocessing import gcs
from tests.cloud.house import House
from tests.cloud.services import all_services
from tests.cloud.storage import Storage


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The servers, open for the whole session; tests take `cloud`."""
    house = House(tmp_path_factory.mktemp("cloud"), all_services())
    yield house
    house.close()


@pytest.fixture
def cloud(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """The servers as new, and this process's environment led to them (subprocesses inherit it).

    cloud.service(Storage).objects and the like are their state; cloud.service(Storage).fail(503, times=2) a fault.
    """
    house.reset()
    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)
    # httplib2 asks the environment once, when it is imported: by then another test may have done that
    monkeypatch.setattr("httplib2.CA_CERTS", house.environment["HTTPLIB2_CA_CERTS"])
    return house


@pytest.fixture
def shop(cloud: House) -> Iterator[Storage]:
    """Cloud Storage with an empty bucket `shop`, and clients of this process that hold no token of another test."""
    gcs.open_store.cache_clear()
    server = cloud.service(Storage)
    server.make_bucket("shop")
    yield server
    gcs.open_store.cache_clear()
    assert cloud.proxy.refused == []


@pytest.fixture
def gcloud(cloud: House) -> Callable[..., str]:
    """Runs gcloud with these arguments and gives what it printed. Skips where gcloud is not installed."""
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed here, and comes from no package registry: its commands were not tried")

    def run(*arguments: object) -> str:
        done = subprocess.run(
            ["gcloud", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
