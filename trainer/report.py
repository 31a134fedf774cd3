"""report.html: what metrics.json says, in words, tables and plots, in one file that loads nothing from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing import page
from preprocessing.spec import AnySpec, EventsSpec
from trainer import plots, timeplots
from trainer.budget import bill_lines
from trainer.card import Section
from trainer.checks import RULES as CHECK_RULES
from trainer.comparison import LABELS, periods
from trainer.decision import profit_curve
from trainer.evolution import RULES as TOLD_RULES
from trainer.evolution import Told
from trainer.joins import customer_codes
from trainer.metrics import DEFINITIONS, Scores
from trainer.outcomes import Outcomes
from trainer.resources import resource_lines, resource_plot
from trainer.tables import (
    NAMES,
    SLICE_HEAD,
    between,
    check_rows,
    days,
    decision_tables,
    leaves,
    metric_tables,
    number,
    percent,
    slice_rows,
    split_counts,
    task_lines,
    tiles,
    verdicts,
)

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Evidence:
    """What the plots and tables need beyond metrics.json.

    models: by name, the scores on test at the primary horizon; outcomes: by split; history: a dict an epoch; settings:
    shown as they are; summary: the transform's summary.json, {} where there is none; selecting: the LSTM's scores on
    eval, primary horizon; told: single journeys; card: the model card's sections; bill: what trainer.budget.bill tells,
    None where an hour has no price; resources: what trainer.watch saw.
    """

    models: dict[str, Scores]
    outcomes: dict[str, Outcomes]
    history: list[dict[str, Any]]
    settings: dict[str, Any]
    summary: dict[str, Any]
    selecting: Scores
    told: list[Told]
    card: list[Section]
    bill: dict[str, Any] | None = None
    resources: dict[str, Any] | None = None


def render(metrics: dict[str, Any], spec: AnySpec, evidence: Evidence) -> str:
    """The page. The same input gives the same bytes: it holds no date of its making."""
    horizon = str(metrics["primary_horizon"])
    test = metrics["test"][horizon]
    return page.render(
        "report.html.j2",
        TEMPLATES,
        title=f"Evaluation: conversion within {days(horizon)}" if isinstance(spec, EventsSpec) else "Evaluation",
        version=metrics["model_version"],
        sentences=sentences(metrics, spec),
        tiles=tiles(test),
        verdicts=verdicts(metrics["differences"][horizon]),
        tables=metric_tables(metrics, horizon),
        figures=_figures(metrics, spec, evidence),
        counts=split_counts(evidence.summary, horizon),
        balance=[
            (title, leaves(evidence.summary[key]))
            for key, title in (("events", "Events"), ("journeys", "Journeys"))
            if evidence.summary.get(key)
        ],
        task=task_lines(spec),
        bill=bill_lines(evidence.bill, test["lstm"]["pr_auc"]["value"] if test["journeys"] else None),
        resources=resource_lines(evidence.resources),
        watched=resource_plot(evidence.resources),
        settings=[(name, str(value)) for name, value in evidence.settings.items()] + _calibration(metrics),
        checks=check_rows(metrics),
        check_rules=[*CHECK_RULES.items()],
        features=[
            {"feature": one["feature"], "roc_auc": f"{one['roc_auc']:.3f}", "missing": f"{one['missing_roc_auc']:.3f}"}
            for one in metrics["features"]
        ],
        slice_head=SLICE_HEAD,
        slices=slice_rows(metrics["slices"]),
        slice_baseline=_slice_baseline(metrics["slices"]),
        decision=decision_tables(metrics["decision"]),
        decision_said=_decision_said(metrics["decision"]),
        profit=_profit(metrics["decision"], evidence),
        told=_told(spec, evidence.told),
        card=evidence.card,
        notes=metrics["notes"],
        draws=metrics["intervals"]["draws"],
        definitions=[
            (NAMES[name], text) for name, text in DEFINITIONS.items() if name != "gap_to_truth" or "oracle" in test
        ],
    )


def sentences(metrics: dict[str, Any], spec: AnySpec) -> list[str]:
    """The headline in plain words: what is predicted, how often it happens, lift, the model beside its baselines."""
    horizon = str(metrics["primary_horizon"])
    test = metrics["test"][horizon]
    if isinstance(spec, EventsSpec):
        gap = f", counted from {days(spec.gap_days)} later on" if spec.gap_days else ""
        said = [
            f"From a customer's journey up to an as_of, the model gives the probability of a conversion "
            f"({spec.conversion.where}) within {days(horizon)}{gap}."
        ]
    else:
        said = ["From the events of a journey, the model gives the probability that its label is true."]
    if not test["journeys"]:
        return [*said, "No test journey's outcome is known at this horizon: there is nothing to measure."]
    said.append(
        f"Of {test['journeys']:,} test journeys of {test['customers']:,} customers, {test['conversions']:,} "
        f"({percent(test['base_rate']['value'])}) converted."
    )
    if test["reason"]:
        return [*said, f"Ranking cannot be measured: {test['reason']}."]
    lift = test["lstm"]["lift_10"]
    said.append(
        f"Among the tenth with the highest predictions {percent(lift['value'] * test['base_rate']['value'])} "
        f"converted: {lift['value']:.2f} times as many as on average{between(lift, 2)}."
    )
    for model in ("recency_frequency", "gradient_boosting"):
        if model not in metrics["differences"][horizon]:
            continue
        gap = metrics["differences"][horizon][model]["pr_auc"]
        if gap["verdict"]:
            beside = {"better": "than", "worse": "than", "not distinguishable": "from"}[gap["verdict"]]
            said.append(
                f"By PR-AUC it is {gap['verdict']} {beside} the {_inner(LABELS[model])} "
                f"({number(gap['value'], 4, True)}{between(gap, 4, sign=True)})."
            )
    return said + over_time(metrics["by_as_of"])


def over_time(by_as_of: list[dict[str, Any]]) -> list[str]:
    """For each fitted baseline: at how many cut-offs the LSTM is better in log loss, worse, or neither; those of too
    few customers have no part in it."""
    by_as_of = [one for one in by_as_of if not one["suppressed"]]
    said = []
    for model in ("gradient_boosting", "recency_frequency"):
        verdicts = [one["differences"].get(model, {}).get("log_loss", {}).get("verdict") for one in by_as_of]
        if len(verdicts) > 1 and all(verdicts):
            counts = {kind: verdicts.count(kind) for kind in ("better", "worse", "not distinguishable")}
            told = ", ".join(f"{kind} at {count}" for kind, count in counts.items() if count)
            said.append(f"Over {len(verdicts)} as_ofs, log loss against the {_inner(LABELS[model])}: {told}.")
    return said


def _calibration(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The calibration map as lines of settings."""
    return [
        (f"Calibration, {name}" if not name.isdigit() else f"Calibration, {days(name)}",
         ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
         if isinstance(value, dict) else str(value))
        for name, value in ((str(name), value) for name, value in (metrics["calibration"] or {}).items())
    ]  # fmt: skip


