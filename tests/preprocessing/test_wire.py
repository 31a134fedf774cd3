"""Records by our own encoder against TensorFlow's reader of them."""

import numpy as np
import pyarrow as pa
import pytest


def batch(seed):
    rng = np.random.default_rng(seed)
    rows, steps = int(rng.integers(1, 40)), int(rng.integers(1, 200))
    texts = [bytes(rng.integers(0, 256, rng.integers(0, 300), dtype=np.uint8)) for _ in range(rows)]
    high = int(rng.choice([2, 128, 129, 2**14, 2**62]))
    flat = {
        "key": (1, pa.array([bytes(rng.integers(0, 256, 64, dtype=np.uint8)) for _ in range(rows)], pa.large_binary())),
        "text": (1, pa.array(texts, pa.large_binary())),
        "ids": (steps, pa.array(rng.integers(0, high, rows * steps), pa.int64())),
        "signed": (1, pa.array(rng.integers(-high, high, rows), pa.int64())),
        "b": (steps, pa.array(rng.standard_normal(rows * steps).astype(np.float32))),
        "days": (1, pa.array(np.full(rows, np.inf, np.float32))),
    }
    arrays = [pa.LargeListArray.from_arrays(pa.array(np.arange(rows + 1) * each), v) for each, v in flat.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(flat))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_what_tensorflow_reads(seed):
    import tensorflow as tf

    from preprocessing.wire import examples

    written = batch(seed)
    found = list(examples(written))
    assert len(found) == written.num_rows
    for i, record in enumerate(found):
        features = tf.train.Example.FromString(record).features.feature
        assert features.keys() == set(written.schema.names)
        for name, feature in features.items():
            value = list(getattr(feature, feature.WhichOneof("kind")).value)
            assert value == written.column(name)[i].as_py(), name
    # tf.data's reader is another one
    kinds = {
        "ids": tf.int64,
        "signed": tf.int64,
        "b": tf.float32,
        "days": tf.float32,
        "key": tf.string,
        "text": tf.string,
    }
    parsed = tf.io.parse_example(
        found, {name: tf.io.FixedLenFeature([each(written, name)], kinds[name]) for name in kinds}
    )
    for name, tensor in parsed.items():
        assert tensor.numpy().tolist() == written.column(name).to_pylist(), name


def each(written, name):
    return len(written.column(name)[0])


def test_the_order_of_columns_leaves_no_trace():
    from preprocessing.wire import examples

    written = batch(1)
    turned = written.select(written.schema.names[::-1])
    assert list(examples(written)) == list(examples(turned))
