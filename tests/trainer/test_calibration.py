"""Calibration finds the map that was planted, keeps order, and says nothing where eval says nothing."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import hazard
from trainer.calibration import Calibration, fit_calibration
from trainer.predictions import Predictions


def outcomes(logits, seed=0):
    """What happens to journeys whose hazards have these log odds: counts and converts, float32 [n, intervals]."""
    rng = np.random.default_rng(seed)
    falls = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    before = np.concatenate([np.zeros((len(logits), 1), bool), np.maximum.accumulate(falls, axis=1)[:, :-1]], axis=1)
    counts = ~before
    return counts.astype(np.float32), (falls & counts).astype(np.float32)


def fitted(logits, counts, converts):
    return fit_calibration(logits, counts, converts, np.ones(len(logits), np.float32))


def test_a_planted_map_is_found():
    rng = np.random.default_rng(1)
    told = rng.normal([-2.0, -3.0], 1.0, (200_000, 2)).astype(np.float32)
    truth = 0.5 * told + [-0.4, 0.3]  # overconfident, and shifted the other way in each interval
    calibration = fitted(told, *outcomes(truth))
    found = calibration(tf.constant(told)).numpy()
    np.testing.assert_allclose(calibration.slope, [0.5, 0.5], atol=0.02)
    assert np.abs(found - truth).max() < 0.15
    assert np.abs(told - truth).max() > 2


def test_probabilities_become_right_on_average_and_bin_by_bin():
    rng = np.random.default_rng(2)
    told = rng.normal(-3.0, 1.5, (300_000, 1)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(0.7 * told[:, 0] - 0.5)))
    calibration = fitted(told, *outcomes(0.7 * told - 0.5))
    p = hazard.probabilities(calibration(tf.constant(told))).numpy()[:, 0]
    assert p.sum() == pytest.approx(truth.sum(), rel=0.02)
    raw = 1 / (1 + np.exp(-told[:, 0]))
    bins = np.array_split(np.argsort(p), 15)
    assert max(abs(p[b].mean() - truth[b].mean()) / truth.mean() for b in bins) < 0.1
    assert max(abs(raw[b].mean() - truth[b].mean()) / truth.mean() for b in bins) > 0.5


def test_order_stays_and_horizons_never_cross():
    rng = np.random.default_rng(3)
    told = rng.normal(0, 4, (50_000, 3)).astype(np.float32)
    calibration = fitted(told, *outcomes(-told - 3))  # the worst map there can be: a falling one
    assert min(calibration.slope) > 0
    found = calibration(tf.constant(told)).numpy()
    for k in range(3):
        assert (np.diff(found[np.argsort(told[:, k]), k]) >= 0).all()
    assert (np.diff(hazard.probabilities(tf.constant(found)).numpy(), axis=1) >= 0).all()


def test_without_conversions_nothing_is_claimed():
    told = np.full((100, 2), -3.0, np.float32)
    nobody = np.zeros((100, 2), np.float32)
    assert fitted(told, nobody + 1, nobody) == Calibration.identity(2)
    assert Calibration.identity(2)(tf.constant(told)).numpy().tolist() == told.tolist()


def test_a_few_conversions_move_little():
    """Five conversions where three were told: a factor of 1.7 that chance alone explains."""
    told = np.full((100, 1), np.log(0.03 / 0.97), np.float32)
    converts = np.zeros((100, 1), np.float32)
    converts[:5] = 1
    found = fitted(told, np.ones((100, 1), np.float32), converts)
    p = float(hazard.probabilities(found(tf.constant(told[:1]))).numpy()[0, 0])
    assert 0.031 < p < 0.048


def test_rows_that_do_not_count_have_no_say():
    rng = np.random.default_rng(4)
    told = rng.normal(-2, 1, (5_000, 1)).astype(np.float32)
    counts, converts = outcomes(told)
    with_noise = np.concatenate([told, np.full((5_000, 1), 3.0, np.float32)])
    nothing = np.zeros((5_000, 1), np.float32)
    found = fitted(with_noise, np.concatenate([counts, nothing]), np.concatenate([converts, nothing]))
    assert found == fitted(told, counts, converts)


def test_no_number_is_refused():
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="finite"):
        fitted(one * np.nan, one, one)


def test_a_weight_is_a_repetition():
    rng = np.random.default_rng(5)
    told = rng.normal(-1, 1, (500, 2)).astype(np.float32)
    counts, converts = outcomes(0.6 * told - 0.5)
    weight = rng.integers(0, 4, 500)
    repeated = [np.repeat(one, weight, axis=0) for one in (told, counts, converts)]
    found = fit_calibration(told, counts, converts, weight.astype(np.float32))
    for name in ("slope", "shift", "centre"):
        assert getattr(found, name) == pytest.approx(getattr(fitted(*repeated), name), abs=1e-4)


def test_journeys_left_of_a_thinned_split_count_as_the_population():
    """100 of 1,000 convert, as was told of each; a tenth of the 900 others is left, of weight 10."""
    converts = np.arange(190) < 100
    days = np.where(converts, 5.0, np.inf).astype(np.float32)
    told = np.full((190, 1), np.log(0.1 / 0.9), np.float32)

    def mean(weight):
        labels = {"days_to_conversion": days, "observed_days": np.full(190, 40, np.float32), "weight": weight}
        raw = Predictions((30,), 0, told, hazard.probabilities(tf.constant(told)).numpy(), np.zeros(190), labels)
        calibration, found = raw.calibrated()
        return calibration, float(np.average(found.probabilities[:, 0], weights=weight))

    calibration, natural = mean(np.where(converts, 1, 10).astype(np.float32))
    assert calibration.shift == pytest.approx((0,), abs=1e-5)
    assert natural == pytest.approx(0.1, abs=1e-5)
    assert mean(np.ones(190, np.float32))[1] > 0.3  # without the weights: what was corrected is undone
