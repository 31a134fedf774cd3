"""Job files: YAML as gcloud reads it, filled from the environment, parsed strictly into Vertex AI's types."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from deploy.environment import Environment
from preprocessing import yamlfile
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from google.protobuf.message import Message

Kind = Literal["custom", "tuning", "batch", "schedule"]
_MARKS: dict[str, Kind] = {
    "workerPoolSpecs": "custom",
    "studySpec": "tuning",
    "inputConfig": "batch",
    "createPipelineJobRequest": "schedule",
}
_NAME = r"[A-Z][A-Z0-9_]*"


class _Upper(Template):
    """${NAME} in capitals, never without its braces; $$ stands for a dollar sign."""

    idpattern = r"(?!)"  # without braces: nothing
    braceidpattern = _NAME
    flags = re.NOFLAG


@dataclasses.dataclass(frozen=True)
class JobFile:
    """A job file as it stands: its kind, its mapping and the variables that it names."""

    path: Path
    kind: Kind
    content: dict[str, Any]
    variables: frozenset[str]

    @property
    def name(self) -> str:
        """What the job is called after: the file's name."""
        return self.path.stem.replace("_", "-")

    def render(self, variables: dict[str, str]) -> dict[str, Any]:
        """The mapping with each ${NAME} replaced. Raises UserError where a name has no value."""
        missing = sorted(self.variables - variables.keys())
        if missing:
            known = ", ".join(sorted(variables))
            raise UserError(
                f"{self.path}: ${{{missing[0]}}} has no value; give it with --set {missing[0]}=… (known: {known})"
            )
        filled: dict[str, Any] = _fill(self.content, variables, self.path)
        return filled


def given(pairs: list[str]) -> dict[str, str]:
    """The values of --set NAME=VALUE, by name. Raises UserError where the name is none that ${NAME} may have."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not re.fullmatch(_NAME, name):
            raise UserError(f"--set {pair}: expected NAME=VALUE, the name in capitals")
        found[name] = value
    return found


def load_job(path: str | Path) -> JobFile:
    """Reads a job file. Raises UserError where it is no YAML, or no job that Vertex AI knows."""
    text = yamlfile.read_text(path, "job file")
    _, content = yamlfile.load(text, str(path))
    kinds = [kind for mark, kind in _MARKS.items() if mark in content]
    if len(kinds) != 1:
        raise UserError(
            f"{path}: expected workerPoolSpecs (a custom job), studySpec (a tuning job), inputConfig (a batch "
            "prediction job) or createPipelineJobRequest (a schedule) at its top"
        )
    names = frozenset(name for leaf in _leaves(content) for name in _Upper(leaf).get_identifiers())
    return JobFile(Path(path), kinds[0], content, names)


def to_message(
    job: JobFile, rendered: dict[str, Any], environment: Environment, display_name: str, run_dir: str | None = None
) -> Any:
    """The request's resource: a CustomJob, HyperparameterTuningJob, BatchPredictionJob or Schedule of aiplatform_v1.

    What is no part of a file that gcloud reads is put in here: display name, labels and the CMEK key, all of them
    fields of the job, not of its spec. Labels are the environment's, the job file's name and, where the job has a
    run_dir, what it is called: the bill is split by them. Raises UserError as parse_job does.
    """
    message = parse_job(job, rendered)
    message.display_name = display_name
    runs = message
    if job.kind == "schedule":
        runs = message.create_pipeline_job_request.pipeline_job
        runs.display_name = display_name
    runs.labels.update(environment.labels | {"job": _label(job.name)})
    if run_dir is not None:
        runs.labels["run"] = _label(run_dir.partition("://")[2].partition("/")[2])
    runs.encryption_spec.kms_key_name = environment.cmek_key
    return message


def _label(text: str) -> str:
    """A text as a label's value: lower case, digits, _ and -, its last 63 characters."""
    return re.sub(r"[^a-z0-9_-]+", "_", text.strip("/").lower())[-63:]


def parse_job(job: JobFile, rendered: dict[str, Any]) -> Any:
    """The file's content as the API's type, strictly. Raises UserError for a key that the type has not, and where there
    is no time limit."""
    from google.cloud.aiplatform_v1 import types

    message: Any
    if job.kind == "custom":
        message = types.CustomJob.pb(types.CustomJob())
        _parse(rendered, message.job_spec, job.path)
    elif job.kind == "tuning":
        message = types.HyperparameterTuningJob.pb(types.HyperparameterTuningJob())
        _parse(rendered, message, job.path)
    elif job.kind == "schedule":
        message = types.Schedule.pb(types.Schedule())
        _parse(rendered, message, job.path)
    else:
        message = types.BatchPredictionJob.pb(types.BatchPredictionJob())
        _parse(rendered, message, job.path)
    if job.kind in ("custom", "tuning") and not custom_job_spec(message).scheduling.timeout.seconds:
        raise UserError(f"{job.path}: scheduling.timeout: missing; without it a job may run, and cost, for 7 days")
    return message


def custom_job_spec(message: Any) -> Any:
    """The CustomJobSpec of a custom job or of a tuning job's trials."""
    return message.job_spec if hasattr(message, "job_spec") else message.trial_job_spec


def _parse(content: dict[str, Any], message: Message, path: Path) -> None:
    from google.protobuf import json_format

    try:
        json_format.ParseDict(content, message)
    except json_format.ParseError as error:
        said = str(error).splitlines()[0].replace("google.cloud.aiplatform.v1.", "")
        raise UserError(f"{path}: {said}") from None


def _fill(value: Any, variables: dict[str, str], path: Path) -> Any:
    if isinstance(value, str):
        try:
            return _Upper(value).substitute(variables)
        except (ValueError, KeyError):
            raise UserError(f"{path}: {value!r}: expected ${{NAME}} in capitals, or $$ for a dollar sign") from None
    if isinstance(value, list):
        return [_fill(item, variables, path) for item in value]
    return {key: _fill(item, variables, path) for key, item in value.items()} if isinstance(value, dict) else value


def _leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [leaf for item in items for leaf in _leaves(item)]
