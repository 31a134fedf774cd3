"""TensorFlow Serving's REST row form, as its json_tensor.cc reads it, in front of a loaded SavedModel.

What it refuses is refused here: inputs that are not exactly the signature's, lists of another size than the first
row's, a number where text is wanted, an integer that a float32 cannot hold, null. NaN is read.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import tensorflow as tf

_FLOAT_INTEGERS = 2**24 - 1


def predict(signatures: dict[str, Any], body: str | bytes) -> dict[str, Any]:
    """{"predictions": […]} for a request's body. Raises ValueError for what TensorFlow Serving answers with 400."""
    request = json.loads(body)  # Python's parser takes NaN, as rapidjson does with kParseNanAndInfFlag
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list) or not request["instances"]:
        raise ValueError("expected an object with a list of instances")
    signature = signatures[request.get("signature_name", "serving_default")]
    specs = signature.structured_input_signature[1]
    arrays = _arrays(request["instances"], specs)
    outputs = {name: value.numpy() for name, value in signature(**arrays).items()}
    return {"predictions": [_row(outputs, i) for i in range(len(request["instances"]))]}


def _arrays(instances: list[Any], specs: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not named and len(specs) > 1:
        raise ValueError("instances is a plain list, but several inputs are named")
    gathered: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    for i, instance in enumerate(instances):
        if (isinstance(instance, dict) and not _is_base64(instance)) != named:
            raise ValueError(f"element {i}: objects and values are mixed")
        row = instance if named else {next(iter(specs)): instance}
        if row.keys() != specs.keys():
            raise ValueError(f"element {i}: keys must be equal to {', '.join(sorted(specs))}")
        for name, value in row.items():
            array = _dense(value, specs[name].dtype)
            if gathered[name] and gathered[name][0].shape != array.shape:
                raise ValueError(f"element {i}, {name}: expecting shape {gathered[name][0].shape} got {array.shape}")
            gathered[name].append(array)
    return {name: tf.constant(np.stack(arrays), specs[name].dtype) for name, arrays in gathered.items()}


def _dense(value: Any, dtype: tf.DType) -> np.ndarray:
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    flat: list[Any] = []
    _fill(value, shape, 0, dtype, flat)
    made = np.empty(len(flat), object if dtype == tf.string else dtype.as_numpy_dtype)
    made[:] = flat
    return made.reshape(shape)


def _fill(value: Any, shape: list[int], level: int, dtype: tf.DType, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise ValueError(f"a value at level {level}, expected at {len(shape)}")
        flat.append(_leaf(value, dtype))
        return
    if level >= len(shape) or len(value) != shape[level]:
        raise ValueError(f"a list of unexpected size {len(value)} at level {level}")
    for one in value:
        _fill(one, shape, level + 1, dtype, flat)


def _leaf(value: Any, dtype: tf.DType) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype == tf.string and isinstance(value, str):
        return value.encode()
    if dtype == tf.string and _is_base64(value):
        return base64.b64decode(value["b64"], validate=True)
    if dtype == tf.int64 and number and isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if dtype == tf.float32 and number:
        if isinstance(value, int) and abs(value) > _FLOAT_INTEGERS:
            raise ValueError(f"cannot convert {value} to float without loss of precision")
        return value
    raise ValueError(f"a {type(value).__name__} is not of expected type {dtype.name}")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _row(outputs: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    return {
        name: values[i].decode() if isinstance(values[i], bytes) else values[i].tolist()
        for name, values in outputs.items()
    }
