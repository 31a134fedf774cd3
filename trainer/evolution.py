"""A handful of test journeys told event by event: how each one's probability moved, and what is predicted from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.spec import AnySpec
from trainer.metrics import Floats
from trainer.outcomes import Outcomes
from trainer.raw_journeys import Arrays, read_padded

Evolve = Callable[[Arrays], Arrays]
POOL = 32  # converters among whom the largest rise is looked for
FEWEST_EVENTS = 3
RULES = {
    "sure": "The highest probability among those that converted",
    "false_alarm": "The highest probability among those that did not convert",
    "rise": f"The largest rise over the journey, among {POOL} that converted (those with the smallest id)",
    "surprise": "The lowest probability among those that converted",
    "median": "The median probability",
    "lowest": "The lowest probability",
}


@dataclass(frozen=True)
class Told:
    """One journey's evolution; probabilities by horizon, times int64 UTC microseconds.

    rule: of RULES; days: days from as_of + gap to the conversion, inf where none was seen; event_time [r], event [r]:
    the events that the model sees and their first categorical field; running [r, horizons]: the probability just after
    each; curve_days [d], curve [d]: P(converts within so many days).
    """

    rule: str
    journey_id: str
    customer_key: str
    as_of: int
    days: float
    observed: float
    event_time: NDArray[np.int64]
    event: list[str]
    running: Floats
    curve_days: Floats
    curve: Floats


def exported(model: Path) -> Evolve:
    """What the exported model's signature `evolution` answers, asked as a server would."""
    import tensorflow as tf

    answer = tf.saved_model.load(str(model)).signatures["evolution"]

    def ask(arrays: Arrays) -> Arrays:
        found = answer(**{name: tf.constant(values) for name, values in arrays.items()})
        return {name: values.numpy() for name, values in found.items()}

    return ask


def tell(journeys: Path, spec: AnySpec, test: Outcomes, probability: Floats, evolve: Evolve) -> list[Told]:
    """At most one journey a rule, in RULES' order, each customer once.

    test: the scored journeys; probability: float64 [n], at the primary horizon. evolve: padded arrays to days, curve,
    running_time, running_length and running, as the SavedModel's signature `evolution`. Only journeys of FEWEST_EVENTS
    events or more whose outcome is known are told: a shorter one has no evolution.
    """
    found = chosen(journeys, spec, test, probability, evolve)
    if not found:
        return []
    outcomes = test.take(np.array(list(found.values())))
    arrays = read_padded(journeys, "test", spec, outcomes)
    answer = evolve(arrays)
    return [_told(i, rule, spec=spec, outcomes=outcomes, arrays=arrays, answer=answer) for i, rule in enumerate(found)]


def chosen(journeys: Path, spec: AnySpec, test: Outcomes, probability: Floats, evolve: Evolve) -> dict[str, int]:
    """{rule: row}: the journeys to tell; of equal ones the smallest journey_id."""
    horizon = spec.primary_horizon
    rows = np.flatnonzero(test.known(horizon, spec.gap_days) & (test.length >= FEWEST_EVENTS))
    identity = np.array(test.journey_id.to_pylist(), dtype=object)
    rows = rows[np.argsort(identity[rows])] if len(rows) else rows
    rows = rows[np.argsort(probability[rows], kind="stable")]
    customer = np.array(test.customer_key.to_pylist(), dtype=object)
    converted = test.converted(horizon)
    yes, no = rows[converted[rows]], rows[~converted[rows]]
    candidates = {
        "sure": yes[::-1],
        "false_alarm": no[::-1],
        "rise": _by_rise(journeys, spec, test, yes[np.argsort(identity[yes])][:POOL], evolve),
        "surprise": yes,
        "median": np.roll(rows, -(len(rows) // 2)),
        "lowest": rows,
    }
    found: dict[str, int] = {}
    taken: set[str] = set()
    for rule, ranked in candidates.items():
        row = next((int(row) for row in ranked if customer[row] not in taken), None)
        if row is not None:
            found[rule] = row
            taken.add(customer[row])
    return found


def document(told: list[Told], horizons: tuple[int, ...]) -> list[dict[str, Any]]:
    """evolution.json: what the plots show, numbers to six digits."""
    return [
        {
            "rule": RULES[one.rule],
            "journey_id": one.journey_id,
            "customer_key": one.customer_key,
            "as_of": _iso(one.as_of),
            "days_to_conversion": _six(one.days) if np.isfinite(one.days) else None,
            "observed_days": _six(one.observed),
            "curve": [
                {"days": _six(day), "probability": _six(p)} for day, p in zip(one.curve_days, one.curve, strict=True)
            ],
            "running": [
                {
                    "event_time": _iso(int(time)),
                    "event": event,
                    "probabilities": {str(h): _six(p) for h, p in zip(horizons, values, strict=True)},
                }
                for time, event, values in zip(one.event_time, one.event, one.running, strict=True)
            ],
        }
        for one in told
    ]


def _by_rise(
    journeys: Path, spec: AnySpec, test: Outcomes, rows: NDArray[np.int64], evolve: Evolve
) -> NDArray[np.int64]:
    """The rows, largest rise of the running probability from its first to its last event first."""
    if not len(rows):
        return rows
    place = spec.horizons_days.index(spec.primary_horizon)
    answer = evolve(read_padded(journeys, "test", spec, test.take(rows)))
    running = answer["running"][:, :, place].astype(np.float64)
    last = np.maximum(answer["running_length"] - 1, 0)
    rise = running[np.arange(len(rows)), last] - running[:, 0]
    return rows[np.argsort(-rise, kind="stable")]


def _told(i: int, rule: str, *, spec: AnySpec, outcomes: Outcomes, arrays: Arrays, answer: Arrays) -> Told:
    """Row i of the arrays and of the model's answer."""
    length = int(answer["running_length"][i])
    # the model sees the last `length` of the events given, oldest first
    order = np.argsort(arrays["event_time"][i, : int(arrays["length"][i])], kind="stable")[: spec.first_events]
    order = order[len(order) - length :]
    field = spec.sequence.categorical[0] if spec.sequence.categorical else None
    events = [arrays[field][i, event].decode() for event in order] if field else [""] * length
    return Told(
        rule,
        outcomes.journey_id[i].as_py(),
        outcomes.customer_key[i].as_py(),
        int(outcomes.as_of[i]),
        float(outcomes.days[i]),
        float(outcomes.observed[i]),
        arrays["event_time"][i, order],
        events,
        answer["running"][i, :length].astype(np.float64),
        np.atleast_2d(answer["days"])[0].astype(np.float64),
        answer["curve"][i].astype(np.float64),
    )


def _iso(micros: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(micros, 'us'), unit='us')}Z"


def _six(value: float) -> float:
    return float(f"{value:.6g}")
