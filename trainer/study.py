"""A hyperparameter tuning job's file, as `gcloud ai hp-tuning-jobs create --config` reads it, where there is no cloud.

Field names are the API's (google.cloud.aiplatform.v1.HyperparameterTuningJob). What says where Vertex AI runs a trial
(machines, images, accounts) means nothing here and is passed over; every other field is mapped, or refused by name.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from preprocessing import yamlfile
from preprocessing.blocks import Block
from preprocessing.cli import UserError
from trainer.settings import Settings, bounded
from trainer.tuning import METRICS

_FLAGS = {field.name: field for field in dataclasses.fields(Settings)}
_BY_SIZE = ("epochs", "patience", "members")  # whose default the size of the table decides


class _Message(Block):
    """A message of the API: `elsewhere`: its fields that mean nothing here, `unmapped`: those that would be missed."""

    elsewhere: ClassVar[frozenset[str]] = frozenset()
    unmapped: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _sorted_out(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name in sorted(cls.unmapped & given.keys()):
            raise ValueError(f"{name}: Vertex AI knows this field, a run without a cloud does not; take it out")
        return {name: value for name, value in given.items() if name not in cls.elsewhere}


class Doubles(_Message):
    minValue: float
    maxValue: float
    defaultValue: float | None = None


class Integers(_Message):
    minValue: int
    maxValue: int
    defaultValue: int | None = None


class Categories(_Message):
    values: Annotated[tuple[str, ...], Field(min_length=1)]
    defaultValue: str | None = None


class Discrete(_Message):
    values: Annotated[tuple[float, ...], Field(min_length=1)]
    defaultValue: float | None = None


class Parameter(_Message):
    """One parameter: a flag of trainer.task, and the values that a trial may give it."""

    unmapped = frozenset({"conditionalParameterSpecs"})

    parameterId: str
    doubleValueSpec: Doubles | None = None
    integerValueSpec: Integers | None = None
    categoricalValueSpec: Categories | None = None
    discreteValueSpec: Discrete | None = None
    scaleType: Literal["UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Parameter:
        if self.parameterId not in _FLAGS:
            raise ValueError(f"parameterId: expected a setting of trainer.task, got {self.parameterId!r}")
        if len(self._specs) != 1:
            raise ValueError(
                "expected one of doubleValueSpec, integerValueSpec, categoricalValueSpec, discreteValueSpec"
            )
        if self.scaleType == "UNIT_REVERSE_LOG_SCALE":
            raise ValueError(
                "scaleType: UNIT_REVERSE_LOG_SCALE is not mapped; expected UNIT_LINEAR_SCALE or UNIT_LOG_SCALE"
            )
        if isinstance(self.values, (Categories, Discrete)):
            if self.scaleType == "UNIT_LOG_SCALE":
                raise ValueError("scaleType: UNIT_LOG_SCALE is mapped for a range, not for a list of values")
            ends: tuple[Any, ...] = self.values.values
        else:
            ends = (self.values.minValue, self.values.maxValue)
            if ends[0] > ends[1]:
                raise ValueError(f"minValue: expected at most maxValue, got {ends[0]:g} > {ends[1]:g}")
            if self.scaleType == "UNIT_LOG_SCALE" and ends[0] <= 0:
                raise ValueError(f"minValue: a logarithmic scale expects it above 0, got {ends[0]:g}")
        for value in ends:
            try:
                self.flag_value(value)
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"parameterId: --{self.parameterId}: {error}") from None
        if self.values.defaultValue is not None and not self.holds(self.values.defaultValue):
            raise ValueError(f"defaultValue: {self.values.defaultValue!r} is none of the parameter's values")
        return self

    @property
    def _specs(self) -> list[Doubles | Integers | Categories | Discrete]:
        found = (self.doubleValueSpec, self.integerValueSpec, self.categoricalValueSpec, self.discreteValueSpec)
        return [spec for spec in found if spec is not None]

    @property
    def values(self) -> Doubles | Integers | Categories | Discrete:
        return self._specs[0]

    def flag_value(self, value: Any) -> Any:
        """A value as the trainer's flag takes it. Raises ArgumentTypeError where it does not."""
        field = _FLAGS[self.parameterId]
        text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
        return bounded(field)(text)

    def holds(self, value: Any) -> bool:
        """Whether a trial may have this value."""
        values = self.values
        if isinstance(values, (Categories, Discrete)):
            return value in values.values
        return bool(values.minValue <= value <= values.maxValue)

    def default(self) -> Any | None:
        """The parameter's own default, else the trainer's; None where there is none among its values."""
        if self.values.defaultValue is not None:
            return self.values.defaultValue
        found = _FLAGS[self.parameterId].default
        if found is None or self.parameterId in _BY_SIZE:
            return None
        if isinstance(self.values, Categories):
            return next((text for text in self.values.values if self.flag_value(text) == found), None)
        return found if self.holds(found) else None

    def distribution(self) -> Any:
        """The optuna distribution of its values."""
        from optuna import distributions

        values, log = self.values, self.scaleType == "UNIT_LOG_SCALE"
        if isinstance(values, Integers):
            return distributions.IntDistribution(values.minValue, values.maxValue, log=log)
        if isinstance(values, Doubles):
            return distributions.FloatDistribution(values.minValue, values.maxValue, log=log)
        return distributions.CategoricalDistribution(values.values)


