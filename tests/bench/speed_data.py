"""What the sections of the speed benchmark measure on: 4 million simulated events, their records, a short training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.bench.records import tables as records_of_size
from tests.bench.steps import Steps, code, linked
from tests.bench.tasks import Prepared, derived, key_file, prepared, simulated

CUSTOMERS = 47_000  # some 85 events each
SHORT = ("--epochs", 1, "--max_steps", 20, "--members", 1, "--no_baselines", "--bootstrap", 0)


def events(steps: Steps) -> tuple[Path, str]:
    """The simulator's tables, and their digest."""
    return simulated(steps, "tables", "--customers", CUSTOMERS, "--seed", 7)


def records(steps: Steps) -> Prepared:
    """Journeys of the demo's spec, every 28 days, lengths as the simulator has them, and their records."""
    tables, digest = events(steps)
    spec = derived("demo.yaml", {"snapshots.every_days": 28})
    return prepared(steps, "records", spec=spec, events=tables / "events.parquet", ingredients=[digest], seeds=(0,))


def trained(steps: Steps) -> Path:
    """A run directory with a model: of few steps, since what a weight is does not change what it costs."""
    return _trained(steps, "trained", records(steps))


@dataclass(frozen=True)
class Many:
    """4 million events of 200,000 customers, and a model of one journey each. spec: of predictions, for everyone."""

    run_dir: Path
    tables: Path
    spec: Path
    key: Path


def many(steps: Steps) -> Many:
    """What deploy.predict is measured on: the tables of the section on records."""
    tables, digest = records_of_size(steps, "4M")
    said = yaml.safe_load((tables / "spec.yaml").read_text(encoding="utf-8"))
    made = {"spec": yaml.safe_dump(said, sort_keys=False), "events": tables}
    run_dir = _trained(steps, "many/trained", prepared(steps, "many", **made, ingredients=[digest], seeds=(0,)))
    spec = run_dir / "predict.yaml"
    spec.write_text(yaml.safe_dump({k: v for k, v in said.items() if k != "eligible"}, sort_keys=False))
    return Many(run_dir, tables, spec, key_file(steps))


def _trained(steps: Steps, name: str, of: Prepared) -> Path:
    def make(place: Path) -> None:
        for part in ("journeys", "records", "transform"):
            linked(of.run_dir / part, place / part)
        steps.command("trainer.task", "--run_dir", place, *SHORT)

    return steps.done(name, [of.digest, *map(str, SHORT), *code("trainer")], make)[0]
