"""What can be said of one campaign's effect: an experiment where lots were drawn, an adjusted comparison elsewhere.

A campaign counts as randomised where the spec declares it and nothing contradicts: the shares are as planned and the
same in every sending, and the journey does not foretell who is treated. Otherwise it is judged like a targeted one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer import learners, qini
from trainer.assignments import Assigned, part_of
from trainer.experiment import (
    Effect,
    Flags,
    Floats,
    adjusted,
    assignments_needed,
    difference,
    narrowing,
)
from trainer.learners import Folds
from trainer.propensity import doubly_robust, histogram, kept, overlap, weighted_difference, weights
from trainer.randomisation import checks
from trainer.sensitivity import e_value_of

LEAST_ARM = 50  # assignments an arm, of known outcome, below which nothing is estimated
LEAST_CONVERSIONS = 10  # in both arms together
TOO_GOOD = 0.98  # ROC-AUC of the score for the outcome: no score of before the assignment knows so much
WISHED = (0.1, 0.05, 0.02)  # effects, relative to the held out's rate, whose sample size is told


@dataclass(frozen=True)
class Question:
    """What is asked of a campaign. planned_share: of the treated, None where nobody said; min_customers: a segment of
    fewer is not shown; folds: how many networks there were."""

    declared_random: bool
    planned_share: float | None
    min_customers: int
    folds: int
    draws: int = qini.DRAWS


@dataclass(frozen=True)
class Basis:
    """A campaign's assignments of known outcome, and what heads see of them (learners.inputs).

    with_it: float64 [n], P(converts) with the campaign; without it where the network never saw it treated.
    """

    rows: Assigned
    folds: Folds
    with_it: Floats
    rich: Floats
    propensities: Floats


def judged(name: str, everyone: Assigned, question: Question) -> dict[str, Any]:
    """All that influence.json says of a campaign.

    everyone: the assignments of this campaign, in any state of knowledge.
    """
    rows = everyone.take(everyone.known)
    found: dict[str, Any] = {
        "campaign": name,
        "declared_randomised": question.declared_random,
        "assignments": len(everyone),
        "known": len(rows),
        "treated": int(rows.treated.sum()),
        "customers": len(np.unique(rows.customer)),
        "conversions": int(rows.converted.sum()),
        "rate_treated": _share(rows.converted[rows.treated]),
        "rate_held_out": _share(rows.converted[~rows.treated]),
        "claim": "none",
        "reason": _too_little(rows) or _leak(rows),
    }
    if found["reason"]:
        return found
    basis = basis_of(rows, question.folds)
    found["unadjusted"] = told(difference(rows.converted, rows.treated, rows.customer))
    found["checks"] = checks(rows, basis.propensities, question.planned_share)
    failed = [check["name"] for check in found["checks"] if check["status"] == "failed"]
    if question.declared_random and failed:
        found["warning"] = f"declared as randomised, yet failed: {', '.join(failed)}; judged like a targeted campaign"
    estimate = _experiment if question.declared_random and not failed else _targeted
    found |= estimate(basis, question)
    return found


def predicted_effects(basis: Basis, propensities: Floats) -> dict[str, Floats]:
    """By learner: float64 [n], the predicted effect of each assignment, out of fold, at one level in all folds."""
    rows = basis.rows
    arms = learners.arms(basis.rich, rows.converted, rows.treated, basis.folds)
    own = np.nan_to_num(rows.with_it - rows.without)
    features = np.column_stack([basis.rich, own / max(float(own.std()), 1e-12)])
    robust = learners.doubly_robust_learner(
        features, rows.converted, rows.treated, propensities, arms, folds=basis.folds
    )
    return {
        "s_learner": learners.levelled(own, [basis.folds.network == one for one in np.unique(basis.folds.network)]),
        "t_learner": learners.levelled(arms[1] - arms[0], basis.folds.predicted()),
        "dr_learner": learners.levelled(robust, basis.folds.predicted()),
    }


def basis_of(rows: Assigned, folds: int) -> Basis:
    by_customer = Folds(rows.network, part_of(rows.bucket, folds, learners.PARTS))
    with_it = np.where(np.isnan(rows.with_it), rows.without, rows.with_it)
    scores = np.column_stack([rows.without, with_it])
    rich = learners.inputs(scores, rows.encoded_fields(), rows.state, by_customer)
    return Basis(rows, by_customer, with_it, rich, learners.propensity(rich, rows.treated, by_customer))


def told(effect: Effect) -> dict[str, float]:
    """An effect as influence.json has it."""
    return {
        "value": effect.value,
        "low": effect.low,
        "high": effect.high,
        "se": effect.se,
        "p_value": effect.p_value,
    }


def _too_little(rows: Assigned) -> str:
    """Why nothing can be estimated; "" where something can."""
    treated = int(rows.treated.sum())
    held_out = len(rows) - treated
    for name, count in (("treated", treated), ("held out", held_out)):
        if count < LEAST_ARM:
            return f"{count:,} assignments of known outcome were {name}; at least {LEAST_ARM} are needed to compare"
    if rows.converted.sum() < LEAST_CONVERSIONS:
        return f"{int(rows.converted.sum())} conversions in both arms; at least {LEAST_CONVERSIONS} are needed"
    return ""


def _leak(rows: Assigned) -> str:
    """Why the score cannot be of before the assignment; "" where nothing says so."""
    from sklearn.metrics import roc_auc_score

    if rows.converted.all():
        return "everyone converted"
    reached = float(roc_auc_score(rows.converted, rows.without))
    if reached <= TOO_GOOD:
        return ""
    return (
        f"the score foretells who converts almost surely (ROC-AUC {reached:.3f}): a field of the journeys seems to "
        "hold what came after the assignment"
    )


def _experiment(basis: Basis, question: Question) -> dict[str, Any]:
    """The intention-to-treat effect, adjusted by the networks' score, and who is moved."""
    rows, share = basis.rows, float(basis.rows.treated.mean())
    # of both arms' probabilities the mixture that leaves the least variance: each weighs as the other arm's share
    score = share * rows.without + (1 - share) * basis.with_it

    def estimate(part: Flags) -> Effect:
        one = rows.take(part)
        return adjusted(one.converted, one.treated, score[part][:, None], one.customer)

    everyone = np.ones(len(rows), bool)
    effect = estimate(everyone)
    gain = narrowing(difference(rows.converted, rows.treated, rows.customer), effect)
    rate = float(rows.converted[~rows.treated].mean())
    return {
        "claim": "randomised",
        "effect": told(effect),
        "narrowing": gain,
        "needed": [
            {
                "relative": wished,
                "effect": wished * rate,
                "assignments": assignments_needed(rate, wished * rate, treated_share=share, narrowing=max(gain, 0.0)),
            }
            for wished in WISHED
            if 0 < rate * (1 + wished) < 1
        ],
        "uplift": {
            learner: {
                **qini.measured(
                    predicted,
                    rows.converted,
                    rows.treated,
                    rows.customer,
                    learnt_here=learner != "s_learner",  # that one is the networks', which never saw these customers
                    draws=question.draws,
                ),
                "deciles": qini.deciles(predicted, rows.converted, rows.treated, rows.customer),
                "curve": _curve(predicted, rows),
            }
            for learner, predicted in predicted_effects(basis, np.full(len(rows), share)).items()
        },
        "segments": _segments(rows, everyone, estimate, question.min_customers),
    }


