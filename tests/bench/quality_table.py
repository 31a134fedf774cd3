"""The benchmark's figures from test predictions, and how they are told: Markdown and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.bench.tasks import Goal, Task
from trainer.bootstrap import Slice, estimate, interval
from trainer.joins import customer_codes
from trainer.metrics import METRICS, Floats, Scores

MEASURED = {"roc_auc": "AUC", "pr_auc": "AP", "log_loss": "log loss", "calibration_error": "ECE"}
COMPARED = ("roc_auc", "pr_auc", "log_loss")
LABELS = {
    "lstm": "LSTM",
    "lightgbm": "LightGBM",
    "logistic_regression": "Logistic regression",
    "oracle": "Oracle (true probability)",
}
MANY_ROWS = 50_000


@dataclass(frozen=True)
class Scored:
    """The test predictions of one run: a seed, or a split.

    customer_key: Arrow string [n], the same key for a customer in every run of the task; as_of: int64 [n], UTC µs;
    converted: bool [n]; models: by model, float64 [n]; eval_log_loss: of each peer, on eval.
    """

    name: str
    customer_key: pa.Array
    as_of: NDArray[np.int64]
    converted: NDArray[np.bool_]
    models: dict[str, Floats]
    eval_log_loss: dict[str, float]


def better_peer(runs: list[Scored]) -> str:
    """The peer with the lower mean log loss on eval."""
    means = {name: float(np.mean([run.eval_log_loss[name] for run in runs])) for name in runs[0].eval_log_loss}
    return min(means, key=lambda name: means[name])


def measure(runs: list[Scored], rows: list[NDArray[np.bool_]], draws: int) -> dict[str, Any]:
    """Mean and sd over runs of each model's metrics, and LSTM minus each other model with a paired 95 % interval.

    rows: for each run bool [n], the journeys that count. The sd is that of a sample (n - 1), None for one run. A draw
    takes customers with replacement, the same for every run and model; what is drawn is the mean over runs of the
    difference, so that test parts which share customers are not taken for independent news, and the interval is of the
    mean run, not of one seed.
    """
    ends = np.cumsum([0, *(len(run.as_of) for run in runs)])
    customer = customer_codes(pa.concat_arrays([run.customer_key for run in runs]))
    slices = {}
    for i, (run, chosen) in enumerate(zip(runs, rows, strict=True)):
        place = np.flatnonzero(chosen)
        scores = {model: Scores(run.converted[place], p[place]) for model, p in run.models.items()}
        slices["run", i] = Slice(ends[i] + place, scores)
    drawn = draws if sum(map(np.count_nonzero, rows)) < MANY_ROWS else min(draws, 200)
    found = estimate(slices, customer, drawn, 0)
    table: dict[str, Any] = {"draws": drawn, "journeys": [], "conversions": [], "models": {}, "differences": {}}
    for run, chosen in zip(runs, rows, strict=True):
        table["journeys"].append(int(chosen.sum()))
        table["conversions"].append(int(run.converted[chosen].sum()))
    values = {model: np.stack([one[model].value for one in found.values()]) for model in runs[0].models}
    sampled = {model: np.stack([one[model].draws for one in found.values()]).mean(axis=0) for model in runs[0].models}
    for model, by_run in values.items():
        table["models"][model] = {}
        for name in MEASURED:
            one = by_run[:, METRICS.index(name)]
            spread = float(one.std(ddof=1)) if len(one) > 1 else None
            table["models"][model][name] = {"mean": float(one.mean()), "sd": spread, "runs": one.tolist()}
        if model != "lstm":
            table["differences"][model] = {}
            for name in COMPARED:
                i = METRICS.index(name)
                gap = values["lstm"][:, i].mean() - by_run[:, i].mean()
                gaps = sampled["lstm"][:, i] - sampled[model][:, i]
                table["differences"][model][name] = interval("difference", float(gap), gaps)
    return table


def judged(goal: Goal, groups: dict[str, Any], better: str) -> dict[str, Any]:
    """The goal in words, the figure that stands against it, and whether it is reached."""
    group = groups[goal.as_of or "test"]
    where = f"{goal.as_of}: " if goal.as_of else ""
    metric = MEASURED[goal.metric]
    sign = "≥" if goal.at_least else "≤"
    if goal.against is None:
        figure = group["models"]["lstm"][goal.metric]["mean"]
        words = f"{where}{metric} {sign} {goal.limit:.3f}"
    else:
        against = better if goal.against == "better" else goal.against
        figure = group["differences"][against][goal.metric][goal.bound]
        what = {"value": "", "low": ", lower bound", "high": ", upper bound"}[goal.bound]
        sign = {"≥": ">", "≤": "<"}[sign] if goal.bound != "value" else sign
        words = f"{where}{metric}, LSTM minus {LABELS[against]}{what} {sign} {goal.limit:g}"
    reached = figure is not None and (figure >= goal.limit if goal.at_least else figure <= goal.limit)
    if goal.bound != "value" and figure == goal.limit:
        reached = False
    return {"goal": words, "figure": figure, "reached": bool(reached)}


def task_lines(task: Task, result: dict[str, Any]) -> list[str]:
    """The task's section in Markdown."""
    counted = result["counts"]
    lines = [f"## {task.title}", ""]
    counts = ", ".join(f"{s} {c['journeys']:,} ({c['conversions']:,} convert)" for s, c in counted.items())
    runs = result["runs"]
    lines += [f"Journeys: {counts}. Runs: {len(runs)} ({', '.join(runs)}).", ""]
    for group, table in result["groups"].items():
        if group != "test":
            lines += [f"### {group}: {table['journeys'][0]:,} journeys, {table['conversions'][0]:,} convert", ""]
        lines += [f"| test | {' | '.join(MEASURED.values())} |", f"|---|{'---|' * len(MEASURED)}"]
        for model, metrics in table["models"].items():
            cells = " | ".join(_mean(metrics[name]) for name in MEASURED)
            lines.append(f"| {LABELS[model]} | {cells} |")
        lines += ["", f"| LSTM minus | {' | '.join(MEASURED[name] for name in COMPARED)} |"]
        lines += [f"|---|{'---|' * len(COMPARED)}"]
        for model, gaps in table["differences"].items():
            label = LABELS[model] + (" (the better on eval)" if model == result["better_peer"] else "")
            lines.append(f"| {label} | {' | '.join(_gap(gaps[name]) for name in COMPARED)} |")
        lines.append("")
    if result["goals"]:
        lines += ["| Goal | reached | figure |", "|---|---|---|"]
        for goal in result["goals"]:
            figure = "none" if goal["figure"] is None else f"{goal['figure']:.4f}"
            lines.append(f"| {goal['goal']} | {'yes' if goal['reached'] else '**no**'} | {figure} |")
        lines.append("")
    return lines


