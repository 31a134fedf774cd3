"""A submitted Beam pipeline, run for real: read from where it was staged, by Beam's in-process runner, in a process."""

from __future__ import annotations

import collections
import datetime as dt
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cloud.house import House

ROOT = Path(__file__).parent.parent.parent
KEPT = 500  # lines


class Run:
    """One run, begun at once. options: what the pipeline was submitted with; packages: staged ones, to be installed.

    Where packages were staged the process has them and Beam, but not this repository, as a worker would.
    """

    def __init__(self, house: House, options: dict[str, Any], packages: list[str]) -> None:
        place = house.place / "dataflow" / os.urandom(4).hex()
        place.mkdir(parents=True)
        order = json.dumps({"options": options, "packages": packages, "target": str(place / "installed")})
        environment = os.environ | house.environment
        environment["PYTHONPATH"] = str(place / "installed") if packages else str(ROOT)
        self._lines: collections.deque[tuple[dt.datetime, str]] = collections.deque(maxlen=KEPT)
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, order],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="local Dataflow", daemon=True)
        self._reader.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs; once it has ended all that it said has been read."""
        if self._process.poll() is not None:
            self._reader.join()
        return self._process.returncode

    def cancel(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def messages(self, usual: Any, error: Any) -> list[tuple[dt.datetime, Any, str]]:
        """(time, importance, text): each line; after a failure the last ones together, as an error."""
        said = [(when, usual, line) for when, line in tuple(self._lines)]
        if self.returncode:
            text = "\n".join(line for _, _, line in said[-40:])
            said.append((dt.datetime.now(dt.UTC), error, f"{text}\nthe pipeline ended with code {self.returncode}"))
        return said

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.append((dt.datetime.now(dt.UTC), line.rstrip()))


def main(order: dict[str, Any]) -> None:
    """In the process: installs what was staged, then runs the pipeline and waits for it."""
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    options = order["options"]
    for name in order["packages"]:
        # as it is: by its name Beam would unzip it
        with FileSystems.open(f"{options['staging_location']}/{name}", "", CompressionTypes.UNCOMPRESSED) as staged:
            Path(name).write_bytes(staged.read())
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*install, "--target", order["target"], name], check=True)

    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineState
    from apache_beam.transforms import environments

    with FileSystems.open(options["pipelineUrl"]) as staged:
        pipeline = beam_runner_api_pb2.Pipeline.FromString(staged.read())
    here = environments.EmbeddedPythonEnvironment.default().to_runner_api(None)
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = here.urn, here.payload  # no image: the worker is this process
        del environment.dependencies[:]
    known = {name: options[name] for name in ("project", "region", "job_name", "temp_location")}
    result = FnApiRunner().run_via_runner_api(pipeline, PipelineOptions.from_dictionary(known))
    if result.wait_until_finish() != PipelineState.DONE:
        raise SystemExit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
