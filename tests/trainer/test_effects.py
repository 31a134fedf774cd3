"""What is claimed of a campaign, and when nothing is: on drawn assignments whose truth is known, faults among them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.trainer.assigned import drawn
from trainer import learners
from trainer.effects import TOO_GOOD, Question, judged

RANDOM = Question(declared_random=True, planned_share=0.5, min_customers=10, folds=2, draws=20)
TARGETED = Question(declared_random=False, planned_share=None, min_customers=10, folds=2, draws=20)


def _failed(found: dict) -> list[str]:
    return [check["name"] for check in found["checks"] if check["status"] == "failed"]


def test_an_experiment_is_told_with_its_interval() -> None:
    found = judged("sale", drawn(seed=3), RANDOM)
    assert found["claim"] == "randomised"
    assert found["effect"]["low"] < 0.05 < found["effect"]["high"]
    assert found["effect"]["se"] < found["unadjusted"]["se"]
    assert 0 < found["narrowing"] < 0.2
    assert _failed(found) == []
    assert [row["relative"] for row in found["needed"]] == [0.1, 0.05, 0.02]
    assert set(found["uplift"]) == {"s_learner", "t_learner", "dr_learner"}
    assert {(row["field"], row["value"]) for row in found["segments"]} == {("segment", "loyal"), ("segment", "new")}
    assert all(row["effect"]["low"] < row["effect"]["value"] for row in found["segments"])
    json.dumps(found, allow_nan=False)


def test_a_campaign_without_effect_is_not_declared_effective() -> None:
    """Of 20 campaigns that do nothing at most 4 exclude zero (5 or more has a chance of 0.3 %)."""
    said = [judged("sale", drawn(2_000, effect=0.0, seed=seed), RANDOM)["effect"] for seed in range(20)]
    assert sum(one["low"] > 0 or one["high"] < 0 for one in said) <= 4


def test_lots_that_lost_customers_are_flagged() -> None:
    """A fault: a sixth of the held out went missing, whoever they were."""
    whole = drawn(seed=1)
    lost = ~whole.treated & (np.random.default_rng(0).random(len(whole)) < 1 / 6)
    found = judged("sale", whole.take(~lost), RANDOM)
    assert _failed(found) == ["planned share"]
    assert "planned share" in found["warning"]
    assert found["claim"] == "association"


def test_lots_that_follow_the_journey_are_flagged() -> None:
    found = judged("sale", drawn(propensity="targeted"), RANDOM)
    assert "not foretold by the journey" in _failed(found)
    assert found["claim"] == "association"


def test_a_share_that_changed_between_sendings_is_flagged() -> None:
    late = np.tile([False, True], 4_000)
    treated = np.random.default_rng(0).random(8_000) < np.where(late, 0.6, 0.4)
    assert _failed(judged("sale", drawn(treated=treated), RANDOM)) == ["same share in every sending"]


def test_no_plan_no_check_of_the_ratio() -> None:
    found = judged("sale", drawn(share=0.7), Question(True, None, 10, 2, 20))
    assert [check["status"] for check in found["checks"]] == ["not checked", "passed", "passed"]
    assert found["claim"] == "randomised"


def test_a_score_that_knows_the_outcome_is_refused() -> None:
    """A fault: the score was computed after the fact, on a field that the purchase had changed."""
    honest = drawn()
    leaked = np.clip(0.98 * honest.converted + 0.01 + np.random.default_rng(0).normal(0, 0.02, 8_000), 0.001, 0.999)
    found = judged("sale", drawn(without=leaked, with_it=leaked), RANDOM)
    assert found["claim"] == "none"
    assert "after the assignment" in found["reason"]
    assert TOO_GOOD < 1


def test_a_faint_leak_is_seen_because_it_tells_the_arms_apart() -> None:
    """Where the campaign acts, a score that holds some of the outcome differs between fair arms."""
    honest = drawn(40_000, effect=0.2)
    faint = np.clip(honest.without + 0.1 * honest.converted, 0, 1)
    found = judged("sale", drawn(40_000, effect=0.2, without=faint, with_it=faint), RANDOM)
    assert "not foretold by the journey" in _failed(found)


def test_a_targeted_campaign_is_adjusted() -> None:
    found = judged("sale", drawn(20_000, propensity="targeted"), TARGETED)
    assert found["claim"] == "association"
    bias, naive = found["effect"]["value"] - 0.05, found["unadjusted"]["value"] - 0.05
    assert naive > 0.05
    assert abs(bias) < 0.3 * naive
    assert found["e_value"]["estimate"] > found["e_value"]["interval"] >= 1
    assert found["compared"] > 0.95 * found["known"]
    json.dumps(found, allow_nan=False)


def test_without_overlap_nothing_is_told() -> None:
    found = judged("sale", drawn(propensity="certain"), TARGETED)
    assert found["claim"] == "none"
    assert found["reason"].startswith("cannot be told from this data")
    assert "effect" not in found


@pytest.mark.parametrize("treated", [False, True])
def test_a_campaign_never_seen_in_one_arm_is_not_told(treated: bool) -> None:
    found = judged("sale", drawn(500, treated=np.full(500, treated)), RANDOM)
    assert found["claim"] == "none"
    assert "0 assignments of known outcome were" in found["reason"]


def test_unknown_outcomes_and_rare_conversions_are_not_told() -> None:
    assert judged("sale", drawn(500, known=np.zeros(500, bool)), RANDOM)["claim"] == "none"
    rare = judged("sale", drawn(500, converted=np.arange(500) < 3), RANDOM)
    assert "3 conversions in both arms" in rare["reason"]


def test_small_segments_are_not_shown() -> None:
    segment = np.array(["few"] * 10 + ["many"] * 1990, object)
    found = judged("sale", drawn(2_000, categories={"segment": segment}), RANDOM)
    few, many = found["segments"]
    assert few["effect"] is None and few["assignments"] is None
    assert "fewer than 10 customers" in few["reason"]
    assert many["effect"] is not None


@pytest.mark.parametrize("left", [0, 12])
def test_a_segment_is_as_large_as_what_of_it_is_compared(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `left` of a segment's 800 assignments have nobody to be compared with. What is told of it is what those
    `left` allow: nothing, for want of customers or of assignments, whatever the 800 would."""
    segment = np.array(["sure"] * 800 + ["open"] * 7_200, object)
    propensity = np.where((segment == "sure") & (np.arange(8_000) >= left), 0.01, 0.5)
    monkeypatch.setattr(learners, "propensity", lambda *_: propensity)
    found = judged("sale", drawn(categories={"segment": segment}), TARGETED)
    assert found["claim"] == "association" and found["compared"] == 7_200 + left
    known, sure = found["segments"]
    assert (known["value"], known["assignments"], known["effect"] is None) == ("open", 7_200, False)
    assert (sure["assignments"], sure["effect"]) == (None, None)
    assert sure["reason"] == "fewer than 10 customers in an arm"
    json.dumps(found, allow_nan=False)
    few = judged("sale", drawn(categories={"segment": segment}), Question(False, None, 1, 2, 20))["segments"][1]
    assert few["effect"] is None
    assert few["assignments"] == (left or None)  # enough customers, too few assignments


def test_a_campaign_that_the_networks_never_saw_treated_is_judged_by_its_lots_alone() -> None:
    """The networks have no answer with it (NaN); the arms are still compared."""
    found = judged("sale", drawn(seed=3, with_it=np.full(8_000, np.nan)), RANDOM)
    assert found["claim"] == "randomised"
    assert found["effect"]["low"] < 0.05 < found["effect"]["high"]
