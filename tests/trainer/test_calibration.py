"""Calibration finds the map that was planted, keeps order, and says nothing where eval says nothing."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import hazard
from trainer.calibration import Calibration, fit_calibration


def outcomes(logits, seed=0):
    """What happens to journeys whose hazards have these log odds: counts and converts, float32 [n, intervals]."""
    rng = np.random.default_rng(seed)
    falls = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    before = np.concatenate([np.zeros((len(logits), 1), bool), np.maximum.accumulate(falls, axis=1)[:, :-1]], axis=1)
    counts = ~before
    return counts.astype(np.float32), (falls & counts).astype(np.float32)


def test_a_planted_map_is_found():
    rng = np.random.default_rng(1)
    told = rng.normal([-2.0, -3.0], 1.0, (200_000, 2)).astype(np.float32)
    truth = 0.5 * told + [-0.4, 0.3]  # overconfident, and shifted the other way in each interval
    calibration = fit_calibration(told, *outcomes(truth))
    found = calibration(tf.constant(told)).numpy()
    np.testing.assert_allclose(calibration.slope, [0.5, 0.5], atol=0.02)
    assert np.abs(found - truth).max() < 0.15
    assert np.abs(told - truth).max() > 2


def test_probabilities_become_right_on_average_and_bin_by_bin():
    rng = np.random.default_rng(2)
    told = rng.normal(-3.0, 1.5, (300_000, 1)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(0.7 * told[:, 0] - 0.5)))
    calibration = fit_calibration(told, *outcomes(0.7 * told - 0.5))
    p = hazard.probabilities(calibration(tf.constant(told))).numpy()[:, 0]
    assert p.sum() == pytest.approx(truth.sum(), rel=0.02)
    raw = 1 / (1 + np.exp(-told[:, 0]))
    bins = np.array_split(np.argsort(p), 15)
    assert max(abs(p[b].mean() - truth[b].mean()) / truth.mean() for b in bins) < 0.1
    assert max(abs(raw[b].mean() - truth[b].mean()) / truth.mean() for b in bins) > 0.5


def test_order_stays_and_horizons_never_cross():
    rng = np.random.default_rng(3)
    told = rng.normal(0, 4, (50_000, 3)).astype(np.float32)
    calibration = fit_calibration(told, *outcomes(-told - 3))  # the worst map there can be: a falling one
    assert min(calibration.slope) > 0
    found = calibration(tf.constant(told)).numpy()
    for k in range(3):
        assert (np.diff(found[np.argsort(told[:, k]), k]) >= 0).all()
    assert (np.diff(hazard.probabilities(tf.constant(found)).numpy(), axis=1) >= 0).all()


def test_without_conversions_nothing_is_claimed():
    told = np.full((100, 2), -3.0, np.float32)
    nobody = np.zeros((100, 2), np.float32)
    assert fit_calibration(told, nobody + 1, nobody) == Calibration.identity(2)
    assert Calibration.identity(2)(tf.constant(told)).numpy().tolist() == told.tolist()


def test_a_few_conversions_move_little():
    """Five conversions where three were told: a factor of 1.7 that chance alone explains."""
    told = np.full((100, 1), np.log(0.03 / 0.97), np.float32)
    converts = np.zeros((100, 1), np.float32)
    converts[:5] = 1
    found = fit_calibration(told, np.ones((100, 1), np.float32), converts)
    p = float(hazard.probabilities(found(tf.constant(told[:1]))).numpy()[0, 0])
    assert 0.031 < p < 0.048


def test_rows_that_do_not_count_have_no_say():
    rng = np.random.default_rng(4)
    told = rng.normal(-2, 1, (5_000, 1)).astype(np.float32)
    counts, converts = outcomes(told)
    with_noise = np.concatenate([told, np.full((5_000, 1), 3.0, np.float32)])
    nothing = np.zeros((5_000, 1), np.float32)
    found = fit_calibration(with_noise, np.concatenate([counts, nothing]), np.concatenate([converts, nothing]))
    assert found == fit_calibration(told, counts, converts)


def test_no_number_is_refused():
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="finite"):
        fit_calibration(one * np.nan, one, one)
