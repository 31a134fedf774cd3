"""The hazard's arithmetic against values worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from trainer import hazard

INF = math.inf


def logit(*probabilities):
    return [[math.log(p / (1 - p)) for p in probabilities]]


def targets(days, observed, horizons=(7, 14, 30), gap=2):
    counts, converts = hazard.targets(
        tf.constant([days], tf.float32), tf.constant([observed], tf.float32), horizons, gap
    )
    return counts.numpy()[0].tolist(), converts.numpy()[0].tolist()


@pytest.mark.parametrize(
    ("days", "observed", "counts", "converts"),
    [
        (INF, 100.0, [1, 1, 1], [0, 0, 0]),
        (3.0, 100.0, [1, 0, 0], [1, 0, 0]),  # at risk no longer after converting
        (0.0, 100.0, [1, 0, 0], [1, 0, 0]),  # the interval holds its start …
        (7.0, 100.0, [1, 1, 0], [0, 1, 0]),  # … and not its end
        (29.5, 100.0, [1, 1, 1], [0, 0, 1]),
        (30.0, 100.0, [1, 1, 1], [0, 0, 0]),
        (INF, 32.0, [1, 1, 1], [0, 0, 0]),  # gap + 30 days are observed
        (INF, 31.999, [1, 1, 0], [0, 0, 0]),
        (3.0, 16.0, [1, 0, 0], [1, 0, 0]),
        (
            10.0,
            15.0,
            [1, 0, 0],
            [0, 0, 0],
        ),  # seen to convert, but its interval isn't observed to the end: does not count
        (3.0, 8.0, [0, 0, 0], [0, 0, 0]),
    ],
)
def test_what_each_interval_tells(days, observed, counts, converts):
    assert targets(days, observed) == (counts, converts)


def test_loss_by_hand():
    logits = tf.constant(logit(0.5, 0.25, 0.1) * 3, tf.float32)
    counts = tf.constant([[1, 1, 0], [1, 1, 1], [0, 0, 0]], tf.float32)
    converts = tf.constant([[0, 1, 0], [0, 0, 0], [0, 0, 0]], tf.float32)
    found = hazard.loss(logits, counts, converts, tf.constant([2.0, 1.0, 5.0])).numpy()
    expected = [2 * (math.log(2) + math.log(4)), -math.log(0.5 * 0.75 * 0.9), 0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_probabilities_by_hand():
    found = hazard.probabilities(tf.constant(logit(0.1, 0.2, 0.5), tf.float32)).numpy()
    np.testing.assert_allclose(found, [[0.1, 1 - 0.9 * 0.8, 1 - 0.9 * 0.8 * 0.5]], rtol=1e-6)


def test_small_and_large_probabilities_keep_their_digits():
    found = hazard.probabilities(tf.constant([[-30.0, -30.0], [200.0, -200.0], [-200.0, 200.0]])).numpy()
    rare = math.exp(-30)
    np.testing.assert_allclose(found[0], [rare, 2 * rare], rtol=1e-5)
    assert found[1:].tolist() == [[1.0, 1.0], [0.0, 1.0]]


def sampled(joint, rate):
    """Hazards after a share `rate` of never (the last of `joint`) was kept, by counting."""
    kept = [*joint[:-1], joint[-1] * rate]
    return [mass / sum(kept[i:]) for i, mass in enumerate(kept[:-1])]


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.1, 0.003])
def test_correction_gives_back_the_truth(rate):
    """A customer truly at 10 % in 7 days and 40 % in 30; the third's conversions are rarer than a thousandth."""
    truth = [[0.1, 0.3, 0.6], [0.0004, 0.0001, 0.9995], [0.3, 0.6, 0.1]]
    logits = tf.constant([logit(*sampled(joint, rate))[0] for joint in truth], tf.float32)
    found = hazard.probabilities(hazard.undo_negative_sampling(logits, rate)).numpy()
    np.testing.assert_allclose(found, [[0.1, 0.4], [0.0004, 0.0005], [0.3, 0.9]], rtol=2e-5)


def test_correction_horizon_by_horizon_would_be_wrong():
    sample = sampled([0.1, 0.3, 0.6], 0.1)
    assert sample[0] == pytest.approx(0.1 / 0.46)
    odds = sample[0] / (1 - sample[0]) * 0.1
    assert odds / (1 + odds) == pytest.approx(0.027, abs=0.001)  # what a shift of every logit by log(0.1) would say


@pytest.mark.parametrize("rate", [0.0, -0.1, math.nan])
def test_rate_out_of_bounds_is_refused(rate):
    with pytest.raises(ValueError, match="negative_rate"):
        hazard.undo_negative_sampling(tf.zeros((1, 2)), rate)


@pytest.mark.parametrize("rate", [1.0, 0.01])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_horizons_never_cross(rate, scale):
    logits = tf.random.stateless_normal((50_000, 8), seed=(1, 2), stddev=scale)
    found = hazard.probabilities(hazard.undo_negative_sampling(logits, rate)).numpy()
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_log_odds_where_outputs_start():
    found = hazard.log_odds(np.array([10.0, 0.0, 80.0]), np.array([100.0, 90.0, 80.0]))
    np.testing.assert_allclose(found, [math.log(1 / 9), math.log(0.5 / 89.5), math.log(79.5 / 0.5)], rtol=1e-6)
    assert found.dtype == np.float32


def test_weights_of_a_resampled_train_by_hand():
    days = tf.constant([3.0, 40.0, np.inf, 3.0, np.inf])
    observed = tf.constant([99.0, 99.0, 99.0, 20.0, 20.0])  # the last two are not watched for 2 + 30 days
    outcome = (days, observed, (7, 30), 2)
    found = hazard.class_weights(*outcome, negative_rate=0.1, positive_weight=5.0).numpy()
    assert found.tolist() == [5.0, 1.0, 1.0, 0.0, 0.0]
    untouched = hazard.class_weights(*outcome, negative_rate=1.0, positive_weight=1.0).numpy()
    assert untouched.tolist() == [1.0] * 5


def test_a_weighted_train_starts_at_its_own_rates():
    """100 journeys: 10 convert in the first interval, 6 in the second, 84 never; converters weigh 3."""
    found = hazard.log_odds(np.array([10.0, 6.0]), np.array([100.0, 90.0]), 3.0)
    np.testing.assert_allclose(found, [np.log(30 / (18 + 84)), np.log(18 / 84)], rtol=1e-6)


def test_a_weight_and_a_rate_are_undone_alike():
    """Exact: from 1,000,000 journeys' joint distribution, resampled and weighted, back to it."""
    truth = np.array([0.02, 0.03, 0.95])  # first interval, second, never
    tilted = truth * [5.0, 5.0, 0.1]
    tilted /= tilted.sum()
    hazards = np.array([tilted[0], tilted[1] / (1 - tilted[0])])
    logits = tf.constant(np.log(hazards / (1 - hazards))[None], tf.float32)
    found = hazard.probabilities(hazard.undo_negative_sampling(logits, 0.1 / 5.0)).numpy()
    np.testing.assert_allclose(found, [[0.02, 0.05]], rtol=1e-5)
    # the other way round: weights below one thin the converters
    thinned = truth * [0.5, 0.5, 1.0] / (truth @ [0.5, 0.5, 1.0])
    hazards = np.array([thinned[0], thinned[1] / (1 - thinned[0])])
    logits = tf.constant(np.log(hazards / (1 - hazards))[None], tf.float32)
    found = hazard.probabilities(hazard.undo_negative_sampling(logits, 2.0)).numpy()
    np.testing.assert_allclose(found, [[0.02, 0.05]], rtol=1e-5)
