"""Beam on Dataflow: what its workers install, where they read and write, and one line where a job fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.beam_options import beam_options
from preprocessing.cli import UserError
from preprocessing.storage import is_remote, join, scratch

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

DATAFLOW = "DataflowRunner"
ON_WORKERS = ("tensorflow-transform", "tfx-bsl")  # beside what the package itself installs, and Beam, which is there


def worker_options(runner: str, flags: list[str], command: str, place: str) -> PipelineOptions:
    """Beam's options for the runner; for Dataflow with what its workers need, where no flag says it.

    place: the gs:// directory, named by a flag of `command`, below which temporary files go unless --temp_location and
    --staging_location name others. Without --sdk_container_image (an image with Parcours in it) the workers install
    this checkout by --setup_file. Raises UserError where something is missing that only the user knows.
    """
    options = beam_options([f"--runner={runner}", *flags], command)
    if runner != DATAFLOW:
        return options
    from apache_beam.options.pipeline_options import GoogleCloudOptions, SetupOptions, WorkerOptions

    if not is_remote(place):
        raise UserError(f"--runner {DATAFLOW}: its workers read and write gs:// only; {place} is on this disk")
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    for name, example in (("project", "my-project"), ("region", "europe-west1")):
        if not getattr(cloud, name):
            raise UserError(f"--runner {DATAFLOW}: expected --{name} too, --{name}={example} say")
    cloud.temp_location = cloud.temp_location or join(place, ".dataflow/temp")
    cloud.staging_location = cloud.staging_location or join(place, ".dataflow/staging")
    for name in ("temp_location", "staging_location"):
        if not is_remote(getattr(cloud, name)):
            raise UserError(f"--{name} {getattr(cloud, name)}: Dataflow expects gs://…")
    ships = options.view_as(WorkerOptions).sdk_container_image or setup.setup_file or setup.extra_packages
    if not ships:
        source = Path(__file__).absolute().parent.parent / "setup.py"
        if not source.is_file():
            raise UserError(
                f"--runner {DATAFLOW}: its workers need Parcours; expected --sdk_container_image IMAGE that holds it, "
                "or --setup_file of a checkout"
            )
        setup.setup_file = str(source)
    elif setup.setup_file:
        setup.setup_file = str(Path(setup.setup_file).absolute())
    if setup.setup_file and not setup.requirements_file:
        setup.requirements_file = str(_requirements())
        setup.requirements_cache = "skip"  # the workers fetch the wheels; downloading them here as sources would fail
    return options


def _requirements() -> Path:
    """A requirements file of what the package's base install lacks, in the versions that its own metadata name."""
    lines = [
        line.partition(";")[0].strip()
        for line in requires("parcours") or []
        if 'extra == "preprocessing"' in line and re.match(r"[\w.-]+", line).group() in ON_WORKERS  # type: ignore[union-attr]
    ]
    assert len(lines) == len(ON_WORKERS), lines
    path = scratch() / "requirements.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextmanager
def told() -> Iterator[None]:
    """Turns what Dataflow says of a job that it refuses, or that fails, into one line."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise UserError(f"Dataflow refused the job: {' '.join(str(error).split())[:400]}") from None
    except Exception as error:
        if type(error).__name__ != "DataflowRuntimeException":
            raise
        raise UserError(
            f"the Dataflow job failed: {' '.join(str(error).split())[:400]}; its log is in the console"
        ) from None