class Metric(_Message):
    unmapped = frozenset({"safetyConfig"})

    metricId: str
    goal: Literal["MAXIMIZE", "MINIMIZE"]

    @model_validator(mode="after")
    def _reported(self) -> Metric:
        if self.metricId not in METRICS:
            raise ValueError(
                f"metricId: expected one that the trainer reports, {', '.join(METRICS)}; got {self.metricId!r}"
            )
        return self


class MedianStopping(_Message):
    """A trial stops where its best so far is worse than the median of the others' at the same epoch."""

    useElapsedDuration: Literal[False] = False


class StudySpec(_Message):
    unmapped = frozenset(
        {
            "convexAutomatedStoppingSpec",
            "convexStopConfig",
            "decayCurveStoppingSpec",
            "observationNoise",
            "studyStoppingConfig",
            "transferLearningConfig",
        }
    )

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=1)]
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1)]
    algorithm: Literal["ALGORITHM_UNSPECIFIED", "RANDOM_SEARCH", "GRID_SEARCH"] = "ALGORITHM_UNSPECIFIED"
    measurementSelectionType: Literal[
        "MEASUREMENT_SELECTION_TYPE_UNSPECIFIED", "LAST_MEASUREMENT", "BEST_MEASUREMENT"
    ] = "MEASUREMENT_SELECTION_TYPE_UNSPECIFIED"
    medianAutomatedStoppingSpec: MedianStopping | None = None

    @model_validator(mode="after")
    def _whole(self) -> StudySpec:
        names = [parameter.parameterId for parameter in self.parameters]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"parameters: {', '.join(sorted(twice))} is given twice")
        if self.algorithm == "GRID_SEARCH":
            for parameter in self.parameters:
                if isinstance(parameter.values, Doubles):
                    raise ValueError(
                        f"algorithm: a grid expects values to count, and {parameter.parameterId} is a double"
                    )
        return self


class _Program(_Message):
    """What a machine runs."""

    elsewhere = frozenset({"imageUri", "executorImageUri", "packageUris"})
    unmapped = frozenset({"env"})

    command: tuple[str, ...] = ("python", "-m", "trainer.task")
    pythonModule: str = "trainer.task"
    args: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _trains(self) -> _Program:
        if self.command[-1:] != ("trainer.task",):
            raise ValueError(f"command: expected python -m trainer.task, got {' '.join(self.command)!r}")
        if self.pythonModule != "trainer.task":
            raise ValueError(f"pythonModule: expected trainer.task, got {self.pythonModule!r}")
        return self


class _Pool(_Message):
    elsewhere = frozenset({"machineSpec", "diskSpec", "nfsMounts"})

    replicaCount: Annotated[int, Field(ge=1, le=1)] = 1
    containerSpec: _Program | None = None
    pythonPackageSpec: _Program | None = None


class _Scheduling(_Message):
    elsewhere = frozenset({"restartJobOnWorkerRestart", "strategy", "disableRetries", "maxWaitDuration"})

    timeout: Annotated[str, Field(pattern=r"^\d+(\.\d+)?s$")] | None = None


class _TrialJob(_Message):
    elsewhere = frozenset(
        {
            "baseOutputDirectory",
            "enableDashboardAccess",
            "enableWebAccess",
            "network",
            "persistentResourceId",
            "protectedArtifactLocationId",
            "reservedIpRanges",
            "serviceAccount",
            "tensorboard",
        }
    )
    unmapped = frozenset({"experiment", "experimentRun", "models"})

    workerPoolSpecs: Annotated[tuple[_Pool, ...], Field(min_length=1, max_length=1)]
    scheduling: _Scheduling = _Scheduling()

    @model_validator(mode="after")
    def _one_program(self) -> _TrialJob:
        pool = self.workerPoolSpecs[0]
        if (pool.containerSpec is None) == (pool.pythonPackageSpec is None):
            raise ValueError("workerPoolSpecs: expected containerSpec or pythonPackageSpec")
        return self


class TuningJob(_Message):
    """A whole file."""

    elsewhere = frozenset({"displayName", "encryptionSpec", "labels", "name"})

    maxTrialCount: Annotated[int, Field(ge=1)]
    parallelTrialCount: Annotated[int, Field(ge=1)]
    maxFailedTrialCount: Annotated[int, Field(ge=0)] = 0
    studySpec: StudySpec
    trialJobSpec: _TrialJob

    @property
    def metric(self) -> Metric:
        return self.studySpec.metrics[0]

    @property
    def maximizes(self) -> bool:
        return self.metric.goal == "MAXIMIZE"

    @property
    def trial_seconds(self) -> float | None:
        """How long a trial may take."""
        text = self.trialJobSpec.scheduling.timeout
        return None if text is None else float(text[:-1])

    @property
    def flags(self) -> list[str]:
        """The trial's flags for trainer.task, --run_dir apart. Raises UserError where one waits for a value."""
        pool = self.trialJobSpec.workerPoolSpecs[0]
        program = pool.containerSpec or pool.pythonPackageSpec
        assert program is not None
        flags, given = [], iter(program.args)
        for flag in given:
            if flag == "--run_dir":
                next(given, None)
            elif not flag.startswith("--run_dir="):
                flags.append(flag)
        for flag in flags:
            if "${" in flag:
                raise UserError(f"args: {flag}: only --run_dir=${{RUN_DIR}} is filled in here; write the value itself")
        return flags


def load_job(path: str) -> TuningJob:
    """Reads the file of a tuning job. Raises UserError with a line for each mistake."""
    job: TuningJob = yamlfile.parse(yamlfile.read_text(path, "tuning job"), path, lambda _: TuningJob)
    return job
