"""The tasks of the benchmark: which tables, which specs, which seeds, and what is hoped for."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from preprocessing.cli import UserError
from tests.bench.steps import ROOT, Steps, code, linked

SPECS = ROOT / "job_configs/journeys"
SIMULATED = "simulator"
SPLITS = 5
SIMULATOR_SEEDS = 1  # a training takes half an hour
QUICK_TRAINING = ("--epochs", 1, "--max_steps", 20, "--lstm_units", 8)


@dataclass(frozen=True)
class Goal:
    """What is hoped for in one figure: of the mean over runs, of a bound of its interval, or of a difference.

    against: None: the LSTM's own mean; "better" (of the two peers, by eval), "lightgbm", "oracle": LSTM minus that one.
    bound: which figure is meant, the mean or an end of the paired interval. as_of: the test cut-off, None: all of test.
    """

    metric: str
    limit: float
    at_least: bool
    against: Literal["better", "lightgbm", "oracle"] | None = None
    bound: Literal["value", "low", "high"] = "value"
    as_of: str | None = None


@dataclass(frozen=True)
class Task:
    """A table and its journey spec.

    tables: what must lie in --data, the events first. by_split: official splits in place of seeds. by_as_of: test
    cut-offs are told apart.
    """

    name: str
    title: str
    spec: str
    tables: tuple[str, ...] = ()
    by_split: bool = False
    by_as_of: bool = False
    goals: tuple[Goal, ...] = ()


TASKS = {
    task.name: task
    for task in (
        Task(
            "clickstream",
            "ClickstreamDMM: does a session end in a purchase, from its first 5 pages",
            "clickstream.yaml",
            ("clickstreamdmm_events.parquet", "clickstreamdmm_sessions.parquet"),
            by_split=True,
            goals=(
                Goal("roc_auc", 0.728, at_least=True),
                Goal("pr_auc", 0.450, at_least=True),
                Goal("log_loss", 0.472, at_least=False),
                Goal("log_loss", 0.0, at_least=False, against="lightgbm", bound="high"),
            ),
        ),
        Task(
            "retail",
            "Online Retail: does a customer buy again within 30 days",
            "online_retail.yaml",
            ("online_retail_events.parquet",),
            by_as_of=True,
            goals=(
                Goal("roc_auc", 0.731, at_least=True, as_of="2011-10-01"),
                Goal("log_loss", 0.512, at_least=False, as_of="2011-10-01"),
                Goal("roc_auc", -0.01, at_least=True, against="better", bound="low", as_of="2011-10-01"),
                Goal("roc_auc", 0.740, at_least=True, as_of="2011-11-01"),
                Goal("log_loss", 0.556, at_least=False, as_of="2011-11-01"),
                Goal("roc_auc", -0.01, at_least=True, against="better", bound="low", as_of="2011-11-01"),
            ),
        ),
        Task(
            "coupons",
            "The Complete Journey: does a household redeem a coupon of a campaign",
            "completejourney.yaml",
            ("completejourney_events.parquet",),
            goals=(Goal("roc_auc", -0.02, at_least=True, against="better", bound="low"),),
        ),
        Task(
            SIMULATED,
            "Simulated customers, 2 % buy within 30 days; the truth is known",
            "demo.yaml",
            goals=(
                Goal("roc_auc", -0.01, at_least=True, against="oracle"),
                Goal("roc_auc", 0.0, at_least=True, against="lightgbm", bound="low"),
            ),
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One trained model: the run directory, its seed, and the truth by key where there is one."""

    task: str
    name: str
    run_dir: Path
    seed: int
    truth: Path | None


@dataclass(frozen=True)
class Prepared:
    """A run directory with journeys and records, made once; digest: of all that went into it."""

    name: str
    place: Path
    digest: str
    seeds: tuple[int, ...]
    truth: Path | None

    @property
    def run_dir(self) -> Path:
        return self.place / "run"


def check_tables(tasks: list[Task], data: Path | None) -> None:
    """Raises UserError, in one line, where a task's tables are not in `data`."""
    for task in tasks:
        for table in task.tables:
            if data is None or not (data / table).is_file():
                where = "no --data given" if data is None else f"--data {data}: no {table} here"
                raise UserError(
                    f"{where}; expected the directory with the published tables ({task.name} needs {table}); "
                    f"without them: --tasks {SIMULATED}"
                )


