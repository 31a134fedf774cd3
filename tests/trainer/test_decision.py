"""Thresholds by cost and benefit, on journeys counted by hand."""

import numpy as np
import pytest

from preprocessing.cli import UserError
from trainer.bootstrap import Slice
from trainer.decision import best_threshold, decide, profit_curve
from trainer.metrics import Scores
from trainer.settings import parse, require_prices

# best first: 1 1 0 1 0 0 0 0 0 0
CONVERTED = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
PROBABILITY = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])


def decided(cost=None, value=None, draws=50, test=(CONVERTED, PROBABILITY)):
    part = Slice(np.arange(len(test[0])), {"lstm": Scores(*test)})
    return decide(
        Scores(CONVERTED, PROBABILITY), part, np.arange(len(test[0])),
        draws=draws, seed=0, contact_cost=cost, conversion_value=value,
    )  # fmt: skip


def test_the_threshold_that_earns_most_by_hand():
    # profits down the ranking at cost 2, value 5: 3, 6, 4, 7, 5, …
    assert best_threshold(Scores(CONVERTED, PROBABILITY), 2, 5) == pytest.approx(0.55)
    # at value 3.5: 1.5, 3, 1, 2.5, …
    assert best_threshold(Scores(CONVERTED, PROBABILITY), 2, 3.5) == pytest.approx(0.75)
    assert best_threshold(Scores(CONVERTED, PROBABILITY), 2, 1) is None
    # tied scores are contacted together: 2 conversions in 4 at 0.5 earn nothing beyond their cost
    assert best_threshold(Scores([1, 0, 1, 0], [0.5] * 4), 1, 2) is None
    assert best_threshold(Scores([1, 0, 1, 0], [0.5] * 4), 1, 3) == pytest.approx(0.25)
    # 8, 6, then 10 and 10 again: the fewer contacts
    assert best_threshold(Scores([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6]), 2, 10) == pytest.approx(0.65)
    assert best_threshold(Scores([], []), 1, 2) is None


def test_what_the_rules_bring_by_hand():
    (choice,) = decided(2, 5)["choices"]
    rules = choice["rules"]
    assert choice["value_over_cost"] == 2.5
    point = {rule: {key: one[key]["value"] for key in one if key != "threshold"} for rule, one in rules.items()}
    # 2/5: the journeys at 0.4 and above, six; three convert: 3 x 5 - 6 x 2 = 3 in ten journeys
    assert rules["break_even"]["threshold"] == 0.4
    assert point["break_even"] == {"contacted": 0.6, "precision": 0.5, "recall": 1.0, "profit_per_1000": 300.0}
    assert point["best_on_eval"] == {"contacted": 0.4, "precision": 0.75, "recall": 1.0, "profit_per_1000": 700.0}
    assert point["all"] == {"contacted": 1.0, "precision": 0.3, "recall": 1.0, "profit_per_1000": -500.0}
    assert rules["none"]["threshold"] is None
    assert point["none"] == {"contacted": 0.0, "precision": None, "recall": 0.0, "profit_per_1000": 0.0}
    bounds = rules["break_even"]["profit_per_1000"]
    assert bounds["low"] < 300 < bounds["high"]


def test_the_threshold_is_chosen_on_eval_whatever_test_holds():
    reversed_test = (CONVERTED[::-1].copy(), PROBABILITY)
    (choice,) = decided(2, 5, test=reversed_test)["choices"]
    assert choice["rules"]["best_on_eval"]["threshold"] == 0.55
    assert choice["rules"]["best_on_eval"]["profit_per_1000"]["value"] == -800.0


def test_without_prices_five_ratios_in_contact_costs():
    found = decided(draws=0)
    assert [one["value_over_cost"] for one in found["choices"]] == [5, 10, 20, 50, 100]
    assert [one["rules"]["break_even"]["threshold"] for one in found["choices"]] == [0.2, 0.1, 0.05, 0.02, 0.01]
    assert found["profit_in"] == "contact costs"
    # at 5 the eight at 0.2 and above: 3 x 5 - 8
    assert found["choices"][0]["rules"]["break_even"]["profit_per_1000"] == {"value": 700.0, "low": None, "high": None}


def test_the_interval_draws_customers():
    # one customer has all conversions: drawn or not, profit is all or nothing
    part = Slice(np.arange(10), {"lstm": Scores(CONVERTED, PROBABILITY)})
    one = decide(
        Scores(CONVERTED, PROBABILITY), part, np.where(CONVERTED, 0, 1 + np.arange(10)) % 8,
        draws=200, seed=0, contact_cost=2, conversion_value=5,
    )["choices"][0]["rules"]["best_on_eval"]["recall"]  # fmt: skip
    assert one["value"] == one["high"] == 1.0


def test_the_profit_curve_starts_at_nobody_and_ends_at_all():
    share, profit = profit_curve(Scores(CONVERTED, PROBABILITY), 2, 5)
    assert (share[0], profit[0]) == (0, 0)
    assert (share[-1], profit[-1]) == (1, -500)
    assert profit.max() == pytest.approx(700)


def test_prices_that_make_no_sense_are_refused():
    require_prices(None, None)
    require_prices(1, 2)
    for cost, value, message in (
        (1, None, "--contact_cost: expected --conversion_value beside it"),
        (None, 1, "--conversion_value: expected --contact_cost beside it"),
        (0, 1, "--contact_cost: expected a number above 0, got 0"),
        (1, float("nan"), "--conversion_value: expected a number above 0, got nan"),
        (3, 2, "--conversion_value: expected more than --contact_cost"),
    ):
        with pytest.raises(UserError, match=message):
            require_prices(cost, value)
        with pytest.raises(UserError, match=message):
            decided(cost, value)
    with pytest.raises(UserError, match="--conversion_value: expected more than --contact_cost"):
        parse(["--run_dir=x", "--contact_cost=3", "--conversion_value=2"])
