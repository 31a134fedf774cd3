"""The discrete-time hazard: a logit per interval between horizons, its loss, and the probabilities that follow.

Interval k runs over [h_{k-1}, h_k) days, h_0 = 0, counted from as_of + gap. Its hazard is P(first conversion inside |
none before), so that P(conversion before h_k) = 1 - prod_{j<=k} (1 - hazard_j) can't fall as the horizon grows
(Singer & Willett 1993, "It's about time"; as a network's loss: Gensheimer & Narasimhan 2019, eq. 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def targets(
    days_to_conversion: tf.Tensor, observed_days: tf.Tensor, horizons: Sequence[int], gap: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """What each interval tells of each journey.

    days_to_conversion: float32 [batch], days from as_of + gap to the first conversion, inf where none was seen.
    observed_days: float32 [batch], days from as_of to the end of the data.
    horizons: days, increasing; gap: days.
    Returns (counts, converts), float32 [batch, intervals]: 1 where the interval is observed to its end and no
    conversion came before it; 1 where, moreover, the conversion falls inside it.
    """
    ends = tf.constant(horizons, tf.float32)
    starts = tf.concat([[0.0], ends[:-1]], axis=0)
    days = days_to_conversion[:, None]
    counts = tf.logical_and(observed_days[:, None] >= ends + float(gap), days >= starts)
    return tf.cast(counts, tf.float32), tf.cast(tf.logical_and(counts, days < ends), tf.float32)


def class_weights(
    days_to_conversion: tf.Tensor,
    observed_days: tf.Tensor,
    horizons: Sequence[int],
    gap: int,
    *,
    negative_rate: float,
    positive_weight: float,
) -> tf.Tensor:
    """What a train journey weighs, float32 [batch], so that `undo_negative_sampling` at the rate negative_rate /
    positive_weight gives the population back exactly.

    Converters within the longest horizon weigh positive_weight, known never-converters 1 (`negative_rate` of them are
    left). A journey whose longest horizon is not observed to its end is neither: it was drawn at another rate than
    either, and weighs nothing, unless nothing is resampled at all.
    """
    if negative_rate == 1 and positive_weight == 1:
        return tf.ones_like(observed_days)
    known = tf.cast(observed_days >= float(gap + horizons[-1]), tf.float32)
    return known * tf.where(days_to_conversion < float(horizons[-1]), positive_weight, 1.0)


def loss(logits: tf.Tensor, counts: tf.Tensor, converts: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Negative log likelihood of each journey: its intervals' cross-entropies, where they count, times its weight.

    logits, counts, converts: float32 [batch, intervals]; weight: float32 [batch]. Returns float32 [batch].
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=converts, logits=logits)
    return weight * tf.reduce_sum(counts * entropy, axis=1)


def undo_negative_sampling(logits: tf.Tensor, negative_rate: float) -> tf.Tensor:
    """Undoes the downsampling of never-converters, on the joint distribution over intervals and *never*.

    Where a share `negative_rate` of the journeys known never to convert was kept, the mass of never comes out too
    small by that factor: it is divided by the rate, and the whole renormalised (King & Zeng 2001, eq. 7, on the odds
    of never). A weight w on all converters is the same as a rate of 1 / w.
    With N_k = P(never | none up to the end of interval k) this is, hazard by hazard,
        logit'_k = logit_k - log(1 + N_k * (1 / negative_rate - 1)).
    The last interval shifts by log(negative_rate), earlier ones by less; shifting all alike would be wrong.

    logits: float32 [batch, intervals]. Returns the same at the rate of the whole population.
    Raises ValueError unless negative_rate is above 0.
    """
    if not negative_rate > 0:
        raise ValueError(f"negative_rate: expected above 0, got {negative_rate}")
    if negative_rate == 1:
        return logits
    survives = -tf.nn.softplus(logits)  # log(1 - hazard)
    never_after = tf.exp(tf.cumsum(survives, axis=1, exclusive=True, reverse=True))
    return logits - tf.math.log1p(never_after * (1 / negative_rate - 1))


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """P(conversion before each horizon), float32 [batch, intervals] from logits of that shape.

    Summed in log space, so that small probabilities keep their digits. No row falls, not by rounding either: the sum
    only ever adds what is not negative, and the maximum undoes what expm1's vector and scalar code may differ by.
    """
    log_survival = tf.zeros_like(logits[:, 0])
    columns: list[tf.Tensor] = []
    for interval in range(logits.shape[1]):
        log_survival = log_survival - tf.nn.softplus(logits[:, interval])
        probability = -tf.math.expm1(log_survival)
        columns.append(tf.maximum(probability, columns[-1]) if columns else probability)
    return tf.stack(columns, axis=1)


def log_odds(events: np.ndarray, at_risk: np.ndarray, positive_weight: float = 1.0) -> np.ndarray:
    """Where an output's bias starts: the log odds of each interval's hazard in train, float32 [intervals].

    events, at_risk: float64 [intervals], weighted counts of journeys; at_risk above 0. An interval without (or with
    nothing but) conversions starts at half a journey, since its log odds have no end. positive_weight: as
    class_weights gives it to every converter, those who convert in a later interval among them.
    """
    later = np.cumsum(events[::-1])[::-1]  # converters of this interval and those after it
    at_risk = at_risk + (positive_weight - 1) * np.minimum(later, at_risk)
    events = events * positive_weight
    half = np.minimum(0.5, at_risk / 4)
    hazards = np.clip(events, half, at_risk - half) / at_risk
    return np.log(hazards / (1 - hazards)).astype(np.float32)
