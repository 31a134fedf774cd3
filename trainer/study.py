"""A hyperparameter tuning job's file, as `gcloud ai hp-tuning-jobs create --config` reads it, where there is no cloud.

Field names are the API's (google.cloud.aiplatform.v1.HyperparameterTuningJob).
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from preprocessing import yamlfile
from trainer.settings import Settings, bounded
from trainer.trial_job import Message, One, Some, TrialJob
from trainer.tuning import METRICS

_FLAGS = {field.name: field for field in dataclasses.fields(Settings)}
_BY_SIZE = ("epochs", "patience", "members")  # whose default the size of the table decides


class Doubles(Message):
    minValue: float
    maxValue: float
    defaultValue: float | None = None


class Integers(Message):
    minValue: int
    maxValue: int
    defaultValue: int | None = None


class Categories(Message):
    values: Some[str]
    defaultValue: str | None = None


class Discrete(Message):
    values: Some[float]
    defaultValue: float | None = None


class Parameter(Message):
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


class Metric(Message):
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


class MedianStopping(Message):
    """A trial stops where its best so far is worse than the median of the others' at the same epoch."""

    useElapsedDuration: Literal[False] = False


class StudySpec(Message):
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

    metrics: One[Metric]
    parameters: Some[Parameter]
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


class TuningJob(Message):
    """A whole file."""

    elsewhere = frozenset({"displayName", "encryptionSpec", "labels", "name"})

    maxTrialCount: Annotated[int, Field(ge=1)]
    parallelTrialCount: Annotated[int, Field(ge=1)]
    maxFailedTrialCount: Annotated[int, Field(ge=0)] = 0
    studySpec: StudySpec
    trialJobSpec: TrialJob

    @property
    def metric(self) -> Metric:
        return self.studySpec.metrics[0]

    @property
    def maximizes(self) -> bool:
        return self.metric.goal == "MAXIMIZE"


def load_job(path: str) -> TuningJob:
    """Reads the file of a tuning job. Raises UserError with a line for each mistake."""
    job: TuningJob = yamlfile.parse(yamlfile.read_text(path, "tuning job"), path, lambda _: TuningJob)
    return job
