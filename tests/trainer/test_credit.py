"""Credits of real journeys: what the model is asked, and what the shares sum to."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.rundir import RunDir
from preprocessing.spec import load_spec
from trainer.attribution import RULES
from trainer.credit import _players, columns_of, credited


@pytest.fixture(scope="module")
def spec(prepared: RunDir):
    return load_spec(prepared.transform / "spec.yaml")


def _by_length(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """A model that knows one thing: each event adds a hundredth."""
    return 0.1 + 0.01 * arrays["length"]


def test_shares_sum_to_the_conversions(prepared: RunDir, spec) -> None:
    found = credited(prepared.journeys, spec, ["channel"], _by_length, most=60)
    (column,) = found["columns"]
    assert 0 < found["journeys"] == min(60, found["converted"])
    total = column["without"] + sum(player["shapley"] for player in column["players"])
    assert total == pytest.approx(found["journeys"])
    for rule in RULES:
        assert sum(player[rule] for player in column["players"]) == pytest.approx(
            found["journeys"] - column["untouched"]
        )
    assert all(player["se"] == pytest.approx(0, abs=1e-9) for player in column["players"])  # an additive model


def test_a_model_that_hears_one_channel_alone_credits_it_alone(prepared: RunDir, spec) -> None:
    first = credited(prepared.journeys, spec, ["channel"], lambda a: np.full(len(a["length"]), 0.1), most=40)
    name = first["columns"][0]["players"][0]["name"].encode()

    def score(arrays: dict[str, np.ndarray]) -> np.ndarray:
        inside = np.arange(arrays["channel"].shape[1]) < arrays["length"][:, None]
        return 0.1 + 0.2 * ((arrays["channel"] == name) & inside).any(axis=1)

    found = credited(prepared.journeys, spec, ["channel"], score, most=40)["columns"][0]["players"]
    assert found[0]["shapley"] == pytest.approx(found[0]["journeys"] * 0.2 / 0.3)
    assert [player["shapley"] for player in found[1:]] == pytest.approx([0] * (len(found) - 1), abs=1e-9)


def test_players_by_hand_whatever_their_letters() -> None:
    """By falling number of events; equally frequent ones by name. An empty value is no player, and padding no event."""
    events = [["café", "web", "café"], ["Ω", "", "__rare__"], ["web", "web", ""]]
    arrays = {
        "channel": np.array([[value.encode() for value in row] for row in events], object),
        "length": np.array([3, 3, 1]),
    }
    names, player = _players(arrays, "channel")
    assert names == ["café", "web", "(rare)", "Ω"]
    assert player.tolist() == [[0, 1, 0], [3, -1, 2], [1, -1, -1]]


def test_what_is_credited(spec) -> None:
    """The campaign column is the channel here: it is credited once."""
    assert columns_of(spec) == ["channel"]
