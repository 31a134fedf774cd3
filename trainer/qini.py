"""Does a ranking find those whom a campaign moves? Uplift by decile, Qini and AUUC, where lots were drawn.

Down a ranking by predicted uplift, after the first k assignments (ties together) let N_t and N_c be how many of them
were treated and held out, Y_t and Y_c how many of those converted, and T how many are treated in all n.

    Qini curve    q(k) = (Y_t - Y_c N_t / N_c) / T        extra conversions among the treated so far, per treated in all
    uplift curve  u(k) = (Y_t / N_t - Y_c / N_c) k / n    the same from shares: conversions won per assignment, had all
                                                          of the first k been treated and nobody else
    Qini coefficient: the area between q and the straight line to its end, over k / n from 0 to 1; chance gives 0
    AUUC:             the area under u, over k / n from 0 to 1; chance gives u(n) / 2

Areas are by trapezes. scikit-uplift draws the same curves, times T (Qini) and times n (uplift); its scores divide the
area by that of a "perfect" ranking, which knows each outcome beforehand, so that they are small whatever the model:
here nothing is divided (Radcliffe 2007, "Using control groups to target on predicted lift"). A share of an empty arm
counts as 0, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.bootstrap import customer_weights
from trainer.experiment import LEVEL, Flags, Floats, Ints, difference

DRAWS = 200
TENTHS = 10
LEARNT_HERE = 2**0.5


@dataclass(frozen=True)
class Curves:
    """float64 [points], from the origin: share of assignments taken, Qini and uplift curve there."""

    share: Floats
    qini: Floats
    uplift: Floats

    @property
    def coefficient(self) -> float:
        return area_above_chance(self.share, self.qini)

    @property
    def auuc(self) -> float:
        return float(np.trapezoid(self.uplift, self.share))


class Ranking:
    """Assignments sorted once by predicted uplift, highest first; then evaluated under any weights.

    uplift: float64 [n]; converted, treated: bool [n].
    """

    def __init__(self, uplift: Floats, converted: Flags, treated: Flags) -> None:
        order = np.argsort(-uplift, kind="stable")
        self._order = order
        ranked = uplift[order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        arms = np.stack([treated, ~treated])[:, order].astype(np.float64)
        self._columns = np.concatenate([arms, arms * converted[order]])  # N_t, N_c, Y_t, Y_c

    def curves(self, weight: Floats | None = None) -> Curves:
        """weight: float64 [n], how often each assignment counts; None: once."""
        columns = self._columns if weight is None else self._columns * weight[self._order]
        treated, held_out, hits, held_out_hits = np.cumsum(columns, axis=1)[:, self._ends]
        taken = treated + held_out
        share_held_out = _ratio(held_out_hits, held_out)
        qini = (hits - share_held_out * treated) / max(treated[-1], 1e-12)
        uplift = (_ratio(hits, treated) - share_held_out) * taken / taken[-1]
        return Curves(*(np.append(0.0, curve) for curve in (taken / taken[-1], qini, uplift)))


def area_above_chance(share: Floats, curve: Floats) -> float:
    """The area between a curve and the straight line from its start to its end."""
    return float(np.trapezoid(curve, share) - (curve[0] + curve[-1]) / 2 * (share[-1] - share[0]))


def measured(
    uplift: Floats,
    converted: Flags,
    treated: Flags,
    customer: Ints,
    *,
    learnt_here: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """{"qini": {value, low, high}, "auuc": …, "better_than_chance": bool}, 95 % intervals over draws of customers.

    The ranking stays as it is; who happened to be in the sample is what the intervals are about. customer: int64 [n].

    learnt_here: whether the ranking was learnt, cross-fitted, from these very outcomes. Each pair of customers then
    counts twice, a's outcome ranking b and b's ranking a: where nobody is moved more than another the coefficient is
    2 sum_{i<j} e_i e_j k(i, j) in place of a sum of independent terms, so its variance is twice what draws under a
    fixed ranking show, and intervals are made wider by LEARNT_HERE, the root of 2. Where effects differ, that
    is too wide.
    """
    ranking = Ranking(uplift, converted, treated)
    whole = ranking.curves()
    drawn = [ranking.curves(weight) for weight in customer_weights(customer, draws, seed)]
    found: dict[str, Any] = {}
    for name, value, sample in (
        ("qini", whole.coefficient, np.array([curves.coefficient for curves in drawn])),
        ("auuc", whole.auuc, np.array([curves.auuc for curves in drawn])),
    ):
        low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(sample) else (np.nan, np.nan)
        if learnt_here:
            low, high = value + LEARNT_HERE * (low - value), value + LEARNT_HERE * (high - value)
        found[name] = {"value": value, "low": float(low), "high": float(high)}
    found["better_than_chance"] = bool(found["qini"]["low"] > 0)
    return found


def deciles(uplift: Floats, converted: Flags, treated: Flags, customer: Ints) -> list[dict[str, Any]]:
    """By tenth of the ranking, highest predicted uplift first: assignments, predicted and measured uplift.

    Measured uplift has its 95 % interval by customer; null where the tenth has an arm without assignments. Tied
    predictions keep the order they came in.
    """
    rows = []
    for number, part in enumerate(np.array_split(np.argsort(-uplift, kind="stable"), TENTHS), 1):
        row: dict[str, Any] = {"decile": number, "assignments": len(part), "treated": int(treated[part].sum())}
        row["predicted"] = float(uplift[part].mean()) if len(part) else None
        row |= {"value": None, "low": None, "high": None}
        if 0 < row["treated"] < len(part):
            effect = difference(converted[part], treated[part], customer[part])
            row |= {"value": effect.value, "low": effect.low, "high": effect.high}
        rows.append(row)
    return rows


def _ratio(one: Floats, other: Floats) -> Floats:
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)
