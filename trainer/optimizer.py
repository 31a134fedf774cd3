"""The optimizer: AdamW, whose rate warms up and falls; the loss is scaled where gradients pass through float16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.settings import Settings

_WARM_UP = 0.05  # share of all steps


def adamw(settings: Settings, steps: int, weights: Sequence[keras.Variable]) -> keras.Optimizer:
    """AdamW whose rate warms up, then falls by a cosine to zero at step `steps`, the last there may be.

    In mixed_float16 it is wrapped by Keras' LossScaleOptimizer: small gradients would be 0 there.
    """
    warm_up = max(1, round(_WARM_UP * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
        decay_steps=max(1, steps - warm_up),
    )
    optimizer: keras.Optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "no_events"])
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(list(weights))
    return optimizer


def loss_scale(optimizer: keras.Optimizer) -> Any:
    """What a loss is to be multiplied by before its gradients are taken, and what they are then to be multiplied by
    when they are applied: a step in which one of them is no number is left out, and the scale halved."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return tf.convert_to_tensor(optimizer.dynamic_scale)
    return 1.0
