"""What a sceptic looks for first: a feature that knows the answer, and data that changed from train to test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.single_feature import FEWEST_CONVERSIONS, STRONG_AUC, SURE_AUC, binned, rate_auc
from preprocessing.spec import DAY_US, AnySpec, EventsSpec
from trainer.aggregates import fit_aggregates
from trainer.bootstrap import drawn_sums, interval
from trainer.joins import customer_codes
from trainer.metrics import Floats
from trainer.outcomes import Outcomes, matched

MOST_ROWS = 50_000
SHARE_OF_LSTM = 0.95
DRIFT = 0.25
OFF = 0.1
SCORE_BINS = 10
SHOWN = 10

RULES = {
    "single feature": "On eval, a single feature alone, its conversion rate learnt by bin on half of the customers and "
    f"ranked on the other half, reaches ROC-AUC above {SURE_AUC}; or above {STRONG_AUC} and at least "
    f"{100 * SHARE_OF_LSTM:.0f} % of what the LSTM gains on chance.",
    "missing values": "The same, for nothing but whether the feature is missing.",
    "label rate over time": "The share converted, as a straight line over all as_of, changes by more than "
    f"{100 * DRIFT:.0f} % of its mean, and the 95 % interval by customer excludes 0.",
    "label rate": f"It differs from train's by more than {100 * DRIFT:.0f} %, and the interval excludes 0.",
    "mean probability": f"On test it differs from the share that converted by more than {100 * OFF:.0f} %, and the "
    "interval excludes 0: probabilities are calibrated on eval, and the level has moved since.",
    "scores": f"Population stability index over {SCORE_BINS} bins of equally many eval scores above {DRIFT}, beyond "
    "what chance gives to so few customers.",
}


def leakage(
    journeys: Path, spec: AnySpec, evaluation: Outcomes, lstm_auc: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The checks of single features on eval at the primary horizon, and the SHOWN features that rank best.

    evaluation: the journeys that were scored; lstm_auc: the LSTM's ROC-AUC on them. Features are the aggregates that
    the baselines read, and by sequence field the share of its values that is missing. Of more than MOST_ROWS journeys
    those with the smallest journey_id are taken. Each feature: {"feature", "roc_auc", "missing_roc_auc"}.
    """
    horizon, gap = spec.primary_horizon, spec.gap_days
    rows = np.flatnonzero(evaluation.known(horizon, gap))
    if len(rows) > MOST_ROWS:
        ids = evaluation.journey_id.take(pa.array(rows))
        rows = np.sort(rows[pc.array_sort_indices(ids).to_numpy()[:MOST_ROWS]])
    chosen = evaluation.take(rows)
    converted = chosen.converted(horizon)
    conversions = int(converted.sum())
    if min(conversions, len(converted) - conversions) < FEWEST_CONVERSIONS:
        why = f"not measured: {conversions:,} of {len(converted):,} eval journeys converted, too few of one kind"
        return [_check(name, "not measured", why, None, SURE_AUC) for name in ("single feature", "missing values")], []
    half = customer_codes(chosen.customer_key) % 2
    names, matrix = _features(journeys, spec, chosen)
    found: list[dict[str, Any]] = []
    for name, column in zip(names, matrix.T, strict=True):
        missing = np.isnan(column)
        found.append(
            {
                "feature": name,
                "roc_auc": rate_auc(binned(column), converted, half),
                "missing_roc_auc": rate_auc(missing.astype(np.int64), converted, half),
            }
        )
    found.sort(key=lambda one: (-one["roc_auc"], one["feature"]))
    bar = _bar(lstm_auc)
    checks = []
    for name, key, ranked, alone in (
        ("single feature", "roc_auc", "{}", "{} alone"),
        ("missing values", "missing_roc_auc", "whether {} is missing", "whether {} is missing, alone,"),
    ):
        best = max(found, key=lambda one: one[key])
        flagged = [one for one in found if one[key] > bar]
        what = f"{alone.format(best['feature'])} reaches ROC-AUC {best[key]:.3f} on eval, the LSTM {lstm_auc:.3f}"
        if flagged:
            listed = ", ".join(f"{ranked.format(one['feature'])} ({one[key]:.3f})" for one in flagged[:5])
            more = f" and {len(flagged) - 5} more" if len(flagged) > 5 else ""
            what = (
                f"{listed}{more}: known only after the conversion? The LSTM reaches {lstm_auc:.3f}; look at where the "
                "column comes from and when it is filled"
            )
        checks.append(_check(name, "warning" if flagged else "ok", what, best[key], bar))
    return checks, [{**one, "roc_auc": _six(one["roc_auc"]), "missing_roc_auc": _six(one["missing_roc_auc"])}
                    for one in found[:SHOWN]]  # fmt: skip


