"""What to type to do without deploy.submit what it does: gcloud, or curl where gcloud has no command for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.environment import Environment
from deploy.jobs import Kind

_GROUPS = {"custom": "custom-jobs", "tuning": "hp-tuning-jobs"}
KINDS = {"custom": "customJobs", "tuning": "hyperparameterTuningJobs", "batch": "batchPredictionJobs"}


def create_command(
    kind: Kind, environment: Environment, display_name: str, config: Path, labels: Mapping[str, str]
) -> list[str]:
    """The words of the command that creates the job, with these labels, from the rendered file."""
    if kind == "batch":
        url = f"https://{environment.region}-aiplatform.googleapis.com/v1/{environment.parent}/{KINDS[kind]}"
        token = "Authorization: Bearer $(gcloud auth print-access-token)"
        return ["curl", "-X", "POST", "-H", token, "-H", "Content-Type: application/json", "-d", f"@{config}", url]
    joined = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return [
        *("gcloud", "ai", _GROUPS[kind], "create"),
        f"--project={environment.project}",
        f"--region={environment.region}",
        f"--display-name={display_name}",
        f"--config={config}",
        f"--labels={joined}",
        f"--kms-key={environment.cmek_key}",
    ]


def shown(command: list[str]) -> str:
    """The command as a shell takes it; what is in $(…) stays for the shell to fill."""
    return " ".join(f'"{word}"' if "$(" in word else shlex.quote(word) for word in command)


def write_config(kind: Kind, message: Any, path: Path) -> None:
    """Writes the file that `create_command` names: the spec in YAML, or of a batch prediction the whole job in JSON."""
    import json

    import yaml
    from google.protobuf import json_format

    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "batch":
        path.write_text(json_format.MessageToJson(message) + "\n", encoding="utf-8")
        return
    spec = message.job_spec if kind == "custom" else message
    content = json.loads(json_format.MessageToJson(spec))
    for name in ("displayName", "labels", "encryptionSpec"):  # flags of the command
        content.pop(name, None)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
