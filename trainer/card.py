"""The model card: what the model is for, what it was measured on and where it ends, filled from the run.

After Mitchell et al. 2019. One content in two forms: model_card.md, which stands alone, and a section of the report,
which has the tables already.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from preprocessing.spec import AnySpec, EventsSpec
from trainer import __version__
from trainer.comparison import LABELS
from trainer.outcomes import Outcomes
from trainer.tables import SLICE_HEAD, check_rows, days, decision_tables, metric_tables, percent, slice_rows

PACKAGES = ("tensorflow", "keras", "tensorflow-transform", "apache-beam", "scikit-learn", "numpy", "pyarrow")


@dataclass(frozen=True)
class Section:
    """A heading, its lines, and of which of the report's tables it speaks: (id, head, rows of text)."""

    title: str
    lines: tuple[str, ...]
    table: tuple[str, list[str], list[list[str]]] | None = None


def sections(
    metrics: dict[str, Any], spec: AnySpec, outcomes: dict[str, Outcomes], settings: dict[str, Any]
) -> list[Section]:
    """The card's sections, in order. metrics: what metrics.json holds; settings: shown as they are."""
    horizon = str(metrics["primary_horizon"])
    test = metrics["test"][horizon]
    (models, *_) = metric_tables(metrics, horizon)
    found = [
        Section("Intended use", _use(spec)),
        Section("Not to be used for", _not_for(spec)),
        Section("Data", _data(spec, outcomes)),
        Section(
            "Measured on test",
            (
                f"{test['journeys']:,} journeys of {test['customers']:,} customers, {test['conversions']:,} "
                f"conversions ({percent(test['base_rate']['value'])}) within {days(horizon)}. In brackets: 95 % "
                f"intervals from {metrics['intervals']['draws']} draws of customers."
                if metrics["intervals"]["draws"]
                else f"{test['journeys']:,} journeys, without intervals: the bootstrap was left out.",
            ),
            ("models", models["head"], [_texts(row) for row in models["rows"]]),
        ),
        Section("Calibration", _calibration(metrics, test)),
    ]
    if metrics["slices"]:
        rows = [[one["title"], *(_text(cell) for cell in one["cells"])] for one in slice_rows(metrics["slices"])]
        found.append(
            Section(
                "By slice",
                ("Slices overlap. Where few convert, read the interval.",),
                ("slices", ["", "Journeys [customers]", *SLICE_HEAD[2:]], rows),
            )
        )
    tables = decision_tables(metrics["decision"])
    for table in tables[:1]:
        lines = ("Thresholds were chosen on eval. The value of a contact is counted only where the customer converts.",)
        found.append(Section("Threshold", lines, ("decision", table["head"], [_texts(row) for row in table["rows"]])))
    found += [
        Section(
            "Checks",
            ("Leakage is looked for on eval; drift between train, eval and test.",),
            (
                "checks",
                ["Check", "Status", "Found"],
                [[r["name"], r["status"], r["what"]] for r in check_rows(metrics)],
            ),
        ),
        Section("Limits", (*_limits(metrics, spec), *metrics["notes"])),
        Section("Confidentiality", _confidentiality(spec)),
        Section(
            "Settings and versions",
            tuple(f"{name}: {value}" for name, value in {**settings, **versions()}.items()),
        ),
    ]
    return found


