"""Evaluation of a trained model on the test journeys: metrics.json, report.html, predictions.parquet.

Needs no TensorFlow: the model comes as its probabilities, the journeys and their labels from the run directory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing.rundir import RunDir
from preprocessing.spec import AnySpec, EventsSpec
from trainer import card
from trainer.baselines import baseline_predictions
from trainer.bootstrap import LEVEL, Slice, estimate
from trainer.checks import drift, leakage
from trainer.comparison import LABELS, by_as_of, differences, document, reliability, scored_slice
from trainer.decision import decide, require_prices
from trainer.evolution import Evolve, tell
from trainer.evolution import document as evolution_document
from trainer.joins import aligned, customer_codes, true_probabilities
from trainer.metrics import METRICS, Floats
from trainer.outcomes import Outcomes, read_outcomes
from trainer.report import Evidence, render
from trainer.slices import by_slice, partitions
from trainer.threads import one_thread

logger = logging.getLogger(__name__)


@one_thread()
def evaluate(
    run_dir: RunDir,
    spec: AnySpec,
    predictions: dict[str, pa.Table],
    history: list[dict[str, Any]],
    output: Path,
    *,
    truth: Path | None = None,
    seed: int = 0,
    bootstrap: int = 200,
    settings: dict[str, Any] | None = None,
    model_version: str = "",
    baselines: bool = True,
    contact_cost: float | None = None,
    conversion_value: float | None = None,
    evolution: Evolve | None = None,
    calibrated: dict[str, Any] | None = None,
    remarks: Sequence[str] = (),
    bill: Callable[[], dict[str, Any]] | None = None,
    resources: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measures the model beside its baselines and writes metrics.json, report.html, model_card.md, predictions.parquet.

    predictions: for "eval" and "test" a table with journey_id, customer_key, as_of, split, held_out and p_<h>d, the
    probability of converting within each of the spec's horizons. history: a dict an epoch (train_loss, eval_loss,
    eval_pr_auc …). output: an existing directory. truth: Parquet with customer_key, as_of and p_<h>d, the true
    probabilities of simulated customers. bootstrap: draws of customers for the 95 % intervals; 0: no intervals.
    baselines: False leaves out the two fitted ones (a smoke run). settings, model_version: shown as they are.
    contact_cost, conversion_value: in one currency, for the threshold; without them it is told for ratios of the two.
    evolution: raw journeys as padded arrays to the SavedModel's `evolution` answer, for single journeys' plots and
    evolution.json; without it there are neither. calibrated: the calibration map by horizon, shown as it is. remarks:
    on the training, put before the notes. bill: asked for what trainer.budget.bill tells when the page is drawn,
    resources: what trainer.watch saw, both for the report alone: metrics.json is the same in every run.

    Every journey counts once, whatever its training weight. Returns what metrics.json holds; the same input gives the
    same bytes. Raises UserError where predictions, truth and journeys do not belong together, or a price is missing.
    """
    require_prices(contact_cost, conversion_value)
    notes = [*remarks, *_notes_on_spec(spec)]
    outcomes = {split: read_outcomes(run_dir.journeys, split) for split in ("train", "eval", "test")}
    evaluation, eval_lstm = aligned("eval", predictions["eval"], outcomes["eval"], spec.horizons_days, notes)
    test, test_lstm = aligned("test", predictions["test"], outcomes["test"], spec.horizons_days, notes)
    models = {"lstm": test_lstm}
    if baselines:
        fitted, remarks = baseline_predictions(run_dir.journeys, spec, outcomes["train"], outcomes["eval"], test)
        models |= fitted
        notes += remarks
    else:
        notes.append(
            "The fitted baselines were left out of this run: only the constant predictor stands beside the LSTM."
        )
    if truth is not None:
        models["oracle"] = true_probabilities(truth, test, spec.horizons_days, notes)

    logger.info("evaluation: %s test journeys, %d draws of customers", f"{len(test):,}", bootstrap)
    train = _train_rates(outcomes["train"], spec)
    groups = {"test": np.ones(len(test), dtype=bool)}
    if test.held_out.any():
        groups |= {"seen": ~test.held_out, "held_out": test.held_out}
    options: dict[str, Any] = {"spec": spec, "train": train, "draws": bootstrap, "seed": seed, "notes": notes}
    tables, slices, compared = _measure(test, models, groups, **options)
    everything = {"eval": np.ones(len(evaluation), dtype=bool)}
    eval_tables, eval_slices, _ = _measure(evaluation, {"lstm": eval_lstm}, everything, **options)
    horizon = spec.primary_horizon
    primary, selecting = slices["test", horizon], eval_slices["eval", horizon].models["lstm"]
    customer = customer_codes(test.customer_key)
    draws: dict[str, Any] = {"customer": customer, "draws": bootstrap, "seed": seed}
    floored = draws | {"smallest": spec.privacy.min_customers}
    logger.info("evaluation: slices, thresholds, leakage and drift")
    parted = partitions(run_dir.journeys, spec, test, "test", notes)
    leaks, features = leakage(run_dir.journeys, spec, evaluation, float(selecting.evaluate()[METRICS.index("roc_auc")]))
    scored = {"train": outcomes["train"], "eval": evaluation, "test": test}
    moved = drift(spec, scored, {"eval": eval_lstm[horizon], "test": test_lstm[horizon]}, bootstrap, seed)
    metrics: dict[str, Any] = {
        "primary_horizon": spec.primary_horizon,
        "horizons_days": list(spec.horizons_days),
        "model_version": model_version,
        "intervals": {"level": LEVEL, "draws": bootstrap, "drawn": "customer_key", "seed": seed},
        "train": train,
        "test": tables["test"],
        "differences": compared,
        "seen": tables.get("seen"),
        "held_out": tables.get("held_out"),
        "by_as_of": by_as_of(primary, test.as_of[primary.rows], **floored) if isinstance(spec, EventsSpec) else [],
        "slices": by_slice(primary, parted, _strongest(primary), **floored),
        "reliability": reliability(primary, **draws),
        "calibration": calibrated,
        "decision": decide(selecting, primary, **draws, contact_cost=contact_cost, conversion_value=conversion_value)
        if len(primary.rows)
        else None,
        "checks": [*leaks, *moved],
        "features": features,
        "eval": eval_tables["eval"],
        "notes": notes,
    }
    told = [] if evolution is None else tell(run_dir.journeys, spec, test, test_lstm[horizon], evolution)
    if evolution is not None:
        _write_json(output / "evolution.json", evolution_document(told, spec.horizons_days))
    about = card.sections(metrics, spec, outcomes, settings or {})
    curves = primary.models, outcomes, history, settings or {}, _summary(run_dir), selecting
    evidence = Evidence(*curves, told, about, bill and bill(), resources)
    pq.write_table(_labelled(predictions["test"], test, model_version), output / "predictions.parquet")
    _write_json(output / "metrics.json", metrics)
    (output / "report.html").write_text(render(metrics, spec, evidence), encoding="utf-8")
    (output / "model_card.md").write_text(card.markdown(metrics, about), encoding="utf-8")
    return metrics


