"""Keeps an exported model for the versions to come: `python -m tests.deploy.earlier_model` (two minutes).

It trains a small network on 400 simulated customers and writes earlier/<version>.tar.xz, the model's directory, and
earlier/<version>.json, some raw journeys and what the model answers. Made once a version, before the next one begins;
an archive of an earlier version is never made anew.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from deploy.instances import from_instances, to_instances
from deploy.scorer import Scorer
from preprocessing.cli import UserError, run
from tests.job import SPEC, command
from trainer import __version__

KEPT = Path(__file__).with_name("earlier")
JOURNEYS, EVENTS = 8, 12  # raw journeys kept, and the most events of each
CAMPAIGNS = ["vip_offer", "newsletter_tip"]


def main(argv: list[str] | None = None) -> None:
    """Raises UserError where this version's model is kept already."""
    argparse.ArgumentParser(prog="python -m tests.deploy.earlier_model", description=__doc__).parse_args(argv)
    archive = KEPT / f"{__version__}.tar.xz"
    if archive.exists():
        raise UserError(f"{archive}: is kept already; raise the version in trainer/__init__.py first")
    with tempfile.TemporaryDirectory(prefix="parcours-") as base:
        run_dir = _trained(Path(base))
        with tarfile.open(archive, "w:xz", preset=9) as content:
            for path in sorted((run_dir / "model").rglob("*")):
                content.add(path, path.relative_to(run_dir / "model"), recursive=False, filter=_anonymous)
        (part, *_) = sorted((run_dir / "journeys").glob("part-*.parquet"))
        told = answers(run_dir / "model", _instances(part, run_dir / "model"))
    archive.with_name(f"{__version__}.json").write_text(json.dumps(told, indent=1) + "\n")


def answers(model: Path, instances: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model says of raw journeys: probabilities [n, horizons], and each campaign's difference to the first."""
    scorer = Scorer(model)
    parsed = from_instances(instances, scorer.about)
    assert not parsed.errors, parsed.errors
    first = {name: values[:1] for name, values in parsed.arrays.items()}
    influence = scorer.influence(first, CAMPAIGNS)
    return {
        "instances": instances,
        "probabilities": scorer.score(parsed.arrays).astype(np.float64).tolist(),
        "with_campaign": influence["with_campaign"].astype(np.float64).tolist(),
    }


def _trained(base: Path) -> Path:
    events, key, run_dir = base / "events.parquet", base / "customer.key", base / "run"
    command("preprocessing.simulate", "--customers", 400, "--seed", 11, "--base_rate", 0.2, "--output", events)
    key.write_text(f"{'5a' * 32}\n")
    key.chmod(0o600)
    command("preprocessing.task", "--spec", SPEC, "--events", events, "--run_dir", run_dir, "--key_file", key)
    command(
        *("trainer.task", "--run_dir", run_dir, "--epochs", 4, "--learning_rate", 0.01, "--lstm_units", 8),
        *("--members", 1, "--bootstrap", 0, "--no_baselines"),
    )
    return run_dir


def _instances(part: Path, model: Path) -> list[dict[str, Any]]:
    """Journeys of many lengths, an empty one among them, with their last events."""
    about = Scorer(model).about
    rows = next(pq.ParquetFile(part).iter_batches(2000))
    found = sorted(to_instances(rows, about), key=lambda one: len(one["events"]))
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, JOURNEYS).astype(int)]
    return [one | {"events": one["events"][-EVENTS:]} for one in chosen[:-1]] + [chosen[-1] | {"events": []}]


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    run(main)
