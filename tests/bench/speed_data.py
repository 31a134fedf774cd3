"""What the sections of the speed benchmark measure on: 4 million simulated events, their records, a short training."""

from __future__ import annotations

from pathlib import Path

from tests.bench.steps import Steps, code
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
    of = records(steps)

    def make(place: Path) -> None:
        from tests.bench.steps import linked

        for part in ("journeys", "records", "transform"):
            linked(of.run_dir / part, place / part)
        steps.command("trainer.task", "--run_dir", place, *SHORT)

    return steps.done("trained", [of.digest, *map(str, SHORT), *code("trainer")], make)[0]


def key(steps: Steps) -> Path:
    """The customers' key."""
    return key_file(steps)
