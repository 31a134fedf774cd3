"""Each rule passed, failed and undecided, by figures given by hand; and which rule decides."""

from pathlib import Path

import pytest
import yaml

from deploy.thresholds import Thresholds, load_thresholds
from deploy.verdict import decide
from preprocessing.cli import UserError

SHIPPED = Path(__file__).parent.parent.parent / "job_configs/double_run.yaml"
MINIMAL = {"outcomes": {"min_conversions": 100}, "quality": {}}


def side(**changed):
    counts = {"journeys": 1000, "scored": 1000, "missing": 0, "errors": 0, "strays": 0, "rows": 1000, "reasons": {}}
    latency = {"p50_ms": 4.0, "p95_ms": 9.0, "p99_ms": 20.0, "error_rate": 0.0}
    one = {"kind": "probability", "live": True, "latency": latency, "latency_reason": None, "counts": counts}
    return one | changed | {"counts": counts | changed.get("counts", {})}


def metric(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, **more}


def figures(difference=None, conversions=500, **changed):
    """A comparison; difference: {metric: (value, low, high)} of candidate minus incumbent."""
    gaps = {"pr_auc": (0.0, -0.001, 0.001), "roc_auc": (0.0, -0.001, 0.001), "log_loss": (0.0, -0.0001, 0.0001)}
    gaps = {name: metric(*values) for name, values in (gaps | (difference or {})).items()}
    levels = {name: metric(0.1) for name in gaps} | {"calibration_error": metric(0.004)}
    document = {
        "journeys": 5000, "conversions": conversions, "incumbent": levels, "candidate": levels, "difference": gaps,
    }  # fmt: skip
    found = {
        "sides": {"incumbent": side(), "candidate": side()},
        "quality": {"primary_horizon": 30, "horizons": {"30": document}},
        "cost": {name: {"per_1000": each, "reason": None} for name, each in (("incumbent", 0.5), ("candidate", 0.4))},
        "agreement": {"30": {"spearman": 0.8, "top_decile_overlap": 0.6, "psi": 0.05, "reason": None}},
    }
    return found | changed


def asked(**blocks):
    return Thresholds.model_validate(MINIMAL | blocks)


def only(decision, name):
    return next(rule for rule in decision["rules"] if rule["rule"] == name)


def test_all_passed_is_go_under_the_shipped_thresholds():
    decision = decide(figures(), load_thresholds(SHIPPED))
    assert (decision["verdict"], decision["rule"]) == ("go", "all rules")
    assert {rule["result"] for rule in decision["rules"]} == {"passed"}
    assert "all 13 rules" in decision["why"]
    assert len(decision["rules"]) == 13


@pytest.mark.parametrize(
    ("gap", "margin", "result"),
    [
        ((0.02, 0.001, 0.04), {"margin": 0.01}, "passed"),
        ((-0.005, -0.0099, 0.004), {"margin": 0.01}, "passed"),  # worse perhaps, but within the margin
        ((-0.005, -0.011, 0.001), {"margin": 0.01}, "undecided"),
        ((-0.02, -0.03, -0.0101), {"margin": 0.01}, "failed"),
        ((-0.02, -0.03, -0.005), {"margin": 0.01}, "undecided"),  # surely worse, not surely beyond the margin
        ((-0.005, -0.0049, 0.001), {"margin_share": 0.05}, "passed"),  # 5 % of the incumbent's 0.1
        ((-0.005, -0.0051, 0.001), {"margin_share": 0.05}, "undecided"),
        ((0.02, 0.001, 0.04), {"margin": 0.0, "goal": "better"}, "passed"),
        ((0.02, -0.001, 0.04), {"margin": 0.0, "goal": "better"}, "undecided"),
        ((0.0, 0.0, 0.0), {"margin": 0.0, "goal": "better"}, "undecided"),  # the same scores are no better
        ((0.001, -0.004, 0.005), {"margin": 0.01, "goal": "better"}, "failed"),
        ((0.0, 0.0, 0.0), {"margin": 0.0}, "passed"),
        ((0.02, None, None), {"margin": 0.01}, "undecided"),
    ],
)
def test_quality_by_its_paired_interval(gap, margin, result):
    decision = decide(figures({"pr_auc": gap}), asked(quality={"pr_auc": margin}))
    assert only(decision, "quality.pr_auc")["result"] == result
    assert decision["verdict"] == {"passed": "go", "undecided": "wait", "failed": "no-go"}[result]


@pytest.mark.parametrize(
    ("gap", "result"),
    [
        ((-0.01, -0.02, -0.001), "passed"),
        ((0.0005, -0.001, 0.0009), "passed"),
        ((0.001, 0.0005, 0.002), "undecided"),
        ((0.004, 0.0011, 0.006), "failed"),
    ],
)
def test_of_log_loss_less_is_better(gap, result):
    rule = only(
        decide(figures({"log_loss": gap}), asked(quality={"log_loss": {"margin_share": 0.01}})), "quality.log_loss"
    )
    assert rule["result"] == result
    assert rule["threshold"] == pytest.approx(0.001)


def test_too_few_outcomes_wait_whatever_the_figures_say():
    decision = decide(figures({"pr_auc": (-0.5, -0.6, -0.4)}, conversions=99), asked(quality={"pr_auc": {"margin": 0}}))
    assert (decision["verdict"], decision["rule"]) == ("wait", "outcomes.min_conversions")
    assert decision["undecided"] == ["outcomes.min_conversions", "quality.pr_auc"]
    assert "99 conversions among 5,000" in decision["why"]


