"""What the network may see, and what it must not mind."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.calibration import Calibration
from trainer.model import JourneyModel, Scorer, copy_for_serving, embedding_width
from trainer.schema import RecordSchema
from trainer.settings import Settings

SCHEMA = RecordSchema(5, {"event_type": 6}, ("amount", "log_to_as_of"), {"segment": 4}, ("age",))
SETTINGS = Settings(lstm_units=8, dense_units=8)
BIAS = np.log([0.1 / 0.9, 0.02 / 0.98]).astype(np.float32)


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    model = JourneyModel(SCHEMA, SETTINGS, BIAS)
    for variable in model.trainable_variables:  # the outputs start at a constant, which would hide everything here
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, seed=5))
    return model


def features(lengths, seed=0, padding=0.0):
    rng = np.random.default_rng(seed)
    rows = len(lengths)
    inside = np.arange(5) < np.asarray(lengths)[:, None]
    return {
        "event_type": tf.constant(np.where(inside, rng.integers(1, 6, (rows, 5)), int(padding)), tf.int64),
        "amount": tf.constant(np.where(inside, rng.normal(size=(rows, 5)), padding), tf.float32),
        "log_to_as_of": tf.constant(np.where(inside, rng.normal(size=(rows, 5)), padding), tf.float32),
        "segment": tf.constant(rng.integers(1, 4, rows), tf.int64),
        "age": tf.constant(rng.normal(size=rows), tf.float32),
        "length": tf.constant(lengths, tf.int64),
    }


def rows(batch, *numbers):
    return {name: tf.gather(value, list(numbers)) for name, value in batch.items()}


def test_starts_at_the_base_rates_of_train():
    model = JourneyModel(SCHEMA, SETTINGS, BIAS)
    found = Scorer(model, 1.0).probabilities(features([5, 2, 0])).numpy()
    np.testing.assert_allclose(found, [[0.1, 1 - 0.9 * 0.98]] * 3, rtol=1e-6)


def test_padding_is_not_seen(model):
    clean, dirty = features([5, 3, 1, 0]), features([5, 3, 1, 0], padding=4.0)
    np.testing.assert_array_equal(model(clean).numpy(), model(dirty).numpy())


def test_a_journey_is_scored_alike_in_any_company(model):
    batch = features([5, 3, 1, 0])
    alone = np.concatenate([model(rows(batch, i)).numpy() for i in range(4)])
    np.testing.assert_allclose(model(batch).numpy(), alone, atol=1e-6)


def test_order_time_and_customer_matter(model):
    batch = features([5])
    start = model(batch).numpy()
    for name in ("event_type", "amount", "log_to_as_of"):
        assert np.abs(model(batch | {name: batch[name][:, ::-1]}).numpy() - start).max() > 1e-4, name
    for name in ("segment", "age"):
        assert np.abs(model(batch | {name: batch[name] + 1}).numpy() - start).max() > 1e-4, name


def test_the_last_event_is_read(model):
    batch = features([5, 3])
    for row, last in ((0, 4), (1, 2)):
        changed = batch["log_to_as_of"].numpy()
        changed[row, last] += 1
        moved = np.abs(model(batch | {"log_to_as_of": tf.constant(changed)}).numpy() - model(batch).numpy()).max(axis=1)
        assert moved[row] > 1e-4
        assert moved[1 - row] < 1e-6


def test_an_empty_journey_is_told_from_its_customer(model):
    batch = features([0, 0], padding=0.0)
    found = model(batch).numpy()
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_correction_is_inside_the_scorer(model):
    batch = features([5, 3])
    plain, corrected = (Scorer(model, rate).probabilities(batch).numpy() for rate in (1.0, 0.1))
    never, never_corrected = 1 - plain[:, -1], 1 - corrected[:, -1]
    np.testing.assert_allclose(never_corrected / (1 - never_corrected), never / (1 - never) * 10, rtol=1e-4)


def test_horizons_never_cross_on_a_million_random_journeys():
    several = JourneyModel(SCHEMA, SETTINGS, np.repeat(BIAS, 3))
    for number, variable in enumerate(several.trainable_variables):
        variable.assign(variable + keras.random.normal(variable.shape, stddev=2.0, seed=number))
    calibration = Calibration((0.6, 1.0, 1.7, 0.9, 1.1, 1.3), (-0.5, 0.4, 0.0, 0.2, -0.3, 0.1), (-2.0,) * 6)
    score = tf.function(Scorer(several, 0.1, calibration).probabilities, reduce_retracing=True)
    lengths = np.random.default_rng(0).integers(0, 6, 100_000)
    least, spread = np.inf, 0.0
    for seed in range(10):
        found = score(features(lengths, seed)).numpy()
        assert np.isfinite(found).all()
        least, spread = min(least, np.diff(found, axis=1).min()), max(spread, np.ptp(found))
    assert least >= 0
    assert spread > 0.99  # from the surest to the unlikeliest, so that it says something


def test_copy_for_serving_computes_the_same(model):
    batch = features([5, 3, 1, 0])
    copy = copy_for_serving(model, SETTINGS)
    assert [member.lstm.use_cudnn for member in copy.members] == [False]
    np.testing.assert_array_equal(copy(batch).numpy(), model(batch).numpy())


def test_several_members_answer_with_their_mean(model):
    batch, settings = features([5, 3, 0]), dataclasses.replace(SETTINGS, members=3)
    several = JourneyModel(SCHEMA, settings, BIAS)
    for number, member in enumerate(several.members):
        for variable in member.trainable_variables:
            variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, seed=number))
    alone = np.array([member(batch).numpy() for member in several.members])
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(several(batch).numpy(), alone.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(copy_for_serving(several, settings)(batch).numpy(), several(batch).numpy())


def test_dropout_only_while_training(model):
    batch = features([5, 3])
    np.testing.assert_array_equal(model(batch).numpy(), model(batch).numpy())
    assert np.abs(model(batch, training=True).numpy() - model(batch).numpy()).max() > 1e-4


@pytest.mark.parametrize(("size", "width"), [(3, 3), (14, 7), (100, 21), (40_000, 32)])
def test_embeddings_grow_with_the_vocabulary(size, width):
    assert embedding_width(size, 32) == width
