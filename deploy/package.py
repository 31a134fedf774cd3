"""The sdist as a job installs it: built from this checkout, named by its content, uploaded once."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.cli import UserError

if TYPE_CHECKING:
    from deploy.environment import Environment

ROOT = Path(__file__).parent.parent


def build_sdist(place: Path) -> Path:
    """Builds the sdist into `place`. Raises UserError where this is no checkout, or it does not build."""
    if not (ROOT / "setup.py").is_file():
        raise UserError(f"{ROOT}: no setup.py here; run deploy.submit from a checkout, where the sdist can be built")
    command = ["-m", "build", "--sdist", "--no-isolation", str(ROOT)]
    done = subprocess.run(
        [sys.executable, *command, "--outdir", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"the sdist does not build: {' '.join(last)}; see: python {shlex.join(command)}")
    (archive,) = place.glob("parcours-*.tar.gz")
    return archive


def sdist_name(environment: Environment, archive: Path) -> str:
    """The gs:// name of an sdist; pip wants its end to be package-version.tar.gz, so the digest is a directory."""
    return f"gs://{environment.bucket}/packages/{content_digest(archive)}/{archive.name}"


def upload_sdist(environment: Environment, archive: Path) -> None:
    """Puts the sdist under its name, where it is not there yet: the name tells the content."""
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud.storage import Blob, Client

    from deploy.vertex_client import told

    uri = sdist_name(environment, archive)
    with told(uri, environment):
        blob = Blob.from_uri(uri, client=Client(project=environment.project))
        with contextlib.suppress(PreconditionFailed):  # it is there
            blob.upload_from_filename(str(archive), if_generation_match=0, checksum="crc32c")


def content_digest(archive: Path) -> str:
    """Twelve hexadecimal digits of what the files in the sdist hold, whenever it was built."""
    digest = hashlib.sha256()
    with tarfile.open(archive) as content:
        for member in sorted(content.getmembers(), key=lambda member: member.name):
            if member.isfile():
                held = content.extractfile(member)
                assert held is not None, "a file"
                digest.update(member.name.encode() + b"\0" + hashlib.sha256(held.read()).digest())
    return digest.hexdigest()[:12]
