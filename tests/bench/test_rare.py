"""The check of rare purchases: its numbers of customers, its dates, its arithmetic."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import numpy as np
import pytest

from preprocessing.simulate import truth_days
from preprocessing.spec import parse_spec
from tests.bench import rare
from tests.bench.steps import ROOT


def test_so_many_customers_that_train_and_eval_hold_enough_conversions():
    # three snapshots each: 2,000 conversions at 0.1 % are 2,000,000 journeys, and 10 % more
    assert rare.customers_for(0.001, 2000) == 733_334
    assert rare.customers_for(0.02, 2000) == 36_667


def test_dates_lie_at_one_place_of_the_cycle_and_the_truth_knows_test():
    days = [(day - rare.FIRST).days for day in (*rare.TRAIN, *rare.EVAL, rare.TEST)]
    assert {day % 28 for day in days} == {7}
    assert truth_days(rare.FIRST, rare.LAST, rare.TRUTH_EVERY_DAYS) == [91, 259]
    assert days[-1] == 259


def test_no_label_reaches_into_the_next_part():
    spec = parse_spec(rare.spec_text())
    month = dt.timedelta(days=30)
    assert spec.embargo_days == 30
    assert [t.date() for t in spec.snapshots.instants if t + month <= spec.split.eval_from] == list(rare.TRAIN)
    in_eval = [t.date() for t in spec.snapshots.instants if spec.split.eval_from <= t <= spec.split.test_from - month]
    assert in_eval == list(rare.EVAL)
    assert spec.sampling.negative_rate == 0.1
    assert spec.data_until.date() >= rare.TEST + month


def test_the_gap_is_the_mean_over_bins_and_bins_count_once():
    # 30 journeys, 15 bins of two: each predicted 0.01 too high in one bin, right in the others
    truth = np.repeat(np.arange(1, 16) / 100, 2)
    probability = truth.copy()
    probability[-2:] += 0.03
    found = rare.held_against_truth(probability, truth)
    assert len(found["bins"]) == 15
    assert found["gap"] == pytest.approx(0.03 / 15)
    assert found["relative_gap"] == pytest.approx(0.03 / 15 / 0.08)
    assert found["sum_ratio"] == pytest.approx((2.4 + 0.06) / 2.4)
    assert found["bins"][-1]["predicted"] == pytest.approx(0.18)


def test_opposite_errors_within_a_bin_cancel_but_not_between_bins():
    middle = np.arange(1, 16) / 20
    probability = np.column_stack([middle - 0.001, middle + 0.001]).ravel()
    truth = np.column_stack([middle + 0.05, middle - 0.05]).ravel()
    truth[:2] += 0.04
    truth[-2:] -= 0.04
    found = rare.held_against_truth(probability, truth)
    assert found["sum_ratio"] == pytest.approx(1)
    assert found["gap"] == pytest.approx(0.08 / 15)


@pytest.mark.slow
def test_a_quick_run_walks_the_whole_way(tmp_path):
    words = [
        "--rates",
        "0.2",
        "--conversions",
        "100",
        "--quick",
        "--work",
        tmp_path / "w",
        "--output",
        tmp_path / "r.md",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.rare", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| 20.00% | 500 |" in done.stdout
    assert "(too few)" not in done.stdout
