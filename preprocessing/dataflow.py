"""Beam on Dataflow: what its workers install, where they read and write, and one line where a job fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from preprocessing.beam_options import beam_options
from preprocessing.cli import UserError
from preprocessing.storage import is_remote, join, scratch

DATAFLOW = "DataflowRunner"
ON_WORKERS = ("tensorflow-transform", "tfx-bsl")  # beside what the package itself installs, and Beam, which is there


def worker_flags(runner: str, flags: list[str], command: str, place: str) -> list[str]:
    """Beam's flags for the runner; for Dataflow with what its workers need, where none of `flags` says it.

    place: the gs:// directory, named by a flag of `command`, below which temporary files go unless --temp_location and
    --staging_location name others. Without --sdk_container_image (an image with Parcours in it) the workers install
    this checkout by --setup_file. Raises UserError where something is missing that only the user knows, or a flag is
    none of Beam's.
    """
    flags = [f"--runner={runner}", *flags]
    options = beam_options(flags, command)
    if runner != DATAFLOW:
        return flags
    from apache_beam.options.pipeline_options import GoogleCloudOptions, SetupOptions, WorkerOptions

    if not is_remote(place):
        raise UserError(f"--runner {DATAFLOW}: its workers read and write gs:// only; {place} is on this disk")
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    for name, example in (("project", "my-project"), ("region", "europe-west1")):
        if not getattr(cloud, name):
            raise UserError(f"--runner {DATAFLOW}: expected --{name} too, --{name}={example} say")
    for name in ("temp", "staging"):
        location = getattr(cloud, f"{name}_location")
        if not location:
            flags.append(f"--{name}_location={join(place, f'.dataflow/{name}')}")
        elif not is_remote(location):
            raise UserError(f"--{name}_location {location}: Dataflow expects gs://…")
    source = setup.setup_file and str(Path(setup.setup_file).absolute())
    if not (options.view_as(WorkerOptions).sdk_container_image or source or setup.extra_packages):
        source = str(Path(__file__).absolute().parent.parent / "setup.py")
        if not Path(source).is_file():
            raise UserError(
                f"--runner {DATAFLOW}: its workers need Parcours; expected --sdk_container_image IMAGE that holds it, "
                "or --setup_file of a checkout"
            )
    if source:
        flags.append(f"--setup_file={source}")  # the last one counts
        if not setup.requirements_file:
            # the workers fetch the wheels; Beam would download sources here, which would have to be built
            flags += [f"--requirements_file={_requirements()}", "--requirements_cache=skip"]
    return flags


def _requirements() -> Path:
    """A requirements file of what the package's base install lacks, in the versions that its own metadata name."""
    try:
        named = requires("parcours") or []
    except PackageNotFoundError:
        raise UserError(
            f"--runner {DATAFLOW}: the package is not installed here; install it: pip install -e ."
        ) from None
    lines = [
        line.partition(";")[0].strip()
        for line in named
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
