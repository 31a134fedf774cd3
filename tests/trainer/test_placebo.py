"""Journeys as they were some days earlier: the same rows as read one by one, and the table read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.spec import DAY_US
from tests.trainer.synthetic_run import make_run
from trainer import outcomes, placebo
from trainer.outcomes import read_outcomes
from trainer.placebo import cut_off, earlier_journeys
from trainer.raw_journeys import read_padded

DAYS = 10


def test_a_journey_cut_off_by_hand() -> None:
    """Events 12, 11, 10 and 2 days before: of ten days before only what came strictly earlier is left."""
    ages = np.array([[12, 11, 10, 2], [3, 1, 0, 0]])
    arrays = {
        "as_of": np.array([100, 200]) * DAY_US,
        "length": np.array([4, 2]),
        "event_time": (np.array([[100], [200]]) - ages) * DAY_US,
        "channel": np.array([["a", "b", "c", "d"], ["e", "f", "", ""]], object),
    }
    found = cut_off(arrays, ("event_time", "channel"), DAYS)
    assert found["length"].tolist() == [2, 0]
    assert found["channel"][0].tolist() == ["a", "b"]
    assert (found["as_of"] / DAY_US).tolist() == [90, 190]


def test_earlier_journeys_in_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", customers=120)
    everyone = read_outcomes(run.run_dir.journeys, "train")
    wanted = everyone.take(np.flatnonzero(np.arange(len(everyone)) % 3 == 0))
    sequence = ("event_time", "event_type", "channel", "amount")
    whole = cut_off(read_padded(run.run_dir.journeys, "train", run.spec, wanted), sequence, DAYS)
    place = {key: row for row, key in enumerate(whole["key"])}
    readings = []
    monkeypatch.setattr(placebo, "_BATCH", 16)
    monkeypatch.setattr(outcomes, "scan", lambda *given, scan=outcomes.scan: readings.append(given) or scan(*given))
    seen = []
    for arrays in earlier_journeys(run.run_dir.journeys, "train", run.spec, wanted, DAYS):
        assert 0 < len(arrays["key"]) <= 16
        for row, key in enumerate(arrays["key"]):
            seen.append(key)
            length = arrays["length"][row]
            assert length == whole["length"][place[key]]
            for name in sequence:
                np.testing.assert_array_equal(arrays[name][row, :length], whole[name][place[key], :length])
            for name in ("as_of", "segment", "age"):
                np.testing.assert_array_equal(arrays[name][row], whole[name][place[key]])
    assert sorted(seen) == sorted(whole["key"]) and len(seen) > 32
    assert len(readings) == 1