def markdown(metrics: dict[str, Any], found: list[Section]) -> str:
    """model_card.md. The same run gives the same bytes."""
    lines = [f"# Model card: conversion within {days(metrics['primary_horizon'])}", ""]
    if metrics["model_version"]:
        lines += [f"Model `{metrics['model_version']}`", ""]
    for section in found:
        lines += [f"## {section.title}", "", *(f"- {_escaped(line)}" for line in section.lines), ""]
        if section.table:
            _, head, rows = section.table
            lines += [_row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def versions() -> dict[str, str]:
    """Of Python, this package and what it builds on; a package that is not installed is left out."""
    found = {"parcours": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # evaluation needs neither TensorFlow nor Beam
    return found


def _use(spec: AnySpec) -> tuple[str, ...]:
    if not isinstance(spec, EventsSpec):
        return (
            "An LSTM gives, from the events of a journey so far, the probability that its label is true.",
            "For ranking journeys, and for decisions that weigh a probability against a cost.",
        )
    gap = f" after a gap of {days(spec.gap_days)}" if spec.gap_days else ""
    within = ", ".join(str(h) for h in spec.horizons_days)
    return (
        f"An LSTM gives, from a customer's events before an as_of, the probability of a conversion "
        f"({spec.conversion.where}) within {within} days{gap}.",
        "For ranking customers for contact, and for decisions that weigh a probability against a cost, over customers "
        "of the kind and the time that it was measured on.",
    )


def _not_for(spec: AnySpec) -> tuple[str, ...]:
    return (
        "Saying what a campaign causes: a probability of converting is not the change that a contact makes. Those most "
        "likely to convert may be those who would anyway.",
        "Decisions with legal or similarly grave effects on a person: credit, insurance, employment, price by person.",
        "Customers, channels or markets that the data does not hold, and times after the data drifted (see Checks).",
        "Finding out who somebody is, or a trait that the fields do not state.",
    )


def _data(spec: AnySpec, outcomes: dict[str, Outcomes]) -> tuple[str, ...]:
    horizon, gap = spec.primary_horizon, spec.gap_days
    lines = []
    for split, found in outcomes.items():
        known = found.known(horizon, gap)
        when = ""
        if isinstance(spec, EventsSpec) and len(found):
            first, last = (
                str(np.datetime64(int(t), "us").astype("datetime64[D]")) for t in (found.as_of.min(), found.as_of.max())
            )
            when = f", as_of {first} to {last}"
        lines.append(
            f"{split}: {len(found):,} journeys{when}; {int((known & found.converted(horizon)).sum()):,} of "
            f"{int(known.sum()):,} whose outcome is known converted within {days(horizon)}."
        )
    fields = (*spec.sequence.categorical, *spec.sequence_numeric)
    customer = (*spec.customer_categorical, *spec.customer_numeric)
    lines.append(f"Of each event: {', '.join(fields)}. Of the customer: {', '.join(customer) or 'nothing'}.")
    if isinstance(spec, EventsSpec):
        lines.append(
            f"A journey: the last {spec.sequence.max_events} events in the {spec.snapshots.lookback_days} days before "
            f"as_of. Embargo between the splits: {days(spec.embargo_days)}; "
            f"{percent(spec.split.holdout_customers)} of the customers appear in test only."
        )
    if spec.sampling.negative_rate < 1:
        lines.append(f"Of train's journeys that never convert {percent(spec.sampling.negative_rate)} were kept.")
    return tuple(lines)


def _calibration(metrics: dict[str, Any], test: dict[str, Any]) -> tuple[str, ...]:
    lstm = test["lstm"]
    if lstm["mean_prediction"]["value"] is None:
        return ("Not measured: no test journey's outcome is known.",)
    lines = [
        f"Mean prediction {percent(lstm['mean_prediction']['value'])}, share converted "
        f"{percent(test['base_rate']['value'])}; calibration error (ECE) "
        f"{lstm['calibration_error']['value']:.4f} over bins of equally many journeys.",
    ]
    bins = metrics["reliability"]
    if bins:
        low, high = bins[0], bins[-1]
        lines.append(
            f"Lowest bin: {percent(low['predicted'])} predicted, {percent(low['observed']['value'])} converted; "
            f"highest: {percent(high['predicted'])} predicted, {percent(high['observed']['value'])} converted."
        )
    for name, value in (metrics["calibration"] or {}).items():
        values = ", ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        lines.append(f"The hazard up to {name} days is calibrated on eval, in log odds: {values}.")
    return tuple(lines)


def _limits(metrics: dict[str, Any], spec: AnySpec) -> tuple[str, ...]:
    horizon = str(metrics["primary_horizon"])
    lines = ["The figures hold for the journeys they were measured on; monitor drift, and train anew where it shows."]
    for model, gaps in metrics["differences"][horizon].items():
        verdict = gaps["log_loss"]["verdict"]
        if model in ("recency_frequency", "gradient_boosting") and verdict and verdict != "better":
            lines.append(f"By log loss it is {verdict} than the {LABELS[model]}." if verdict == "worse" else
                         f"By log loss it cannot be told from the {LABELS[model]}.")  # fmt: skip
    if isinstance(spec, EventsSpec):
        lines.append(
            "Journeys of one customer at several as_ofs overlap; intervals draw customers whole, which allows for it."
        )
    return tuple(lines)


def _confidentiality(spec: AnySpec) -> tuple[str, ...]:
    return (
        "Raw customer ids are in neither model nor evaluation: customers go by a keyed hash, of "
        "which the report shows eight digits.",
        f"A categorical value that fewer than {spec.privacy.min_customers} train customers hold is not learnt; slices "
        "and as_ofs of fewer customers are not shown.",
        "The model's weights and the single journeys shown are derived from customers' data: keep them as confidential "
        "as the events.",
    )


def _text(cell: dict[str, str]) -> str:
    return f"{cell['value']} [{cell['interval']}]" if cell["interval"] else cell["value"]


def _texts(row: list[Any]) -> list[str]:
    return [row[0], *map(_text, row[1:])]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Names and values of the data are text, not markup."""
    for sign in "\\`*<":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