def test_a_rank_is_not_asked_for_log_loss():
    found = figures()
    document = found["quality"]["horizons"]["30"]
    document["difference"]["log_loss"] = metric(None, null_reason="its score is a rank, no probability")
    decision = decide(found, asked(quality={"log_loss": {"margin": 0.1}}))
    assert only(decision, "quality.log_loss")["result"] == "not asked"
    assert decision["verdict"] == "go"


@pytest.mark.parametrize(
    ("blocks", "sides", "rule", "verdict"),
    [
        ({"errors": {"max_rate": 0.01}}, {"candidate": side(counts={"errors": 11})}, "errors.max_rate", "no-go"),
        ({"errors": {"max_rate": 0.01}}, {"candidate": side(counts={"errors": 10})}, "all rules", "go"),
        (
            {"errors": {"max_rate": 0.01}},
            {"candidate": side(latency={"error_rate": 0.02})},  # single requests failed, the batches were repeated
            "errors.max_rate",
            "no-go",
        ),
        (
            {"pairing": {"max_candidate_missing": 0.01}},
            {"candidate": side(counts={"missing": 11})},
            "pairing.max_candidate_missing",
            "no-go",
        ),
        (
            {"pairing": {"max_incumbent_missing": 0.01}},
            {"incumbent": side(counts={"missing": 5, "errors": 6})},
            "pairing.max_incumbent_missing",
            "wait",
        ),
        ({"pairing": {"max_strays": 0.1}}, {"incumbent": side(counts={"strays": 101})}, "pairing.max_strays", "wait"),
        ({"latency": {"max_p99_ms": 19}}, {}, "latency.max_p99_ms", "no-go"),
        ({"latency": {"max_p99_ms": 20}}, {}, "all rules", "go"),
        (
            {"latency": {"max_p99_ms": 20}},
            {"candidate": side(live=False, latency=None, latency_reason="a table")},
            "all rules",
            "go",
        ),
        (
            {"latency": {"max_p99_ms": 20}},
            {"candidate": side(latency=None, latency_reason="not measured")},
            "latency.max_p99_ms",
            "wait",
        ),
    ],
)
def test_pairing_errors_and_latency(blocks, sides, rule, verdict):
    found = figures()
    found["sides"] |= sides
    decision = decide(found, asked(**blocks))
    assert (decision["verdict"], decision["rule"]) == (verdict, rule)


@pytest.mark.parametrize(
    ("limits", "rule", "verdict"),
    [
        ({"max_ratio": 0.8}, "all rules", "go"),
        ({"max_ratio": 0.79}, "cost.max_ratio", "no-go"),
        ({"max_per_1000": 0.39}, "cost.max_per_1000", "no-go"),
    ],
)
def test_cost(limits, rule, verdict):
    decision = decide(figures(), asked(cost=limits))
    assert (decision["verdict"], decision["rule"]) == (verdict, rule)
    unknown = decide(figures(cost=None), asked(cost=limits))
    assert (unknown["verdict"], unknown["why"]) == ("wait", "no --costs file is given")


def test_a_shift_alone_never_says_no():
    limits = {"min_spearman": 0.9, "min_top_decile_overlap": 0.7, "max_psi": 0.01}
    decision = decide(figures(), asked(agreement=limits))
    assert (decision["verdict"], decision["rule"], decision["failed"]) == ("wait", "agreement.min_spearman", [])
    assert len(decision["undecided"]) == 3


def test_the_first_failed_rule_decides_before_any_undecided_one():
    found = figures({"pr_auc": (-0.2, -0.3, -0.1)}, conversions=500)
    found["sides"]["incumbent"] = side(counts={"missing": 900})
    decision = decide(
        found,
        asked(
            pairing={"max_incumbent_missing": 0.1},
            quality={"pr_auc": {"margin": 0.01}},
            cost={"max_ratio": 0.1},
        ),
    )
    assert (decision["verdict"], decision["rule"]) == ("no-go", "quality.pr_auc")
    assert decision["failed"] == ["quality.pr_auc", "cost.max_ratio"]
    assert decision["undecided"] == ["pairing.max_incumbent_missing"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_p99_ms", "max_p999_ms", r"t\.yaml:\d+: latency\.max_p999_ms: unknown key; did you mean 'max_p99_ms'"),
        (
            "roc_auc: {margin: 0.01}",
            "roc_auc: {margin: 0.01, margin_share: 0.1}",
            "expected either margin or margin_share",
        ),
        ("min_conversions: 100", "min_conversions: 0", r"t\.yaml:8: outcomes\.min_conversions"),
        ("max_ratio: 1.0", "max_ratio: cheap", r"cost\.max_ratio: expected a valid number, got 'cheap'"),
        ("outcomes:", "outcome:", "unknown key; did you mean 'outcomes'"),
    ],
)
def test_thresholds_are_strict(tmp_path, old, new, message):
    text = SHIPPED.read_text()
    assert old in text
    (tmp_path / "t.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_thresholds(tmp_path / "t.yaml")


def test_the_shipped_file_says_what_it_does():
    text = SHIPPED.read_text()
    assert all(word in text for word in ("no-go", "wait", "go"))
    assert set(yaml.safe_load(text)) == set(Thresholds.model_fields)
