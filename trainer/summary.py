"""`python -m trainer.summary`: where each artefact of a run lies, and its headline numbers."""

from __future__ import annotations

import argparse
import json

from preprocessing.cli import UserError, run
from preprocessing.rundir import RunDir
from trainer.budget import bill_lines

ARTEFACTS = {
    "journeys": "one row a journey, Parquet; summary.json holds the balance of events",
    "records": "TFRecord sequences, train, eval and test",
    "transform": "the transform graph, the raw schema, the spec",
    "training": "checkpoints, and logs for TensorBoard",
    "model": "the SavedModel, preprocessing inside",
    "evaluation/report.html": "the report, to open in a browser",
    "evaluation/model_card.md": "the model card: use, data, figures, limits",
    "evaluation/metrics.json": "every number of it",
    "evaluation/run.json": "how long it took, and what it cost",
    "evaluation/resources.json": "CPU, memory and GPU while it trained",
    "evaluation/predictions.parquet": "the test journeys' probabilities beside what happened",
    "evaluation/evolution.json": "a few test journeys, event by event",
    "influence/influence.html": "what campaigns changed, and whom",
    "scores.parquet": "the scores of all customers, by key",
}


def summarise(run_dir: RunDir) -> str:
    """The artefacts that are there, a line each, and the headline table. Raises UserError without an evaluation."""
    from trainer.evaluate import headline

    run_dir.fetch("evaluation")
    path = run_dir.evaluation / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(f"{path}: missing or damaged; evaluate anew with: python -m trainer.task") from None
    there = [(run_dir.url(name), what) for name, what in ARTEFACTS.items() if run_dir.holds(name)]
    width = max(len(name) for name, _ in there)
    return "\n".join([*(f"{name:{width}}  {what}" for name, what in there), "", headline(metrics), *_ran(run_dir)])


def _ran(run_dir: RunDir) -> list[str]:
    """What the run cost, and that its budget stopped it; nothing where neither is known."""
    path = run_dir.evaluation / "run.json"
    if not path.is_file():
        return []
    ran = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"{name.lower()}: {value}" for name, value in bill_lines(ran)]
    return [*lines, "training was stopped by its budget"] if ran.get("stopped_by_budget") else lines


def main(argv: list[str] | None = None) -> None:
    """Prints the summary of --run_dir."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.summary", description="Prints where a run's artefacts lie, and its headline numbers."
    )
    parser.add_argument("--run_dir", required=True, help="the run directory")
    print(summarise(RunDir(parser.parse_args(argv).run_dir)))


if __name__ == "__main__":
    run(main)