def drift(
    spec: AnySpec, outcomes: dict[str, Outcomes], scores: dict[str, Floats], draws: int, seed: int
) -> list[dict[str, Any]]:
    """Whether the label rate moves over the as_ofs and between the splits, the mean probability off what happened in
    test, and the LSTM's scores from eval to test.

    outcomes: by split, train corrected for its downsampling; scores: for eval and test float64, at the primary
    horizon, in the order of outcomes. Without draws there are no intervals, and the size alone decides.
    """
    horizon, gap = spec.primary_horizon, spec.gap_days
    names = list(outcomes)
    size = [len(outcomes[name]) for name in names]
    customer = customer_codes(pa.concat_arrays([outcomes[name].customer_key for name in names]))
    split = np.repeat(np.arange(len(names)), size)
    weight, converted, as_of = [], [], []
    for name in names:
        one = outcomes[name]
        rate = spec.sampling.negative_rate if name == "train" else 1.0
        weight.append(one.natural_weight(spec.horizons_days, gap, rate) * one.known(horizon, gap))
        converted.append(one.converted(horizon).astype(np.float64))
        as_of.append(one.as_of)
    weights, label = np.concatenate(weight), np.concatenate(converted)
    rows = np.arange(len(weights))

    checks = []
    if isinstance(spec, EventsSpec):
        times = np.concatenate(as_of) / DAY_US
        day = times - times.min(initial=np.inf) if len(times) else times
        span = float(day[weights > 0].max(initial=0) - day[weights > 0].min(initial=np.inf)) if weights.any() else 0.0
        columns = np.stack([weights, weights * day, weights * day**2, weights * label, weights * day * label], axis=1)
        total, drawn = drawn_sums(columns, rows, customer, draws, seed)
        change = interval("change", float(_trend(total, span)), _trend(drawn, span))
        checks.append(_moved("label rate over time", change, f"from the first to the last as_of ({span:.0f} days)"))
    columns = np.concatenate([np.stack([weights * (split == i), weights * label * (split == i)], axis=1)
                              for i in range(len(names))], axis=1)  # fmt: skip
    total, drawn = drawn_sums(columns, rows, customer, draws, seed)
    for name in ("eval", "test"):
        i, base = 2 * names.index(name), 2 * names.index("train")
        change = interval("change", float(_ratio(total, i, base)), _ratio(drawn, i, base))
        checks.append(_moved(f"label rate, {name} against train", change, f"in {name} against train"))
    probability = np.concatenate([scores.get(name, np.zeros(count)) for name, count in zip(names, size, strict=True)])
    weights = weights * (split == names.index("test"))
    total, drawn = drawn_sums(np.stack([weights * label, weights * probability], axis=1), rows, customer, draws, seed)
    change = interval("change", float(_over(total)), _over(drawn))
    what, where = "the mean probability lies", "off the share that converted"
    nothing = "no test journey converted"
    checks.append(_apart("mean probability, test", change, OFF, what=what, where=where, nothing=nothing))
    checks.append(_score_drift(outcomes, scores))
    return checks


def stability(reference: Floats, other: Floats) -> float:
    """Population stability index: sum over SCORE_BINS bins of (q - p) ln(q / p), bins of equally many of `reference`.

    Shares are smoothed by half a journey a bin, so that an empty one is no infinity. Below 0.1 is taken for stable,
    above 0.25 for changed.
    """
    edges = np.unique(np.quantile(reference, np.arange(1, SCORE_BINS) / SCORE_BINS))
    shares = []
    for values in (reference, other):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _score_drift(outcomes: dict[str, Outcomes], scores: dict[str, Floats]) -> dict[str, Any]:
    if not len(scores["eval"]) or not len(scores["test"]):
        return _check("scores, test against eval", "not measured", "not measured: eval or test is empty", None, DRIFT)
    index = stability(scores["eval"], scores["test"])
    customers = [pc.count_distinct(outcomes[name].customer_key).as_py() for name in ("eval", "test")]
    threshold = DRIFT + (SCORE_BINS - 1) * sum(1 / count for count in customers)
    means = {name: float(scores[name].mean()) for name in ("eval", "test")}
    what = f"mean probability {means['test']:.3g} on test, {means['eval']:.3g} on eval; stability index {index:.3f}"
    return _check("scores, test against eval", "warning" if index > threshold else "ok", what, index, threshold)


