"""An environment: where jobs run and on whose account. Environments differ in these values and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from preprocessing import yamlfile
from preprocessing.blocks import Block
from preprocessing.cli import UserError

ENVIRONMENTS = Path("job_configs/environments")

_PROJECT = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
_REGION = r"[a-z]+-[a-z]+\d+"
_CONTEXT = rf"projects/[\w-]+/locations/{_REGION}/metadataStores/default/contexts/[a-z0-9][a-z0-9-]{{0,127}}"

Image = Annotated[str, Field(pattern=r"^[\w.-]+(:\d+)?(/[\w.-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})$")]
Account = Annotated[str, Field(pattern=rf"^[a-z][a-z0-9-]{{4,28}}[a-z0-9]@{_PROJECT}\.iam\.gserviceaccount\.com$")]
# Google's rule for labels; keys may not be empty
LabelKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
LabelValue = Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,63}$")]


class Environment(Block):
    """One environment file.

    experiment: that trainings are written to, "": to none; cost_cap: of one job, in the currency of the price file;
    more needs --above_cap.
    """

    project: Annotated[str, Field(pattern=rf"^{_PROJECT}$")]
    region: Annotated[str, Field(pattern=rf"^{_REGION}$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")]
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=1024)]
    network: Annotated[str, Field(pattern=r"^projects/\d+/global/networks/[a-z][a-z0-9-]*$")]
    subnetwork: Annotated[str, Field(pattern=rf"^regions/{_REGION}/subnetworks/[a-z][a-z0-9-]*$")]
    training_account: Account
    pipeline_account: Account
    serving_account: Account
    cmek_key: Annotated[str, Field(pattern=r"^projects/[\w-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+$")]
    tensorboard: Annotated[str, Field(pattern=rf"^projects/[\w-]+/locations/{_REGION}/tensorboards/\d+$")]
    trainer_image: Image
    serving_image: Image
    pipeline_image: Image
    experiment: Annotated[str, Field(pattern=rf"^({_CONTEXT})?$")] = ""
    labels: dict[LabelKey, LabelValue]
    cost_cap: Annotated[float, Field(gt=0)]

    @property
    def parent(self) -> str:
        """What Vertex AI's resources are made under."""
        return f"projects/{self.project}/locations/{self.region}"

    def variables(self) -> dict[str, str]:
        """What job files may name as ${PROJECT}, ${REGION} and so on: every value that is one text."""
        return {name.upper(): value for name, value in self.model_dump().items() if isinstance(value, str)}


def load_environment(name: str) -> Environment:
    """Reads job_configs/environments/NAME.yaml, or the file that `name` is the path of. Raises UserError with a line
    for each mistake."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = ENVIRONMENTS / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(found.stem for found in ENVIRONMENTS.glob("*.yaml"))) or "none here"
            raise UserError(f"--env {name}: no {path}; expected one of {known}, or the path of such a file")
    environment: Environment = yamlfile.parse(
        yamlfile.read_text(path, "environment file"), str(path), lambda _: Environment
    )
    return environment