def document(results: dict[str, Any], tasks: list[Task]) -> str:
    """docs/quality.md."""
    made = results["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines = [
        "# How good the predictions are",
        "",
        f"Made on {made['date']} by `{made['command']}` in {made['minutes']:.0f} minutes of work on "
        f"{made['machine']}; {versions}.",
        "",
        "The published tables are those of [datasets](datasets.md). "
        "Every model learns from train, chooses on eval, and reads test once. The LSTM has its defaults on every task. "
        "LightGBM and logistic regression learn from hand-made aggregates of the same journeys (counts, recencies, "
        "sums of the spec's fields; for journeys of a few events each event too); their settings are chosen by log "
        "loss on eval. AUC: area under the ROC curve. AP: average precision. ECE: expected calibration error over 15 "
        "bins of equally many journeys.",
        "",
        "Figures are means over runs ± their standard deviation; a run is a seed, or an official split. Differences "
        "are of these means, with 95 % intervals by a bootstrap of customers, paired over models and runs: a draw is "
        "the mean over runs on the same drawn customers, so the interval says what other customers would change, not "
        "what another seed would.",
        "",
    ]
    if made["quick"]:
        lines += ["**A smoke run (--quick): the figures mean nothing.**", ""]
    for task in tasks:
        lines += task_lines(task, results["tasks"][task.name])
    return "\n".join(lines).rstrip() + "\n"


def _mean(one: dict[str, Any]) -> str:
    return f"{one['mean']:.4f}" + ("" if one["sd"] is None else f" ± {one['sd']:.4f}")


def _gap(one: dict[str, Any]) -> str:
    if one["low"] is None:
        return "none" if one["value"] is None else f"{one['value']:+.4f}"
    return f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
