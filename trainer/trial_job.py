"""What a trial of a tuning job runs, as the API's CustomJobSpec says it; and what all messages of such a file share.

What says where Vertex AI runs a trial (machines, images, accounts) means nothing on one's own machine and is passed
over; every other field is mapped, or refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field, model_validator

from preprocessing.blocks import Block
from preprocessing.cli import UserError


def _some(given: tuple[Any, ...]) -> tuple[Any, ...]:
    if not given:
        raise ValueError("expected one or more, got none")
    return given


def _one(given: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(given) != 1:
        raise ValueError(f"expected one, got {len(given)}")
    return given


# checked after the items, so that a mistake in one of them is not told twice
_T = TypeVar("_T")
Some = Annotated[tuple[_T, ...], AfterValidator(_some)]
One = Annotated[tuple[_T, ...], AfterValidator(_one)]


_OF_THE_ENVIRONMENT = "--experiment=${EXPERIMENT}"  # where there is none; the command may name an experiment itself


class Message(Block):
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


class _Program(Message):
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


class _Pool(Message):
    elsewhere = frozenset({"machineSpec", "diskSpec", "nfsMounts"})

    replicaCount: Annotated[int, Field(ge=1, le=1)] = 1
    containerSpec: _Program | None = None
    pythonPackageSpec: _Program | None = None


class _Scheduling(Message):
    elsewhere = frozenset({"restartJobOnWorkerRestart", "strategy", "disableRetries", "maxWaitDuration"})

    timeout: Annotated[str, Field(pattern=r"^\d+(\.\d+)?s$")] | None = None


class TrialJob(Message):
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

    workerPoolSpecs: One[_Pool]
    scheduling: _Scheduling = _Scheduling()

    @model_validator(mode="after")
    def _one_program(self) -> TrialJob:
        pool = self.workerPoolSpecs[0]
        if (pool.containerSpec is None) == (pool.pythonPackageSpec is None):
            raise ValueError("workerPoolSpecs: expected containerSpec or pythonPackageSpec")
        return self

    @property
    def flags(self) -> list[str]:
        """The trial's flags for trainer.task, --run_dir apart. Raises UserError where one waits for a value."""
        pool = self.workerPoolSpecs[0]
        program = pool.containerSpec or pool.pythonPackageSpec
        assert program is not None
        flags, given = [], iter(program.args)
        for flag in given:
            if flag == "--run_dir":
                next(given, None)
            elif not flag.startswith("--run_dir=") and flag != _OF_THE_ENVIRONMENT:
                flags.append(flag)
        for flag in flags:
            if "${" in flag:
                raise UserError(f"args: {flag}: only --run_dir=${{RUN_DIR}} is filled in here; write the value itself")
        return flags

    @property
    def seconds(self) -> float | None:
        """How long a trial may take."""
        text = self.scheduling.timeout
        return None if text is None else float(text[:-1])