def _slice_baseline(slices: list[dict[str, Any]]) -> str:
    return next((_inner(LABELS[one["difference"]["model"]]) for one in slices if one.get("difference")), "")


def _decision_said(decision: dict[str, Any] | None) -> str:
    if decision is None or decision["contact_cost"] is None:
        return (
            "What a conversion is worth in contacts is yours to say (--contact_cost and --conversion_value); here for "
            "five ratios, profit counted in contact costs."
        )
    return f"A contact costs {decision['contact_cost']:g}, a conversion is worth {decision['conversion_value']:g}."


def _profit(decision: dict[str, Any] | None, evidence: Evidence) -> str:
    """The profit curve where prices were given and both splits have journeys."""
    if decision is None or decision["contact_cost"] is None or not len(evidence.selecting):
        return ""
    prices = decision["contact_cost"], decision["conversion_value"]
    curves = {
        "eval": profit_curve(evidence.selecting, *prices),
        "test": profit_curve(evidence.models["lstm"], *prices),
    }
    rules = decision["choices"][0]["rules"]
    marks = [
        (label, rules[name]["contacted"]["value"], rules[name]["profit_per_1000"]["value"])
        for name, label in (("break_even", "break-even, on test"), ("best_on_eval", "best on eval, on test"))
    ]
    return plots.profit_curve(curves, marks, "currency given")


def _told(spec: AnySpec, told: list[Told]) -> list[dict[str, str]]:
    """Each journey: the rule that chose it, who and when, and its two plots."""
    dated = isinstance(spec, EventsSpec)
    counts: dict[str, int] = {}
    for one in told:
        for event in one.event:
            counts[event] = counts.get(event, 0) + 1
    kinds = sorted((name for name in counts if name), key=lambda name: (-counts[name], name))[: len(timeplots.MARKERS)]
    field = spec.sequence.categorical[0] if spec.sequence.categorical else ""
    shown = []
    for one in told:
        fate = "no conversion seen" if np.isinf(one.days) else f"converted on day {one.days:.1f}"
        if not dated:
            fate = "label false" if np.isinf(one.days) else "label true"
        when = f", as_of {np.datetime64(one.as_of, 'us').astype('datetime64[D]')}" if dated else ""
        shown.append(
            {
                "title": TOLD_RULES[one.rule],
                "who": f"Customer {one.customer_key[:8]}{when}; {len(one.event)} events; {fate}",
                "running": timeplots.running(one, spec.horizons_days, kinds, dated, field),
                "curve": timeplots.curve(one, spec.horizons_days, spec.gap_days) if dated else "",
            }
        )
    return shown


