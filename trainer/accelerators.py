"""What a GPU asks of a training: that it is there, that the LSTM runs in cuDNN's kernel, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preprocessing.cli import UserError

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def require_gpu() -> None:
    """Raises UserError where TensorFlow sees no GPU: on the CPU the job would crawl on, at the GPU's price."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        built = "sees none on this machine" if tf.test.is_built_with_cuda() else "is built without CUDA"
        raise UserError(
            f"--require_gpu: TensorFlow {tf.__version__} {built}; expected a GPU, its driver and the CUDA libraries of "
            "deploy/gpu.lock (the trainer's image has them); without one, leave --require_gpu away"
        )


def cudnn_obstacles(lstm: keras.layers.LSTM) -> list[str]:
    """Why Keras would compute this LSTM step by step, many times slower, in place of cuDNN's kernel; [] where it won't.

    The conditions are Keras' own (keras.layers.LSTM, "the requirements to use the cuDNN implementation"): all but a
    mask, which is the call's.
    """
    import keras

    found = {
        "use_cudnn=False": not lstm.use_cudnn,
        "an activation that is not tanh": lstm.activation is not keras.activations.tanh,
        "a recurrent activation that is not sigmoid": lstm.recurrent_activation is not keras.activations.sigmoid,
        "recurrent dropout": lstm.recurrent_dropout > 0,
        "unrolling": lstm.unroll,
        "no bias": not lstm.use_bias,
    }
    return [reason for reason, holds in found.items() if holds]