def derived(spec: str, changes: dict[str, Any]) -> str:
    """The spec's YAML with other values; a key `split.test_from` names a value inside a block, None takes it out."""
    content = yaml.safe_load((SPECS / spec).read_text(encoding="utf-8"))
    for key, value in changes.items():
        *blocks, last = key.split(".")
        inside = content
        for block in blocks:
            inside = inside[block]
        if value is None:
            inside.pop(last, None)
        else:
            inside[last] = value
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def key_file(steps: Steps) -> Path:
    """The customers' key of this work directory, made on first use: the same key gives the same rows."""
    path = steps.work / "customer.key"
    if not path.exists():
        steps.command("preprocessing.keys", "--new", path)
    return path


def simulated(steps: Steps, name: str, *flags: object) -> tuple[Path, str]:
    """Simulated tables, with the truth by customer key; returns their directory and digest."""
    key = key_file(steps)

    def make(place: Path) -> None:
        steps.command("preprocessing.simulate", "--output", place / "events.parquet", *flags)
        truth = (place / "truth.parquet", place / "truth_by_key.parquet")
        steps.command(
            "preprocessing.keys", "--key_file", key, "--ids", truth[0], "--column", "customer_id", "--output", truth[1]
        )

    return steps.done(name, [*map(str, flags), key, *code("preprocessing")], make)


def prepared(
    steps: Steps,
    name: str,
    *,
    spec: str,
    events: Path,
    ingredients: list[Any],
    seeds: tuple[int, ...],
    truth: Path | None = None,
) -> Prepared:
    """Journeys and records of the spec (its YAML), by the real command."""
    key = key_file(steps)

    def make(place: Path) -> None:
        (place / "spec.yaml").write_text(spec, encoding="utf-8")
        flags = ("--spec", place / "spec.yaml", "--events", events, "--run_dir", place / "run", "--key_file", key)
        steps.command("preprocessing.task", *flags)

    place, digest = steps.done(name, [spec, *ingredients, key, *code("preprocessing")], make)
    return Prepared(name, place, digest, seeds, truth)


def prepare(task: Task, steps: Steps, data: Path | None, *, seeds: int, customers: int, quick: bool) -> list[Prepared]:
    """Every run directory that the task needs."""
    seeds = 1 if quick else seeds
    every = tuple(range(seeds))
    if task.name == SIMULATED:
        flags: tuple[object, ...] = ("--customers", customers, "--seed", 7)
        if quick:
            flags += ("--base_rate", 0.2)  # so few customers would buy next to nothing
        tables, digest = simulated(steps, f"{task.name}/tables", *flags)
        made: dict[str, Any] = {"spec": derived(task.spec, {}), "events": tables / "events.parquet"}
        truth = tables / "truth_by_key.parquet"
        few = every[:SIMULATOR_SEEDS]
        return [prepared(steps, f"{task.name}/all", **made, ingredients=[digest], seeds=few, truth=truth)]
    assert data is not None
    sources: list[Any] = [data / table for table in task.tables]
    made = {"events": sources[0], "ingredients": sources}
    if not task.by_split:
        return [prepared(steps, f"{task.name}/all", spec=derived(task.spec, {}), **made, seeds=every)]
    return [
        prepared(
            steps,
            f"{task.name}/split{i}",
            spec=derived(task.spec, {"journeys.split.column": f"split{i}"}),
            **made,
            seeds=(0,),
        )
        for i in range(min(SPLITS, seeds))
    ]


def trained(task: Task, of: Prepared, seed: int, steps: Steps, *flags: object) -> Run:
    """A model trained with the seed in a run directory of its own."""

    def make(place: Path) -> None:
        for part in ("journeys", "records", "transform"):
            linked(of.run_dir / part, place / part)
        steps.command("trainer.task", "--run_dir", place, "--seed", seed, "--no_baselines", "--bootstrap", 0, *flags)

    name = f"{of.name}-seed{seed}"
    place, _ = steps.done(name, [of.digest, seed, *map(str, flags), *code("trainer")], make)
    return Run(task.name, name, place, seed, of.truth)


def counts(of: Prepared) -> dict[str, dict[str, int]]:
    """By split: journeys, and conversions at the longest horizon."""
    splits = json.loads((of.run_dir / "transform/summary.json").read_text())["splits"]
    return {
        split: {"journeys": found["journeys"], "conversions": list(found["conversions"].values())[-1]}
        for split, found in splits.items()
    }


def utc_day(micros: int) -> str:
    """2011-10-01 of an as_of in UTC microseconds."""
    return dt.datetime.fromtimestamp(micros / 1e6, dt.UTC).strftime("%Y-%m-%d")