def _targeted(basis: Basis, question: Question) -> dict[str, Any]:
    """The doubly robust estimate over the assignments that can be compared, or a refusal."""
    rows, propensities = basis.rows, basis.propensities
    seen = overlap(propensities, rows.treated)
    found: dict[str, Any] = {
        "overlap": {
            "roc_auc": seen.roc_auc,
            "trimmed": seen.trimmed,
            "effective_treated": seen.effective_treated,
            "effective_held_out": seen.effective_held_out,
            "histogram": histogram(propensities, rows.treated),
        }
    }
    if not seen.holds:
        return found | {"reason": f"cannot be told from this data: {seen.reason}"}
    arms = learners.arms(basis.rich, rows.converted, rows.treated, basis.folds)
    inside = kept(propensities)

    def estimate(part: Flags) -> Effect:
        one, predicted = rows.take(part), (arms[0][part], arms[1][part])
        return doubly_robust(one.converted, one.treated, propensities[part], predicted, customer=one.customer)

    everyone = rows.take(inside)
    effect = estimate(inside)
    hidden = e_value_of(effect, float(arms[0][inside].mean()))
    return found | {
        "claim": "association",
        "effect": told(effect),
        "weighted": told(
            weighted_difference(everyone.converted, everyone.treated, propensities[inside], everyone.customer)
        ),
        "compared": int(inside.sum()),
        "largest_weight": float(weights(propensities[inside], everyone.treated).max()),
        "e_value": None if hidden is None else {"estimate": hidden.estimate, "interval": hidden.interval},
        "segments": _segments(rows, inside, estimate, question.min_customers),
    }


def _segments(
    rows: Assigned, among: Flags, estimate: Callable[[Flags], Effect], min_customers: int
) -> list[dict[str, Any]]:
    """The effect within each value of each categorical customer field, of the rows that count, `among`: bool [n].

    Of a cell with fewer than min_customers in an arm nothing is told, not even its size.
    """
    found = []
    for name, values in rows.categories.items():
        for value in sorted(set(values.tolist())):
            inside = (values == value) & among
            cell = rows.take(inside)
            row: dict[str, Any] = {"field": name, "value": value, "assignments": None, "effect": None, "reason": ""}
            if min(len(np.unique(cell.customer[arm])) for arm in (cell.treated, ~cell.treated)) < min_customers:
                row["reason"] = f"fewer than {min_customers} customers in an arm"
            else:
                row |= {"assignments": len(cell), "reason": _too_little(cell)}
            if not row["reason"]:
                row["effect"] = told(estimate(inside))
            found.append(row)
    return found


def _curve(uplift: Floats, rows: Assigned) -> dict[str, list[float]]:
    """The Qini curve at 101 shares of the ranking."""
    curves = qini.Ranking(uplift, rows.converted, rows.treated).curves()
    shares = np.linspace(0, 1, 101)
    return {"share": shares.tolist(), "qini": np.interp(shares, curves.share, curves.qini).tolist()}


def _share(flags: Flags) -> float | None:
    return float(flags.mean()) if len(flags) else None
