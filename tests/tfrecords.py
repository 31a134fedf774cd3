"""TFRecord files, read without TensorFlow."""

from __future__ import annotations

import gzip
import struct


def records(content: bytes) -> list[bytes]:
    """The records of a gzip TFRecord file's bytes: each is its length, a checksum, the data, another checksum."""
    data, found, at = gzip.decompress(content), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return found


def assert_same_records(here: bytes, there: bytes, *, in_any_order: bool = False) -> None:
    """The same journeys, with the same features: each tf.Example is a map, whose order says nothing.

    in_any_order: of the journeys, where streams brought them that nothing orders among each other.

    Fractions may differ in the last digits, as sums over train do where workers add them up in another order.
    """
    import numpy as np
    import tensorflow as tf

    found, wanted = ([tf.train.Example.FromString(one) for one in records(content)] for content in (here, there))
    if in_any_order:
        for examples in (found, wanted):
            examples.sort(key=lambda one: one.features.feature["journey_id"].bytes_list.value[0])
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        features, others = one.features.feature, other.features.feature
        assert features.keys() == others.keys()
        for name in features:
            if features[name].WhichOneof("kind") == "float_list":
                values = (features[name].float_list.value, others[name].float_list.value)
                np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                assert features[name] == others[name], name
