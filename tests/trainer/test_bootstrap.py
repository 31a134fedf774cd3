"""The bootstrap by customer: draws, pairing, width, coverage."""

import numpy as np
import pytest

from trainer.bootstrap import Slice, customer_weights, difference, estimate, interval, intervals
from trainer.metrics import METRICS, Scores

KEY = ("test", 30)


def measured(converted, probability, customer, draws=200, seed=0, **others):
    rows = np.arange(len(converted))
    models = {"lstm": Scores(converted, probability)} | {k: Scores(converted, p) for k, p in others.items()}
    return estimate({KEY: Slice(rows, models)}, np.asarray(customer), draws, seed)[KEY]


def width(estimate, name):
    found = intervals(estimate)[name]
    return found["high"] - found["low"]


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.beta(1, 4, size=n)
    return rng.random(n) < probability, probability


def test_a_draw_takes_customers_whole_and_as_many_as_there_are():
    customer = np.array([0, 0, 1, 2, 2, 2, 3])
    draws = list(customer_weights(customer, 50, seed=1))
    assert len(draws) == 50
    for weight in draws:
        by_customer = {int(c): set(weight[customer == c]) for c in customer}
        assert all(len(found) == 1 for found in by_customer.values())
        assert sum(found.pop() for found in by_customer.values()) == 4
    again = list(customer_weights(customer, 50, seed=1))
    assert all((one == other).all() for one, other in zip(draws, again, strict=True))


def test_one_journey_a_customer_is_the_usual_bootstrap():
    converted, probability = sample(2000)
    found = measured(converted, probability, np.arange(2000), draws=400)["lstm"]
    # the standard error of a mean by the formula, against that of the draws
    for name, values in (("brier", (probability - converted) ** 2), ("base_rate", converted.astype(float))):
        draws = found.draws[:, METRICS.index(name)]
        assert draws.std() == pytest.approx(values.std() / np.sqrt(2000), rel=0.12)


def test_copies_of_a_customers_journeys_bring_no_news():
    converted, probability = sample(800)
    once = measured(converted, probability, np.arange(800))["lstm"]
    copied = np.tile(converted, 4), np.tile(probability, 4)
    by_customer = measured(*copied, np.tile(np.arange(800), 4))["lstm"]
    by_row = measured(*copied, np.arange(3200))["lstm"]
    for name in ("roc_auc", "log_loss", "base_rate"):
        assert width(by_customer, name) == pytest.approx(width(once, name), rel=1e-6)
        assert width(by_row, name) == pytest.approx(width(once, name) / 2, rel=0.25)


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    covered = 0
    for trial in range(150):
        rng = np.random.default_rng(trial)
        customer = np.repeat(np.arange(120), 3)
        level = rng.beta(1, 3, size=120)[customer]  # customers differ: journeys of one resemble one another
        found = measured(rng.random(360) < level, np.full(360, 0.25), customer, draws=120, seed=trial)["lstm"]
        bounds = intervals(found)["base_rate"]
        covered += bounds["low"] <= 0.25 <= bounds["high"]
    assert 0.88 <= covered / 150 <= 0.99


def test_identical_models_differ_by_exactly_nothing():
    converted, probability = sample(500)
    found = measured(converted, probability, np.arange(500) % 100, gradient_boosting=probability.copy())
    for name in ("roc_auc", "pr_auc", "log_loss"):
        assert difference(name, found["lstm"], found["gradient_boosting"]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_pairing_makes_the_difference_of_like_models_narrow():
    converted, probability = sample(1500)
    rng = np.random.default_rng(2)
    like = np.clip(probability + rng.normal(0, 0.01, size=1500), 0, 1)
    found = measured(converted, probability, np.arange(1500), other=like)
    paired = difference("roc_auc", found["lstm"], found["other"])
    assert paired["high"] - paired["low"] < width(found["lstm"], "roc_auc") / 5


def test_slices_see_the_same_draws():
    converted, probability = sample(400)
    rows = np.flatnonzero(np.arange(400) % 2)
    whole, half = Scores(converted, probability), Scores(converted[rows], probability[rows])
    customer = np.arange(400) // 2  # each customer has a journey in the half
    slices = {KEY: Slice(np.arange(400), {"lstm": whole}), ("half", 30): Slice(rows, {"lstm": half})}
    found = estimate(slices, customer, 30, seed=5)
    weights = list(customer_weights(customer, 30, seed=5))
    for draw, weight in enumerate(weights):
        assert found["half", 30]["lstm"].draws[draw] == pytest.approx(half.evaluate(weight[rows]), nan_ok=True)


def test_the_calibration_errors_interval_is_mirrored():
    draws = np.linspace(0.010, 0.020, 101)
    assert interval("brier", 0.012, draws) == {"value": 0.012, "low": 0.01025, "high": 0.01975}
    mirrored = interval("calibration_error", 0.012, draws)
    assert (mirrored["low"], mirrored["high"]) == pytest.approx((0.00425, 0.01375))


def test_no_interval_without_draws_or_where_most_draws_define_nothing():
    assert interval("roc_auc", 0.7, np.zeros(0)) == {"value": 0.7, "low": None, "high": None}
    assert interval("roc_auc", 0.7, np.array([0.7, np.nan, np.nan])) == {"value": 0.7, "low": None, "high": None}
    assert interval("roc_auc", np.nan, np.array([0.7, 0.7])) == {"value": None, "low": None, "high": None}
    assert estimate({KEY: Slice(np.zeros(0, int), {"lstm": Scores([], [])})}, np.zeros(0, int), 5, 0)
