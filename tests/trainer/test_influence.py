"""`python -m trainer.influence` as a command: on the main job's customers, and what it says where it cannot."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from tests.job import command
from tests.trainer.conftest import SPEC
from trainer.influence import measured, planned_shares, require_same_journeys
from trainer.influence_report import render
from trainer.influence_words import headline, verdict

CAMPAIGNS = ("brand_display", "newsletter_tip", "spring_sale_email", "vip_offer")


@pytest.fixture(scope="module")
def walked(job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the main job's run directory with its influence/, and what the command said."""
    place = tmp_path_factory.mktemp("influence") / "run"
    shutil.copytree(job["run_dir"], place)
    said = command(
        *("trainer.influence", "--run_dir", place, "--draws", 20, "--journeys", 40),
        *("--planned_share", "0.5", "--planned_share", "vip_offer=0.3"),
    )
    return place, said


def _found(walked: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((walked[0] / "influence/influence.json").read_text())


def test_every_campaign_is_judged(walked: tuple[Path, str]) -> None:
    found = _found(walked)
    assert tuple(one["campaign"] for one in found["campaigns"]) == CAMPAIGNS
    for one in found["campaigns"]:
        assert one["declared_randomised"] == (one["campaign"] != "vip_offer")
        assert one["known"] <= one["assignments"]
        if one["claim"] == "none":
            assert one["reason"] and "effect" not in one
        else:
            assert one["effect"]["low"] < one["effect"]["value"] < one["effect"]["high"]
        assert headline(one) in walked[1]
    by_name = {one["campaign"]: one for one in found["campaigns"]}
    assert by_name["spring_sale_email"]["claim"] == "randomised"
    assert by_name["vip_offer"]["claim"] != "randomised"
    assert by_name["vip_offer"]["claim"] == "none" or "placebo" in by_name["vip_offer"]


def test_credits_sum_to_the_conversions(walked: tuple[Path, str]) -> None:
    found = _found(walked)["attribution"]
    assert [column["column"] for column in found["columns"]] == ["channel", "campaign"]
    for column in found["columns"]:
        total = column["without"] + sum(player["shapley"] for player in column["players"])
        assert total == pytest.approx(found["journeys"], rel=1e-5)


def test_the_page_says_what_the_numbers_say_and_loads_nothing(walked: tuple[Path, str]) -> None:
    page = (walked[0] / "influence/influence.html").read_text()
    assert page == render(_found(walked))
    assert "http://" not in page and "https://" not in page and "<script" not in page
    for place, campaign in enumerate(CAMPAIGNS, 1):
        assert f'<h2 id="{campaign.replace("_", "-")}-{place}">{campaign}</h2>' in page
    assert "Lots were drawn over who is treated" in page
    assert "not a cause" in page


@pytest.mark.slow
def test_a_second_run_takes_the_networks_up_and_says_the_same(walked: tuple[Path, str]) -> None:
    before = _found(walked)
    said = command(
        *("trainer.influence", "--run_dir", walked[0], "--draws", 20, "--journeys", 40),
        *("--planned_share", "0.5", "--planned_share", "vip_offer=0.3"),
    )
    assert said.count("going on from there") == 2
    assert _found(walked) == before


def test_mistakes_end_in_one_line(walked: tuple[Path, str], tmp_path: Path) -> None:
    said = command("trainer.influence", "--run_dir", tmp_path / "none", code=2)
    assert "no such run directory" in said
    assert "--folds: expected a whole number from 2 up to 20" in command(
        "trainer.influence", "--run_dir", walked[0], "--folds", 1, code=2
    )
    said = command("trainer.influence", "--run_dir", walked[0], "--planned_share", "sprnig=0.5", code=2)
    assert f"--planned_share: no campaign 'sprnig' among the assignments; there are {', '.join(CAMPAIGNS)}" in said
    assert "training without its customers" not in said


def _run_dir(path: Path) -> RunDir:
    """What a training leaves, as far as it is looked at: its spec, and which records it read."""
    run_dir = RunDir(path)
    for name in ("model", "transform", "records", "training"):
        (run_dir.path / name).mkdir(parents=True)
    (run_dir.model / "spec.yaml").write_text(SPEC)
    (run_dir.transform / "spec.yaml").write_text(SPEC)
    (run_dir.records / "whole.json").write_text('{"stamp": "first", "with": ["records"]}')
    (run_dir.training / "settings.json").write_text('{"records": "first", "epochs": 3}')
    return run_dir


def test_a_model_of_other_journeys_is_refused(tmp_path: Path) -> None:
    """Faults: preprocessing ran anew with another spec, or with the same one on other events."""
    run_dir = _run_dir(tmp_path / "run")
    require_same_journeys(run_dir)
    (run_dir.records / "whole.json").write_text('{"stamp": "second", "with": ["records"]}')
    with pytest.raises(UserError, match="was trained on other journeys") as told:
        require_same_journeys(run_dir)
    assert str(told.value).endswith(f"train anew with: python -m trainer.task --run_dir {run_dir.place}")
    (run_dir.training / "settings.json").write_text('{"records": ')  # half written: it tells nothing
    require_same_journeys(run_dir)
    (run_dir.training / "settings.json").unlink()  # on Vertex AI it lies elsewhere
    require_same_journeys(run_dir)
    (run_dir.transform / "spec.yaml").write_text(SPEC.replace("every_days: 14", "every_days: 7"))
    with pytest.raises(UserError, match="was trained on other journeys"):
        require_same_journeys(run_dir)
    (run_dir.model / "spec.yaml").unlink()
    with pytest.raises(UserError, match="was trained on other journeys"):
        require_same_journeys(run_dir)


def test_a_planned_share_without_assignments_is_refused(tmp_path: Path) -> None:
    run_dir = _run_dir(tmp_path / "run")
    with pytest.raises(UserError, match=r"--planned_share: .*spec.yaml names no campaigns.assignments"):
        measured(run_dir, argparse.Namespace(folds=2, draws=20, journeys=10), {None: 0.5})


def test_campaigns_of_like_names_have_places_of_their_own() -> None:
    silent = {"claim": "none", "reason": "nobody", "assignments": 9, "known": 9, "treated": 0, "customers": 9}
    silent |= {"rate_treated": None, "rate_held_out": None}
    names = ("a b", "a-b", "été", "fêt")
    page = render(
        {
            **{"campaigns": [silent | {"campaign": name} for name in names], "notes": [], "folds": 2, "draws": 20},
            **{"horizon_days": 30, "model_version": "v1", "attribution": {"columns": []}},
        }
    )
    ids = re.findall(r'<h2 id="([^"]+)">(?:a b|a-b|été|fêt)</h2>', page)
    assert ids == ["a-b-1", "a-b-2", "-t--3", "f-t-4"]


def test_planned_shares() -> None:
    assert planned_shares(["0.5", "sale=0.9"]) == {None: 0.5, "sale": 0.9}
    for wrong in ("half", "sale=1", "0"):
        with pytest.raises(UserError, match="expected a share such as"):
            planned_shares([wrong])


def _campaign(low: float, high: float, claim: str) -> dict[str, Any]:
    effect = {"value": (low + high) / 2, "low": low, "high": high}
    return {"campaign": "sale", "claim": claim, "effect": effect, "reason": ""}


def test_words_claim_no_more_than_the_numbers() -> None:
    assert verdict(_campaign(0.01, 0.03, "randomised")) == "effective"
    assert verdict(_campaign(0.01, 0.03, "association")) == "associated with more conversions"
    assert verdict(_campaign(-0.03, -0.01, "randomised")) == "harmful"
    assert verdict(_campaign(-0.01, 0.03, "randomised")) == "not distinguishable from nothing"
    assert verdict({"claim": "none"}) == "no claim"
    assert headline(_campaign(0.01, 0.03, "randomised")) == (
        "sale: +2.00 percentage points (+1.00 … +3.00), randomised"
    )
