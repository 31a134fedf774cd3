"""The influence benchmark: what it cuts, what it joins, and when a bar counts as reached."""

from __future__ import annotations

from typing import Any

import pytest

from preprocessing.spec import parse_spec
from tests.bench import influence
from tests.bench.influence import INERT, NO_OVERLAP, STRONG, TARGETED
from tests.bench.influence_bars import RANDOMISED, bars, document


def _told(value: float, se: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.96 * se, "high": value + 1.96 * se, "se": se}


def _table(error: float, se: float = 0.01) -> dict[str, Any]:
    """A table whose effects are each `error` standard errors off the truth."""
    true = {STRONG: 0.1, "newsletter_tip": 0.02, INERT: 0.0, TARGETED: 0.03}
    table: dict[str, Any] = {
        name: {
            "claim": "randomised",
            "true": true[name],
            "effect": _told(true[name] + error * se, se),
            "unadjusted": _told(true[name], 1.1 * se),
            "oracle_se": 0.98 * se,
            "failed": [],
        }
        for name in RANDOMISED
    }
    table[STRONG]["qini"] = {
        learner: {"low": error - 1, "high": error + 1} for learner in ("s_learner", "t_learner", "dr_learner")
    }
    table[TARGETED] = {
        "claim": "association",
        "true": 0.03,
        "effect": _told(0.03 + error * se, se),
        "unadjusted": _told(0.13, se),
    }
    table[NO_OVERLAP] = {"claim": "none"}
    return table


def _found(errors: list[float]) -> dict[str, Any]:
    tables = [_table(error) for error in errors]
    whole = {"true": 0.02, "s_learner": 0.019, "t_learner": 0.01, "dr_learner": 0.017, "by_segment": {"new": 0.01}}
    whole |= {"assignments": 10, "customers": 5, "mean_effect": 0.01, "sd_effect": 0.002}
    return {"segments": {"tables": tables, "whole": whole}, "homogeneous": {"tables": tables, "whole": whole}}


def test_bars_that_are_reached() -> None:
    """Narrowing: 1 - 1 / 1.1 = 9.09 % of 1 - 0.98 / 1.1 = 10.91 %, 83 %; bias: 0.002 of 0.1 points on average."""
    found = bars(_found([0.5, -0.5, 0.2, -0.2, 0.3, -0.3, 0.1, -0.1, 1.0, 1.0]))
    assert [one["reached"] for one in found["bars"]] == [True] * len(found["bars"])
    by_bar = {one["bar"]: one["found"] for one in found["bars"]}
    assert by_bar["Narrowing at least 80 % of that by the true probability"] == "9.09% of 10.91%: 83%"
    assert by_bar["Pairs of campaigns whose true effects lie 4 standard errors apart: 95 % ranked right"].startswith(
        "20 of 20 (of 30 pairs)"
    )


def test_bars_that_are_missed_are_told() -> None:
    found = bars(_found([3.0] * 10))
    missed = [one["bar"] for one in found["bars"] if not one["reached"]]
    assert any("covers the true" in bar for bar in missed)
    assert any("without effect" in bar for bar in missed)
    assert any("Homogeneous" in bar for bar in missed)
    made = {"date": "2026-11-25", "command": "x", "minutes": 1.0, "machine": "m", "versions": {"a": "1"}}
    text = document(found | {"made": made | {"quick": False, "tables": 10, "customers": 2_500}})
    assert text.count("**missed**") == len(missed)


def test_the_spec_is_one_and_randomised_as_simulated() -> None:
    spec = parse_spec(influence.spec_text([STRONG, INERT]))
    assert spec.assignments is not None
    assert spec.assignments.is_randomised(STRONG) and not spec.assignments.is_randomised(TARGETED)
    assert spec.snapshots.assignments


@pytest.mark.parametrize("name", influence.POPULATIONS)
def test_flags_of_the_simulator_parse(name: str) -> None:
    from preprocessing.simulate import _flags

    flags = _flags(["--output", "x.parquet", *map(str, influence.POPULATIONS[name])])
    assert flags.homogeneous == (name == "homogeneous")