def headline(metrics: dict[str, Any]) -> str:
    """A small aligned table of the models at the primary horizon, with 95 % intervals, for a terminal."""
    horizon = str(metrics["primary_horizon"])
    test = metrics["test"][horizon]
    columns = {
        "roc_auc": "ROC-AUC",
        "pr_auc": "PR-AUC",
        "log_loss": "log loss",
        "calibration_error": "ECE",
        "lift_10": "lift at 10 %",
    }
    rows = [["", *columns.values()]]
    rows += [
        [label, *(_cell(test[model][name]) for name in columns)] for model, label in LABELS.items() if model in test
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rate = "unknown" if test["base_rate"]["value"] is None else f"{test['base_rate']['value']:.2%}"
    lines = [
        f"test, {horizon} days: {test['journeys']:,} journeys of {test['customers']:,} customers, "
        f"{test['conversions']:,} conversions, base rate {rate}"
    ]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines + ([f"n/a: {test['reason']}"] if test["reason"] else []))


def _cell(one: dict[str, float | None]) -> str:
    if one["value"] is None:
        return "n/a"
    bounds = "" if one["low"] is None else f" [{one['low']:.4f}, {one['high']:.4f}]"
    return f"{one['value']:.4f}{bounds}"


def _measure(
    outcomes: Outcomes,
    models: dict[str, dict[int, Floats]],
    groups: dict[str, NDArray[np.bool_]],
    *,
    spec: AnySpec,
    train: dict[str, dict[str, Any]],
    draws: int,
    seed: int,
    notes: list[str],
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, int], Slice], dict[str, Any]]:
    """Tables by group and horizon, the slices behind them, and by horizon the differences in the first group."""
    customer = customer_codes(outcomes.customer_key)
    slices, counted = {}, {}
    for group, member in groups.items():
        for horizon in spec.horizons_days:
            rows = np.flatnonzero(member & outcomes.known(horizon, spec.gap_days))
            counted[group, horizon] = int(member.sum()) - len(rows)
            slices[group, horizon] = scored_slice(
                rows,
                outcomes.converted(horizon),
                {model: found[horizon] for model, found in models.items() if horizon in found},
                train[str(horizon)]["base_rate"],
            )
    found = estimate(slices, customer, draws, seed, f"{next(iter(groups))}: draws of customers")
    tables: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for (group, horizon), part in slices.items():
        table = document(part, found[group, horizon], customer, counted[group, horizon])
        tables[group][str(horizon)] = table
        if table["reason"]:
            notes.append(
                f"{group.replace('_', ' ')}, {horizon} days: {table['reason']}; what that leaves open is null."
            )
        if table["not_observed"]:
            notes.append(
                f"{group.replace('_', ' ')}, {horizon} days: {table['not_observed']:,} journeys are not counted: the "
                "data ends before their horizon does."
            )
    first = next(iter(groups))
    return tables, slices, {str(horizon): differences(found[first, horizon]) for horizon in spec.horizons_days}