def _inner(label: str) -> str:
    """A label inside a sentence: without its capital."""
    return label[0].lower() + label[1:]


def _figures(metrics: dict[str, Any], spec: AnySpec, evidence: Evidence) -> list[dict[str, str]]:
    """Title, SVG (or, where there is nothing to draw, why) and caption of each plot."""
    test = metrics["test"][str(metrics["primary_horizon"])]
    scored, reason = evidence.models, test["reason"]
    rate = test["base_rate"]["value"]
    lengths = {split: found.length for split, found in evidence.outcomes.items()}
    named, rates = _label_rates(evidence.outcomes, spec)
    undated = None if isinstance(spec, EventsSpec) else "journeys came ready-made, without dates"
    few = f"no as_of has the known outcomes of {spec.privacy.min_customers} customers"
    rated = undated is None and any(np.isfinite(rate).any() for rate in rates.values())
    figures = (
        ("Precision and recall", "" if reason else plots.pr_curve(scored, rate), reason,
         "How many of those contacted convert, the further down the ranking one goes."),
        ("ROC curve", "" if reason else plots.roc_curve(scored), reason,
         "Conversions found against others taken along; the diagonal is chance."),
        ("Cumulative gain", "" if reason else plots.gain_curve(scored), reason,
         "Share of all conversions among the journeys with the highest scores; the diagonal is chance."),
        ("Reliability", "" if reason else plots.reliability(metrics["reliability"], rate), reason,
         "On the diagonal a probability means what it says. Bars: 95 % intervals by customer."),
        ("Score histogram", plots.score_histogram(scored["lstm"]) if test["journeys"] else "", reason,
         "Which probabilities the LSTM gives, to journeys that converted and to others."),
        ("Training", plots.training_curves(evidence.history), "the run left no history of its epochs",
         "Loss on train and eval, and ranking on eval, by epoch."),
        ("Label rate by as_of", plots.label_rates(named, rates) if rated else "", undated or few,
         "Share converted within the primary horizon, where it is known of "
         f"{spec.privacy.min_customers} customers or more. A drift between the parts makes test harder."),
        ("Differences over time", timeplots.differences(metrics["by_as_of"]) if not reason else "",
         reason or "there is no cut-off with a fitted baseline beside the LSTM",
         "LSTM minus each baseline at each test as_of, on the same draws. Bars: 95 % intervals by customer."),
        ("Journey lengths", plots.journey_lengths(lengths) if any(map(len, lengths.values()))
         else "", "there are no journeys", "Events that the model sees of each journey."),
    )  # fmt: skip
    return [
        {"title": title, "svg": svg, "missing": f"Not drawn: {why}." if not svg else "", "caption": caption}
        for title, svg, why, caption in figures
    ]


def _label_rates(outcomes: dict[str, Outcomes], spec: AnySpec) -> tuple[list[str], dict[str, Any]]:
    """Periods, and by split the share converted in each, train corrected for its downsampling.

    NaN where fewer than privacy.min_customers customers are behind it: a period may be an instant of a single event.
    """
    horizon, gap = spec.primary_horizon, spec.gap_days
    labels, code = periods(np.concatenate([found.as_of for found in outcomes.values()]))
    codes = dict(
        zip(outcomes, np.split(code, np.cumsum([len(found) for found in outcomes.values()])[:-1]), strict=True)
    )
    rates = {}
    for split, found in outcomes.items():
        kept = spec.sampling.negative_rate if split == "train" else 1.0
        weight = found.natural_weight(spec.horizons_days, gap, kept) * found.known(horizon, gap)
        total = np.bincount(codes[split], weights=weight, minlength=len(labels))
        hits = np.bincount(codes[split], weights=weight * found.converted(horizon), minlength=len(labels))
        pairs = np.unique(np.stack([codes[split], customer_codes(found.customer_key)])[:, weight > 0], axis=1)
        told = np.bincount(pairs[0], minlength=len(labels)) >= spec.privacy.min_customers
        rates[split] = np.divide(hits, total, out=np.full(len(labels), np.nan), where=told)
    return labels, rates
