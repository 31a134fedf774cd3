"""May the candidate replace the incumbent? Rules from YAML over the comparison's figures: go, no-go or wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.thresholds import Agreement, Cost, Enough, Latency, Margin, Quality, Thresholds
from trainer.metrics import LOWER_IS_BETTER

Rule = dict[str, Any]
NO_GO, WAIT, GO = "no-go", "wait", "go"


def decide(comparison: dict[str, Any], thresholds: Thresholds) -> dict[str, Any]:
    """{"verdict", "rule", "why", "failed", "undecided", "rules"}: the decision, and the rule that decided.

    comparison: as comparison.json. A failed rule decides before an undecided one, and of several the first in the order
    of the rules; a failed rule whose consequence is to wait counts as undecided. rules: [{rule, value, low, high,
    threshold, result: passed | failed | undecided | not asked, consequence, why}].
    """
    rules = list(_rules(comparison, thresholds))
    stopped = [rule for rule in rules if rule["result"] == "failed" and rule["consequence"] == NO_GO]
    open_ones = [
        rule
        for rule in rules
        if rule["result"] == "undecided" or (rule["result"] == "failed" and rule["consequence"] == WAIT)
    ]
    verdict, deciding = (NO_GO, stopped) if stopped else (WAIT, open_ones) if open_ones else (GO, [])
    passed = sum(rule["result"] == "passed" for rule in rules)
    return {
        "verdict": verdict,
        "rule": deciding[0]["rule"] if deciding else "all rules",
        "why": deciding[0]["why"] if deciding else f"all {passed} rules that were asked have passed",
        "failed": [rule["rule"] for rule in stopped],
        "undecided": [rule["rule"] for rule in open_ones],
        "rules": rules,
    }


def _rules(found: dict[str, Any], asked: Thresholds) -> Iterator[Rule]:
    yield from _pairing(found["sides"], asked)
    yield from _latency(found["sides"]["candidate"], asked.latency)
    quality = found["quality"]
    document = quality["horizons"][str(quality["primary_horizon"])]
    enough = _enough(document, asked.outcomes)
    yield enough
    ready = enough["result"] == "passed"
    for name in Quality.model_fields:
        margin = getattr(asked.quality, name)
        if margin is not None:
            yield _metric(name, document, margin, ready)
    if asked.calibration is not None:
        one = document["candidate"]["calibration_error"]
        yield _bound(
            "calibration.max_error",
            one["value"] if ready else None,
            asked.calibration.max_error,
            absent="too few outcomes are known" if not ready else "it is not defined on this sample",
            text="the candidate's calibration error",
        )
    yield from _cost(found["cost"], asked.cost)
    yield from _agreement(found["agreement"][str(quality["primary_horizon"])], asked.agreement)


def _pairing(sides: dict[str, Any], asked: Thresholds) -> Iterator[Rule]:
    for side, limit, consequence in (
        ("candidate", asked.pairing.max_candidate_missing, NO_GO),
        ("incumbent", asked.pairing.max_incumbent_missing, WAIT),
    ):
        counts = sides[side]["counts"]
        if limit is not None:
            # what the incumbent cannot score for whatever reason is missing in the comparison
            lacking = counts["missing"] + (counts["errors"] if side == "incumbent" else 0)
            yield _bound(
                f"pairing.max_{side}_missing", lacking / counts["journeys"], limit, consequence=consequence,
                text=f"the share of journeys without a score of the {side}",
            )  # fmt: skip
    if asked.pairing.max_strays is not None:
        shares = [c["strays"] / c["rows"] for c in (s["counts"] for s in sides.values()) if c.get("rows")]
        yield _bound(
            "pairing.max_strays", max(shares, default=None), asked.pairing.max_strays, consequence=WAIT,
            absent="neither side is a table", inapplicable=not shares,
            text="the share of scores that belong to no journey",
        )  # fmt: skip
    if asked.errors is not None:
        counts = sides["candidate"]["counts"]
        tried = counts["journeys"] - counts["missing"]
        single = (sides["candidate"]["latency"] or {}).get("error_rate")
        rates = [rate for rate in (counts["errors"] / tried if tried else None, single) if rate is not None]
        yield _bound(
            "errors.max_rate", max(rates, default=None), asked.errors.max_rate, absent="it scored nothing",
            text="the candidate's error rate",
        )  # fmt: skip


def _latency(candidate: dict[str, Any], asked: Latency) -> Iterator[Rule]:
    for p in (50, 95, 99):
        limit = getattr(asked, f"max_p{p}_ms")
        if limit is not None:
            measured = candidate["latency"]
            yield _bound(
                f"latency.max_p{p}_ms", measured and measured[f"p{p}_ms"], limit,
                absent=candidate["latency_reason"], inapplicable=not candidate["live"],
                text=f"the candidate's {p}th percentile of latency, in ms,",
            )  # fmt: skip


def _enough(document: dict[str, Any], asked: Enough) -> Rule:
    journeys, conversions = document["journeys"], document["conversions"]
    there = journeys >= asked.min_journeys and conversions >= asked.min_conversions
    why = (
        f"{conversions:,} conversions among {journeys:,} journeys with a known outcome; "
        f"asked: {asked.min_conversions:,} among {asked.min_journeys:,}"
    )
    return _rule(
        "outcomes.min_conversions", conversions, asked.min_conversions, "passed" if there else "undecided", why
    )


def _metric(name: str, document: dict[str, Any], margin: Margin, ready: bool) -> Rule:
    """Non-inferiority (or superiority) by the paired interval of candidate minus incumbent."""
    rule, gap, base = f"quality.{name}", document["difference"][name], document["incumbent"][name]["value"]
    if gap.get("null_reason"):
        return _rule(rule, None, None, "not asked", f"one side has none: {gap['null_reason']}", consequence=NO_GO)
    width = margin.margin if margin.margin is not None else base and margin.margin_share and margin.margin_share * base
    if margin.margin_share == 0:
        width = 0.0
    if not ready or gap["low"] is None or gap["high"] is None or width is None:
        why = (
            "too few outcomes are known" if not ready else "no interval: the metric is not defined, or --bootstrap is 0"
        )
        return _rule(rule, gap["value"], width, "undecided", why)
    sign = -1 if name in LOWER_IS_BETTER else 1
    low, high = sorted((sign * gap["low"], sign * gap["high"]))  # of how much better the candidate is
    needed = width if margin.goal == "better" else -width
    result = "passed" if low >= needed else "failed" if high < needed else "undecided"
    if margin.goal == "better" and low == needed:
        result = "undecided"
    said = {
        "passed": "lies wholly within what is asked",
        "failed": "lies wholly outside",
        "undecided": "holds the limit",
    }
    least = f"{needed:+.4g}" if sign > 0 else f"{-needed:+.4g}"
    bound = "at least" if sign > 0 else "at most"
    why = (
        f"candidate - incumbent is {gap['value']:+.4g}, interval {gap['low']:+.4g} to {gap['high']:+.4g}; "
        f"asked: {bound} {least}: the interval {said[result]}"
    )
    return _rule(rule, gap["value"], sign * needed, result, why, low=gap["low"], high=gap["high"])


def _cost(cost: dict[str, Any] | None, asked: Cost) -> Iterator[Rule]:
    each = {side: (cost or {}).get(side, {}).get("per_1000") for side in ("incumbent", "candidate")}
    reasons = ["no --costs file is given"] if cost is None else [cost[s]["reason"] for s in each if cost[s]["reason"]]
    absent = reasons[0] if reasons else "the incumbent costs nothing"
    if asked.max_ratio is not None:
        known = each["candidate"] is not None and each["incumbent"]
        yield _bound(
            "cost.max_ratio", each["candidate"] / each["incumbent"] if known else None, asked.max_ratio, absent=absent,
            text="what the candidate costs, over what the incumbent costs,",
        )  # fmt: skip
    if asked.max_per_1000 is not None:
        yield _bound(
            "cost.max_per_1000", each["candidate"], asked.max_per_1000, absent=absent,
            text="what 1,000 predictions of the candidate cost",
        )  # fmt: skip


def _agreement(found: dict[str, Any], asked: Agreement) -> Iterator[Rule]:
    for field, name, text in (
        ("min_spearman", "spearman", "the rank correlation"),
        ("min_top_decile_overlap", "top_decile_overlap", "the overlap of the highest tenths"),
        ("max_psi", "psi", "the shift of the scores (PSI)"),
    ):
        limit = getattr(asked, field)
        if limit is not None:
            absent = found.get(f"{name}_reason") or found["reason"]
            yield _bound(
                f"agreement.{field}", found[name], limit, consequence=WAIT, text=text, least=field.startswith("min"),
                absent=absent, inapplicable=name == "psi" and "psi_reason" in found,
            )  # fmt: skip


def _bound(
    rule: str,
    value: float | None,
    limit: float,
    *,
    text: str,
    consequence: str = NO_GO,
    least: bool = False,
    absent: str | None = None,
    inapplicable: bool = False,
) -> Rule:
    """A figure against the most (or least) that it may be; without a figure undecided, or not asked."""
    if value is None:
        return _rule(
            rule, None, limit, "not asked" if inapplicable else "undecided", str(absent), consequence=consequence
        )
    result = "passed" if (value >= limit if least else value <= limit) else "failed"
    why = f"{text} is {value:.4g}; asked: at {'least' if least else 'most'} {limit:.4g}"
    return _rule(rule, value, limit, result, why, consequence=consequence)


def _rule(
    rule: str,
    value: float | None,
    threshold: float | None,
    result: str,
    why: str,
    *,
    consequence: str = NO_GO,
    low: float | None = None,
    high: float | None = None,
) -> Rule:
    return {
        "rule": rule, "value": value, "low": low, "high": high, "threshold": threshold, "result": result,
        "consequence": consequence, "why": why,
    }  # fmt: skip