def _over(sums: Floats) -> Floats:
    """By how much the second sum exceeds the first, as a share of it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = sums[..., 1] / sums[..., 0] - 1
    return ratio


def _trend(sums: Floats, span: float) -> Floats:
    """Change over the span of the weighted least-squares line through the labels, in units of their mean.

    sums: float64 [..., 5]: of w, w t, w t², w y, w t y.
    """
    w, wt, wtt, wy, wty = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (wty - wt * wy / w) / (wtt - wt**2 / w)
        change: Floats = slope * span / (wy / w)
    return change if span > 0 else np.full_like(change, np.nan)


def _ratio(sums: Floats, i: int, base: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = (sums[..., i + 1] / sums[..., i]) / (sums[..., base + 1] / sums[..., base]) - 1
    return ratio


def _moved(name: str, change: dict[str, float | None], where: str) -> dict[str, Any]:
    nothing = "no conversion, or a single as_of"
    return _apart(name, change, DRIFT, what="the share converted changes by", where=where, nothing=nothing)


def _apart(
    name: str, change: dict[str, float | None], most: float, *, what: str, where: str, nothing: str
) -> dict[str, Any]:
    """A warning where the change is larger than `most`, and its interval, if there is one, excludes 0."""
    value, low, high = change["value"], change["low"], change["high"]
    if value is None:
        return _check(name, "not measured", f"not measured: {nothing}", None, most)
    bounds = "" if low is None or high is None else f", 95 % interval {_signed(low)} to {_signed(high)}"
    certain = low is None or high is None or low > 0 or high < 0
    status = "warning" if certain and abs(value) > most else "ok"
    return _check(name, status, f"{what} {_signed(value)} {where}{bounds}", value, most)


def _check(name: str, status: str, what: str, value: float | None, threshold: float) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "what": what,
        "value": None if value is None else _six(value),
        "threshold": _six(threshold),
    }


def _bar(lstm_auc: float) -> float:
    """Above which a single feature's AUC is suspicious."""
    near = 0.5 + SHARE_OF_LSTM * (lstm_auc - 0.5) if np.isfinite(lstm_auc) else SURE_AUC
    return min(SURE_AUC, max(STRONG_AUC, near))


def _features(journeys: Path, spec: AnySpec, wanted: Outcomes) -> tuple[list[str], NDArray[np.float32]]:
    """Names and float32 [n, features]: the aggregates, and by sequence field the share of its values missing."""
    aggregates = fit_aggregates(journeys, spec)
    fields = (*spec.sequence.categorical, *spec.sequence_numeric)
    # the count of an empty value is that of the missing ones
    names = [name.replace("=:", "=(missing):") for name in aggregates.names]
    names += [f"{field}:missing share" for field in fields]
    matrix = np.full((len(wanted), len(names)), np.nan, dtype=np.float32)
    for place, batch in matched(journeys, "eval", wanted, aggregates.columns):
        matrix[place, : len(aggregates.names)] = aggregates.of(batch)
        length = pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64)
        owner = np.repeat(np.arange(len(length)), length)
        for i, field in enumerate(fields):
            flat = pc.list_flatten(batch[field])
            lacking = pc.equal(flat, "") if field in spec.sequence.categorical else pc.is_nan(flat)
            count = np.bincount(owner, weights=lacking.to_numpy(zero_copy_only=False), minlength=len(length))
            with np.errstate(invalid="ignore"):
                matrix[place, len(aggregates.names) + i] = count / length
    return names, matrix


def _signed(share: float) -> str:
    return f"{100 * share:+z.0f}".replace("-", "\N{MINUS SIGN}") + "\N{NO-BREAK SPACE}%"


def _six(value: float) -> float:
    return float(f"{value:.6g}")
