"""The model registry: versions of one model, with their labels, what was measured of them, and their aliases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deploy.operations import ended
from deploy.vertex_client import call, client, create_once, told
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from deploy.environment import Environment

PREDICT_ROUTE, HEALTH_ROUTE, PORT = "/predict", "/health", 8080
# The schema of what Vertex AI's evaluation page shows; it has no place for intervals, which go to the metadata.
METRICS_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
_SHOWN = {"pr_auc": "auPrc", "roc_auc": "auRoc", "log_loss": "logLoss"}
_PATIENCE_S = 1800.0


class Registry:
    """One model in Vertex AI's registry, `model_id` in the environment's project and region."""

    def __init__(self, environment: Environment, model_id: str) -> None:
        from google.cloud.aiplatform_v1 import ModelServiceClient

        self.environment, self.model_id = environment, model_id
        self.name = f"{environment.parent}/models/{model_id}"
        self._models = client(ModelServiceClient, environment)

    def versions(self) -> list[Any]:
        """All versions, oldest first; none where there is no such model yet."""
        from google.api_core.exceptions import NotFound

        with told(self.name, self.environment):
            try:
                found = list(call(self._models.list_model_versions, {"name": self.name}))
            except NotFound:
                return []
        return sorted(found, key=lambda version: int(version.version_id))

    def version(self, which: str) -> Any:
        """The version with this number or alias. Raises UserError where there is none."""
        versions = self.versions()
        for found in versions:
            if which in (found.version_id, *found.version_aliases):
                return found
        known = ", ".join("/".join((v.version_id, *v.version_aliases)) for v in versions) or "none at all"
        raise UserError(f"{self.name}@{which}: no such version; there are {known}")

    def register(
        self, run_dir: str, about: dict[str, Any], metrics: dict[str, Any], aliases: list[str], *, manifest: str
    ) -> tuple[str, bool]:
        """Makes a version of RUN_DIR/model, or finds the one that there is of the same content, and gives it aliases.

        about: model/parcours.json; metrics: evaluation/metrics.json; manifest: the SHA-256 of model/manifest.json, by
        which containers know the model again. Returns the version's number, and whether it is new.
        """
        held = self._number_of(about["model_version"])
        number = held or self._upload(run_dir, about["model_version"], self._model(run_dir, about, metrics, manifest))
        self._evaluate(number, evaluation(about, metrics))
        self.give(number, aliases)
        return number, held is None

    def give(self, number: str, aliases: list[str]) -> None:
        """Gives a version aliases, taking each from the version that had it."""
        if aliases:
            with told(f"{self.name}@{number}", self.environment):
                call(self._models.merge_version_aliases, {"name": f"{self.name}@{number}", "version_aliases": aliases})

    def _upload(self, run_dir: str, model_version: str, model: dict[str, Any]) -> str:
        """Makes the version. It is waited for outside `create_once`: what goes on is not to be sent again."""
        what, request = f"{run_dir}/model: not registered", {"parent": self.environment.parent, "model": model}
        request |= {"parent_model": self.name} if self.versions() else {"model_id": self.model_id}
        with told(what, self.environment):
            made: Any = create_once(
                lambda: self._models.upload_model(request=request, timeout=60.0, retry=None),
                lambda: self._number_of(model_version),
            )
            if isinstance(made, str):
                return made
            answer = ended(made, what, self.environment, patience_s=_PATIENCE_S, after="run the same command again")
        return str(answer.model_version_id)

    def _evaluate(self, number: str, measured: Any) -> None:
        """Imports what was measured of a version, unless the version has it: an earlier attempt may have ended between
        the two."""
        version = f"{self.name}@{number}"

        def find() -> Any | None:
            return next(iter(call(self._models.list_model_evaluations, {"parent": version})), None)

        request = {"parent": version, "model_evaluation": measured}
        with told(f"{version}: registered, without its evaluation", self.environment):
            if find() is None:
                create_once(
                    lambda: self._models.import_model_evaluation(request=request, timeout=60.0, retry=None), find
                )

    def _number_of(self, model_version: str) -> str | None:
        """The version of this content, if there is one."""
        found = (v.version_id for v in self.versions() if v.labels.get("model_version") == model_version)
        return next(found, None)

    def _model(self, run_dir: str, about: dict[str, Any], metrics: dict[str, Any], manifest: str) -> dict[str, Any]:
        horizon = str(about["primary_horizon"])
        found = metrics["test"][horizon]["lstm"]
        days = ", ".join(map(str, about["horizons_days"]))
        said = ", ".join(f"{name} {found[name]['value']:.4f}" for name in _SHOWN if found[name]["value"] is not None)
        return {
            "display_name": self.model_id,
            "description": f"Probability of {about['conversion']} within {days} days",
            "version_description": f"{run_dir}; test, {horizon} days: {said}",
            "artifact_uri": f"{run_dir}/model",
            "labels": self.environment.labels | labels(about, metrics),
            "encryption_spec": {"kms_key_name": self.environment.cmek_key},
            "container_spec": {
                "image_uri": self.environment.serving_image,
                "command": ["python", "-m", "deploy.serve"],
                "args": ["--manifest_sha256", manifest],
                "ports": [{"container_port": PORT}],
                "predict_route": PREDICT_ROUTE,
                "health_route": HEALTH_ROUTE,
            },
        }


def labels(about: dict[str, Any], metrics: dict[str, Any]) -> dict[str, str]:
    """Labels to find a version by: what it computes, and its test metrics in ten-thousandths (labels hold no dot)."""
    found = metrics["test"][str(about["primary_horizon"])]["lstm"]
    measured = {name: found[name]["value"] for name in _SHOWN}
    return {
        "model_version": about["model_version"],
        "package_version": about["package_version"].replace(".", "-"),
        "primary_horizon": f"{about['primary_horizon']}d",
        **{f"test_{name}": f"{value * 10_000:.0f}" for name, value in measured.items() if value is not None},
    }


def evaluation(about: dict[str, Any], metrics: dict[str, Any]) -> Any:
    """A ModelEvaluation: the primary horizon's test metrics; in its metadata those of all horizons, with intervals."""
    from google.cloud.aiplatform_v1 import ModelEvaluation
    from google.protobuf import json_format

    horizon = str(about["primary_horizon"])
    shown = {name: metrics["test"][horizon]["lstm"][key]["value"] for key, name in _SHOWN.items()}
    kept = {days: found["lstm"] for days, found in metrics["test"].items()}
    content = {
        "displayName": f"test, {horizon} days",
        "metricsSchemaUri": METRICS_SCHEMA,
        "metrics": {name: value for name, value in shown.items() if value is not None},
        "metadata": {"model_version": about["model_version"], "test": kept, "intervals": metrics["intervals"]},
    }
    message = ModelEvaluation.pb(ModelEvaluation())
    json_format.ParseDict(content, message)
    return message


def read_run(run_dir: str, environment: Environment) -> tuple[dict[str, Any], dict[str, Any]]:
    """model/parcours.json and evaluation/metrics.json of a run directory on gs://. Raises UserError where they are not
    there, or not of one training."""
    about, metrics = (
        _read(f"{run_dir}/{name}", environment) for name in ("model/parcours.json", "evaluation/metrics.json")
    )
    if about["model_version"] != metrics["model_version"]:
        raise UserError(
            f"{run_dir}: model/ is {about['model_version']}, evaluation/ of {metrics['model_version']}; "
            "train anew: python -m trainer.task"
        )
    return about, metrics


def _read(uri: str, environment: Environment) -> dict[str, Any]:
    from google.api_core.exceptions import NotFound
    from google.cloud.storage import Blob, Client

    with told(uri, environment):
        try:
            blob = Blob.from_uri(uri, client=Client(project=environment.project))
            found: dict[str, Any] = json.loads(blob.download_as_bytes())
        except NotFound:
            raise UserError(f"{uri}: not there; train first, with python -m deploy.submit") from None
        except ValueError:
            raise UserError(f"{uri}: no JSON; train anew, with python -m deploy.submit") from None
    return found
