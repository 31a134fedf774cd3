"""The auxiliary loss: by hand, and never a look at what lies beyond."""

import numpy as np
import tensorflow as tf

from trainer.next_event import NextEvent
from trainer.schema import RecordSchema

SCHEMA = RecordSchema(4, {"page": 5}, ("log_gap",), {}, ())


def layer(kernel=0.0):
    made = NextEvent(SCHEMA, units=2)
    for variable in made.variables:
        variable.assign(tf.zeros(variable.shape))
    made.time.kernel.assign([[kernel], [0.0]])
    return made


def features(pages, gaps, length):
    return {
        "page": tf.constant(pages, tf.int64),
        "log_gap": tf.constant(gaps, tf.float32),
        "length": tf.constant(length, tf.int64),
    }


def test_loss_by_hand():
    """Untrained heads give every one of 5 ids ln 5; the time head says state[0], here 1, 2, 3, 4."""
    states = tf.constant([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]] * 3)
    batch = features(
        [[2, 3, 4, 1], [2, 3, 0, 0], [2, 0, 0, 0]], [[9.0, 1.5, 2.0, 1.0], [9.0, 1.0, 7.0, 7.0], [9.0] * 4], [4, 2, 1]
    )
    found = layer(kernel=1.0)(states, batch).numpy()
    squares = (0.5**2 + 0.0**2 + 2.0**2) / 3
    np.testing.assert_allclose(found, [(np.log(5) + squares) / 2, np.log(5) / 2, 0.0], rtol=1e-6)


def test_padding_and_empty_journeys_have_no_part():
    rng = np.random.default_rng(0)
    states = tf.constant(rng.normal(size=(2, 3, 2)), tf.float32)
    clean = features([[2, 3, 0, 0], [0, 0, 0, 0]], [[1.0, 2.0, 0.0, 0.0], [0.0] * 4], [2, 0])
    dirty = features([[2, 3, 4, 4], [4, 4, 4, 4]], [[1.0, 2.0, 5.0, 5.0], [5.0] * 4], [2, 0])
    made = NextEvent(SCHEMA, units=2)
    np.testing.assert_array_equal(made(states, clean).numpy(), made(states, dirty).numpy())
    assert made(states, dirty).numpy()[1] == 0
    assert made(states[:, :1], clean).numpy().tolist() == [0, 0]  # a batch of single events


def test_it_can_be_learnt_and_only_from_what_came_before():
    """What comes next is told by the state before it; the loss falls to nothing, and the last state has no gradient."""
    states = tf.Variable([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    batch = features([[2, 3, 2, 0]], [[0.0, 1.0, -1.0, 0.0]], [3])
    made = NextEvent(SCHEMA, units=2)
    first = float(made(states, batch)[0])
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(made(states, batch))
        for variable, gradient in zip(made.variables, tape.gradient(loss, made.variables), strict=True):
            variable.assign_sub(0.5 * gradient)
    assert float(made(states, batch)[0]) < 0.02 < first
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(states, batch))
    moved = np.abs(tape.gradient(loss, states).numpy()).sum(axis=2)[0]
    assert moved[0] > 0
    assert moved[2] == 0
