"""The placebo of a targeted campaign: an "effect" on conversions before it, where there can be none.

Everyone's journey is cut off h days before the assignment, and scored anew by the same out-of-fold networks; the
conversions of those h days are the outcome. An adjusted difference that is far from 0 says that those chosen were
other customers already, in a way that the journey until then does not tell. It does not say which way the estimate
itself errs: that one is adjusted for the last h days, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from preprocessing.blocks import ASKED, NONE
from preprocessing.padded import padded
from preprocessing.rundir import RunDir
from preprocessing.spec import DAY_US, EventsSpec
from trainer import learners
from trainer.assignments import Assigned
from trainer.crossfit import CrossFitted, asked_ids, scoring
from trainer.effects import basis_of, told
from trainer.outcomes import Outcomes, matched, read_outcomes
from trainer.propensity import doubly_robust, kept, overlap
from trainer.raw_journeys import Arrays
from trainer.schema import RecordSchema

_BATCH = 1_024


def placebo(rows: Assigned, fitted: CrossFitted, run_dir: RunDir, spec: EventsSpec) -> dict[str, Any]:
    """{"days", "effect", "passed", "reason"} of one campaign's assignments (rows, of known outcome).

    effect: the doubly robust estimate on conversions of the `days` before; passed: whether its interval holds 0, None
    where reason says why there is none. Customer fields stay those of the assignment.
    """
    days = spec.primary_horizon
    found: dict[str, Any] = {"days": days, "effect": None, "passed": None, "reason": ""}
    if spec.snapshots.lookback_days <= days:
        return found | {
            "reason": f"a lookback of {spec.snapshots.lookback_days} days leaves nothing before {days} days"
        }
    before = dataclasses.replace(rows, converted=rows.days_since_conversion < days)
    if min(before.converted.sum(), len(before) - before.converted.sum()) < 2 * learners.LEAST:
        return found | {"reason": "too few conversions before the assignments"}
    earlier = _rescored(before, fitted, run_dir, spec, days)
    basis = basis_of(earlier, len(fitted.networks))
    if not overlap(basis.propensities, earlier.treated).holds:
        return found | {"reason": "the earlier journeys of treated and held-out customers do not overlap"}
    arms = learners.arms(basis.rich, earlier.converted, earlier.treated, basis.folds)
    inside = kept(basis.propensities)
    one = earlier.take(inside)
    effect = doubly_robust(
        one.converted,
        one.treated,
        basis.propensities[inside],
        (arms[0][inside], arms[1][inside]),
        customer=one.customer,
    )
    return found | {"effect": told(effect), "passed": not effect.excludes_zero}


def cut_off(arrays: Arrays, sequence: tuple[str, ...], days: int) -> Arrays:
    """The journeys as they were `days` before their as_of: as_of moved, later events gone. Events lie oldest first."""
    as_of = arrays["as_of"] - days * DAY_US
    inside = np.arange(arrays["event_time"].shape[1]) < arrays["length"][:, None]
    length = (inside & (arrays["event_time"] < as_of[:, None])).sum(axis=1)
    steps = max(1, int(length.max(initial=0)))
    return arrays | {name: arrays[name][:, :steps] for name in sequence} | {"as_of": as_of, "length": length}


def earlier_journeys(journeys: Path, split: str, spec: EventsSpec, wanted: Outcomes, days: int) -> Iterator[Arrays]:
    """Yields the wanted journeys as they were `days` before, some at a time, as raw_journeys.read_padded has them; in
    the order of the files, which are read once."""
    sequence = ("event_time", *spec.sequence.categorical, *spec.sequence_numeric)
    columns = ("as_of", *sequence, *spec.customer_categorical, *spec.customer_numeric)
    for _, batch in matched(journeys, split, wanted, columns):
        for start in range(0, batch.num_rows, _BATCH):
            yield cut_off(padded(batch.slice(start, _BATCH), spec.kinds), sequence, days)


def _rescored(rows: Assigned, fitted: CrossFitted, run_dir: RunDir, spec: EventsSpec, days: int) -> Assigned:
    """The rows with scores and states of their journeys `days` earlier."""
    schema = RecordSchema.load(run_dir.transform)
    graph = tf.saved_model.load(str(run_dir.transform / "transform_fn"))
    sequence = ("event_time", *spec.sequence.categorical, *spec.sequence_numeric)
    scalars = (*spec.customer_categorical, *spec.customer_numeric)
    place = {journey.encode(): row for row, journey in enumerate(rows.journey_id)}
    mine = pa.array(rows.journey_id.tolist(), pa.string())
    targets: list[np.ndarray] = [rows.without.copy(), rows.with_it.copy(), rows.state.copy()]
    at = spec.horizons_days.index(spec.primary_horizon)
    score = {network.fold: scoring(network.scorer, at) for network in fitted.networks}
    none = tf.constant(asked_ids(np.array([NONE]), fitted.vocabulary[ASKED])[0])
    for split in spec.splits:
        outcomes = read_outcomes(run_dir.journeys, split)
        wanted = outcomes.take(np.flatnonzero(pc.is_in(outcomes.journey_id, value_set=mine)))
        for arrays in earlier_journeys(run_dir.journeys, split, spec, wanted, days):
            raw = {name: tf.constant(arrays[name]) for name in (*scalars, "as_of")}
            lengths = tf.constant(arrays["length"])
            raw |= {name: tf.RaggedTensor.from_tensor(tf.constant(arrays[name]), lengths) for name in sequence}
            made = graph.transform_fn(raw)
            features = {name: made[name] for name in schema.names}
            chosen = np.array([place[key] for key in arrays["key"]])
            for fold, network in score.items():
                there = np.flatnonzero(rows.network[chosen] == fold)
                if len(there):
                    asked = asked_ids(rows.campaign[chosen[there]], fitted.vocabulary[ASKED])
                    part = {name: tf.gather(value, there) for name, value in features.items()}
                    answers = network(part, none, tf.constant(asked))
                    for target, answer in zip(targets, answers, strict=True):
                        target[chosen[there]] = answer.numpy()
    return dataclasses.replace(rows, without=targets[0], with_it=targets[1], state=targets[2])
