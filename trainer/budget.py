"""What a training has spent of its budget, and when it must stop so that evaluation and export can still be paid.

Spent is the time of all attempts, in hours, times the price of an hour of all machines together. An attempt counts from
the start of its process; what a machine costs before, while it boots, is not seen from inside.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from preprocessing.cli import UserError
from preprocessing.flags import number

log = logging.getLogger(__name__)

_HOUR = 3600.0
# What comes after training, where --reserve_minutes does not say: a start, and so many journeys of eval and test each.
# `make run`'s 20,000 customers (51,000 such journeys) took 121 s on two busy cores; nearly twice as much is kept.
_RESERVE_S, _RESERVE_S_PER_JOURNEY = 60.0, 0.003


@dataclasses.dataclass(frozen=True)
class Budget:
    """amount: the most that a training may cost, evaluation and export with it; None: no limit, and it is only counted.
    hourly_price: of all machines together, in the same currency. reserve_s: seconds that are kept for what comes after
    training; None: estimated."""

    amount: float | None
    hourly_price: float
    reserve_s: float | None = None

    def reserve(self, journeys: int) -> float:
        """Seconds that evaluation and export of so many eval and test journeys may take."""
        return _RESERVE_S + _RESERVE_S_PER_JOURNEY * journeys if self.reserve_s is None else self.reserve_s


class Meter:
    """Counts the seconds of all attempts. clock: seconds, from anywhere; began: when by it this attempt did."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, began: float | None = None) -> None:
        self._clock, self._began = clock, clock() if began is None else began
        self.earlier = 0.0  # seconds of the attempts before

    @property
    def seconds(self) -> float:
        return self.earlier + self._clock() - self._began


class Guard:
    """Tells a training when to stop. `stopped` says in words that it did, and where; None where it ran to its end."""

    def __init__(self, meter: Meter, budget: Budget | None = None, journeys: int = 0) -> None:
        """journeys: of eval and test together, which are scored after training.

        Raises UserError where the budget is less than what they need.
        """
        self.meter = meter
        self.stopped: str | None = None
        self._budget = budget if budget is not None and budget.amount is not None else None
        if self._budget is None:
            return
        self._reserve = self._budget.reserve(journeys)
        self._cap_s = (self._budget.amount or 0.0) / self._budget.hourly_price * _HOUR
        if self._reserve >= self._cap_s:
            raise UserError(
                f"--budget {self._budget.amount:g}: at --hourly_price {self._budget.hourly_price:g} that is "
                f"{self._cap_s:,.0f} s, and evaluation and export alone are given {self._reserve:,.0f} s; give more, "
                "or say with --reserve_minutes what they need"
            )

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._budget is not None

    def over(self, next_s: float) -> bool:
        """Whether what takes `next_s` seconds, begun now, would leave too little for evaluation and export."""
        return self._budget is not None and self.meter.seconds + next_s > self._cap_s - self._reserve

    def stop(self, step: int, steps: int) -> None:
        """Notes that training ended at `step` of the `steps` that were meant."""
        assert self._budget is not None
        self.stopped = (
            f"Training was stopped by its budget ({self._budget.amount:g} at {self._budget.hourly_price:g} an hour) "
            f"at step {step:,} of at most {steps:,}; with more, the same command goes on from there."
        )
        log.warning("warning: %s", self.stopped)


def spent(seconds: float, hourly_price: float) -> float:
    """What so many seconds cost, in the currency of the price."""
    return seconds / _HOUR * hourly_price


def bill(meter: Meter, budget: Budget | None, journeys: int) -> dict[str, Any]:
    """The run's time and, where an hour's price is known, its cost: what run.json holds.

    journeys: of train. seconds: of all attempts, evaluation and export with them; cost_per_1000: of 1,000 train
    journeys, in the currency of the price.
    """
    seconds = round(meter.seconds, 1)
    found: dict[str, Any] = {"seconds": seconds, "train_journeys": journeys}
    if budget is not None:
        cost = spent(seconds, budget.hourly_price)
        found |= {
            "hourly_price": budget.hourly_price,
            "cost": float(f"{cost:.4g}"),
            "cost_per_1000": float(f"{1000 * cost / journeys:.4g}"),
            "budget": budget.amount,
        }
    return found


def bill_lines(bill: dict[str, Any] | None, quality: float | None = None) -> list[tuple[str, str]]:
    """What `bill` tells, as names and values; quality, on a page: the PR-AUC on test, to compare runs by both.

    A page cannot hold the seconds in which it is drawn: run.json, and the last lines of the run, do.
    """
    if bill is None or "cost" not in bill:
        return []
    whole = "Cost of the run" if quality is None else "Cost until this page was drawn"
    lines = [
        ("Machine time", f"{bill['seconds'] / _HOUR:.3g} h at {bill['hourly_price']:g} an hour"),
        (whole, f"{bill['cost']:g}" + (f" of a budget of {bill['budget']:g}" if bill["budget"] else "")),
        ("1,000 train journeys", f"{bill['cost_per_1000']:g}"),
    ]
    return lines if quality is None else [*lines, ("PR-AUC for that", f"{quality:.4f}")]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a budget, which trainer.task and trainer.tune share."""
    positive = number(float, high=1e12, above=0)
    parser.add_argument(
        "--hourly_price",
        type=positive,
        metavar="N",
        help="what an hour of all machines costs, as deploy.cost says it: the report then tells what the run cost",
    )
    parser.add_argument(
        "--budget",
        type=positive,
        metavar="N",
        help="the most that may be spent, in the currency of --hourly_price; training stops in time for evaluation and "
        "export, and says so",
    )
    parser.add_argument(
        "--reserve_minutes",
        type=number(float, 0, 10_000),
        metavar="N",
        help="kept of the budget for evaluation and export (default: a minute, and 3 more for 60,000 journeys)",
    )


def taken(values: dict[str, Any]) -> Budget | None:
    """The budget of a command line; takes its flags out of `values`. Raises UserError where they don't fit together."""
    amount, price, minutes = (values.pop(name) for name in ("budget", "hourly_price", "reserve_minutes"))
    if amount is not None and price is None:
        raise UserError("--budget: expected --hourly_price with it, what an hour of all machines costs")
    if minutes is not None and amount is None:
        raise UserError("--reserve_minutes: it is kept of a budget; expected --budget with it")
    return None if price is None else Budget(amount, price, None if minutes is None else 60 * minutes)
