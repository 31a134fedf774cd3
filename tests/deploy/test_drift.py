"""The index by hand, its value by chance by simulation, and what is alerted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploy import drift
from preprocessing.cli import UserError
from tests.job import ROOT

THRESHOLDS = drift.load_thresholds(str(ROOT / "job_configs/monitor.yaml"))


def test_the_index_by_hand():
    # (0.4 - 0.5) ln(0.8) + (0.6 - 0.5) ln(1.2) = 0.0223144 + 0.0182322
    assert drift.psi([0.5, 0.5], [0.4, 0.6]) == pytest.approx(0.0405466, abs=1e-7)
    assert drift.psi([0.2, 0.8], [0.2, 0.8]) == 0
    assert drift.psi([0.4, 0.6], [0.5, 0.5]) == pytest.approx(drift.psi([0.5, 0.5], [0.4, 0.6]))


def test_an_empty_cell_is_taken_as_the_floor():
    # (0.0001 - 0.1) ln(0.0001 / 0.1) + (1 - 0.9) ln(1 / 0.9) = 0.0999 * 6.907755 + 0.1 * 0.1053605
    assert drift.psi([0.1, 0.9], [0.0, 1.0]) == pytest.approx(0.6900848 + 0.0105361, abs=1e-6)
    assert math.isfinite(drift.psi([0.0, 1.0], [1.0, 0.0]))
    assert drift.psi([0.0, 1.0], [0.0, 1.0]) == 0


def test_chance_is_what_two_samples_of_one_law_show():
    rng = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    found = [drift.psi(rng.multinomial(800, shares) / 800, rng.multinomial(500, shares) / 500) for _ in range(400)]
    # (10 - 1) (1 / 800 + 1 / 500) = 0.02925
    assert drift.by_chance(shares, shares, (800, 500)) == pytest.approx(0.02925)
    assert np.mean(found) == pytest.approx(0.02925, rel=0.1)
    assert drift.by_chance([0.5, 0.5, 0.0], [0.5, 0.5, 0.0], (800, 500)) == pytest.approx(0.00325)


def statistics(shares, customers, few=(False, False), other=0.0, new=()):
    cells = {"kind": "categorical", "of": "events", "values": ["a", "b"], "shares": list(shares), "other": other}
    cells |= {"missing": 0.0, "few": list(few), "other_few": False, "missing_few": False, "new": dict(new)}
    days = {"kind": "numeric", "of": "journeys", "edges": [7.0], "shares": [1.0, 0.0], "missing": 0.0, "mean": 1.0}
    days |= {"few": [False, False], "missing_few": False}
    return {"fields": {"f": cells}, "length": days, "recency": days, "scores": {}, "customers": customers}


def test_chance_is_taken_off_before_the_threshold():
    before = statistics([0.5, 0.5], 10_000)
    # PSI of 0.5 → 0.72: 0.22 ln 1.44 + 0.22 ln(1 / 0.56) = 0.2078; above 0.2 by less than chance with 250 customers
    rows = {n: drift.shifts(before, statistics([0.72, 0.28], n), THRESHOLDS)[0] for n in (250, 10_000)}
    assert rows[250]["psi"] == pytest.approx(0.20778, abs=1e-4)
    assert rows[10_000]["status"] == "alert"
    assert rows[250]["by_chance"] == pytest.approx(1 / 250 + 1 / 10_000)
    assert rows[250]["status"] == "alert"
    at_limit = drift.shifts(before, statistics([0.717, 0.283], 250), THRESHOLDS)[0]
    assert at_limit["psi"] > 0.2
    assert at_limit["status"] == "stable"


def test_few_customers_hide_a_cell_and_too_few_say_nothing():
    before = statistics([0.5, 0.5], 1000)
    (row, *_) = drift.shifts(before, statistics([0.99, 0.01], 1000, few=(False, True)), THRESHOLDS)
    assert [cell["actual"] for cell in row["cells"][:2]] == [0.99, None]
    (row, *_) = drift.shifts(before, statistics([0.99, 0.01], 199), THRESHOLDS)
    assert row["status"] == "too few"


def test_unknown_values_are_an_alert_of_their_own():
    before = statistics([0.5, 0.49], 1000, other=0.01)
    (row, *_) = drift.shifts(before, statistics([0.485, 0.48], 1000, other=0.035, new={"x": 0.03}), THRESHOLDS)
    (alert,) = drift.alerts([row], {})
    assert (alert["kind"], alert["name"]) == ("out_of_vocabulary", "f")
    assert alert["message"] == "f: 3.5% of its values were never learnt, 1.0% in train; new: 'x' 3.0%"
    row["out_of_vocabulary"]["actual"] = None  # few customers' events
    (alert,) = drift.alerts([row], {})
    assert alert["value"] is None
    assert alert["message"].startswith("f: a share, which few customers make, of its values were never learnt, 1.0% in")
    (row, *_) = drift.shifts(before, statistics([0.5, 0.471], 1000, other=0.029), THRESHOLDS)
    assert drift.alerts([row], {}) == []


def test_frequent_values_are_cells_and_the_others_one():
    many = {"values": [f"v{i}" for i in range(25)], "shares": [0.04] * 25}
    before, now = statistics([0, 0], 1000), statistics([0, 0], 1000)
    before["fields"]["f"] |= many
    now["fields"]["f"] |= {**many, "few": [False] * 25}
    (row, *_) = drift.shifts(before, now, THRESHOLDS)
    assert len(row["cells"]) == 22  # 20 values, all others, missing
    assert row["cells"][20] == {"cell": "all others", "expected": pytest.approx(0.2), "actual": pytest.approx(0.2)}


def test_calibration_counts_and_its_interval():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.15, 4000)
    converted = rng.random(4000) < p
    customer = np.arange(4000)
    right = drift.calibration(converted, p, customer, THRESHOLDS, draws=100)
    assert right["sum"] == pytest.approx(p.sum())
    assert right["ratio"]["value"] == pytest.approx(converted.sum() / p.sum(), rel=1e-5)
    assert right["ratio"]["low"] < 1 < right["ratio"]["high"]
    assert (right["ratio"]["status"], right["error"]["status"]) == ("stable", "stable")
    wrong = drift.calibration(converted, p * 1.5, customer, THRESHOLDS, draws=100)
    assert wrong["ratio"]["value"] == pytest.approx(right["ratio"]["value"] / 1.5, rel=1e-5)
    assert (wrong["ratio"]["status"], wrong["error"]["status"]) == ("alert", "alert")


def test_probabilities_right_in_sum_and_wrong_by_bin_are_found():
    rng = np.random.default_rng(1)
    p = np.repeat([0.02, 0.18], 3000)
    converted = rng.random(6000) < 0.1
    found = drift.calibration(converted, p, np.arange(6000), THRESHOLDS, draws=100)
    assert found["ratio"]["status"] == "stable"
    assert found["error"]["status"] == "alert"
    assert found["error"]["value"] == pytest.approx(0.08, abs=0.01)
    assert [kind["kind"] for kind in drift.alerts([], {"30": found})] == ["calibration_error"]


def test_conversions_of_few_customers_are_not_told():
    converted = np.zeros(1000, bool)
    converted[:15] = True
    found = drift.calibration(converted, np.full(1000, 0.1), np.arange(1000), THRESHOLDS, draws=10)
    assert found["conversions"] is None
    assert found["reason"] == "fewer than 20 customers have converted"
    assert drift.alerts([], {"30": found}) == []


def test_thresholds_are_strict(tmp_path):
    path = tmp_path / "t.yaml"
    text = (ROOT / "job_configs/monitor.yaml").read_text()
    path.write_text(text.replace("out_of_vocabulary: 0.02", "out_of_vocabulary: two"))
    with pytest.raises(UserError, match=r"t\.yaml:\d+: out_of_vocabulary: expected a valid number, got 'two'"):
        drift.load_thresholds(str(path))