def _strongest(part: Slice) -> str | None:
    """The fitted baseline with the least log loss on all of test, against which slices are held; else the constant."""
    fitted = [model for model in ("recency_frequency", "gradient_boosting") if model in part.models]
    place = METRICS.index("log_loss")
    if fitted and len(part.rows):
        return min(fitted, key=lambda model: float(part.models[model].evaluate()[place]))
    return "constant" if "constant" in part.models else None


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _labelled(predictions: pa.Table, test: Outcomes, model_version: str) -> pa.Table:
    """The predictions with the model's version and what became of each journey, for later joins."""
    columns = {
        "model_version": pa.array([model_version] * len(test), pa.string()),
        "days_to_conversion": pa.array(test.days, mask=np.isinf(test.days)),
        "observed_days": pa.array(test.observed),
    }
    others = predictions.drop_columns([name for name in columns if name in predictions.column_names])
    for name, column in columns.items():
        others = others.append_column(name, column)
    return others


def _notes_on_spec(spec: AnySpec) -> list[str]:
    notes = []
    if not isinstance(spec, EventsSpec):
        notes.append(
            "Journeys came ready-made, without dates: the one horizon is the label, and there are no cut-offs."
        )
    elif spec.embargo_days < spec.gap_days + spec.horizons_days[-1]:
        notes.append(
            f"The embargo between the parts is {spec.embargo_days} days, shorter than gap + longest horizon "
            f"({spec.gap_days + spec.horizons_days[-1]} days): labels of one part look into the next."
        )
    if spec.sampling.negative_rate < 1:
        notes.append(
            f"Train keeps {spec.sampling.negative_rate:g} of its journeys known not to convert; train's base rate, the "
            "constant predictor and the baselines are corrected for it. Eval and test are whole."
        )
    return notes


def _train_rates(train: Outcomes, spec: AnySpec) -> dict[str, dict[str, Any]]:
    """By horizon: journeys whose outcome is known, conversions, and the rate in the population (null: no journey)."""
    weight = train.natural_weight(spec.horizons_days, spec.gap_days, spec.sampling.negative_rate)
    rates = {}
    for horizon in spec.horizons_days:
        known = train.known(horizon, spec.gap_days)
        converted = known & train.converted(horizon)
        rates[str(horizon)] = {
            "journeys": int(known.sum()),
            "conversions": int(converted.sum()),
            "base_rate": float(f"{weight @ converted / (weight @ known):.6g}") if known.any() else None,
        }
    return rates


def _summary(run_dir: RunDir) -> dict[str, Any]:
    """What the transform counted; empty where the run has no summary."""
    path = run_dir.transform / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
