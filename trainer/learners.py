"""Who is moved by a campaign, and by how much: learners of the effect from the journey, all out of fold.

S-learner: the network itself, asked with and without the campaign. T-learner: two logistic heads, one an arm, on the
network's frozen state. Doubly robust learner: a ridge regression of AIPW's pseudo-outcomes on that state
(Kennedy 2023, "Towards optimal doubly robust estimation of heterogeneous causal effects").

States of different fold networks have no common coordinates, so heads are fitted within a network's assignments, whose
customers that network never saw, and cross-fitted there once more by customer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.experiment import Flags, Floats, Ints
from trainer.propensity import pseudo_outcomes

PARTS = 5
COMPONENTS = 16  # of the state: what varies most in it
EPSILON = 1e-4  # probabilities are kept so far from 0 and 1
LEAST = 20  # assignments, or conversions among them, below which a head is a constant


@dataclass(frozen=True)
class Folds:
    """network, part: int64 [n]. Which fold network scored each assignment, and its customer's part within the fold."""

    network: Ints
    part: Ints

    def pairs(self) -> Iterator[tuple[Flags, Flags]]:
        """(rows to learn from, rows to predict), bool [n] each, until every row was predicted once."""
        for network in np.unique(self.network):
            inside = self.network == network
            for part in np.unique(self.part[inside]):
                yield inside & (self.part != part), inside & (self.part == part)

    def predicted(self) -> list[Flags]:
        """The rows that one head predicts, bool [n] a head."""
        return [rows for _, rows in self.pairs()]

    def take(self, rows: Flags) -> Folds:
        return Folds(self.network[rows], self.part[rows])


def log_odds(probability: Floats) -> Floats:
    clipped = np.clip(probability, EPSILON, 1 - EPSILON)
    return np.log(clipped / (1 - clipped))


def inputs(scores: Floats, fields: Floats, state: NDArray[np.float32], folds: Folds) -> Floats:
    """What heads see, float64 [n, s + f + r], standardised: log odds of the scores, customer fields, the state.

    scores: float64 [n, s], out-of-fold probabilities; fields: float64 [n, f]; state: float32 [n, d], of which the
    COMPONENTS principal ones (r, or d where there are fewer) are taken within each network.
    """
    from sklearn.decomposition import PCA

    reduced = np.zeros((len(state), min(COMPONENTS, state.shape[1])))
    for network in np.unique(folds.network):
        rows = folds.network == network
        count = min(reduced.shape[1], int(rows.sum()))
        reduced[rows, :count] = _standardised(PCA(count, random_state=0).fit_transform(state[rows].astype(np.float64)))
    return np.column_stack([_standardised(np.column_stack([log_odds(scores), fields])), reduced])


def cross_fitted(features: Floats, target: Floats, folds: Folds, fit: Callable[[Floats, Floats], Any]) -> Floats:
    """float64 [n]: predictions of `fit(features, target)` for rows it never saw, nor any other of their customers."""
    found = np.full(len(target), np.nan)
    for learn, predict in folds.pairs():
        found[predict] = fit(features[learn], target[learn])(features[predict])
    return found


def levelled(effects: Floats, groups: Iterable[Flags]) -> Floats:
    """float64 [n]: predicted effects, each group moved to the mean of all. groups: bool [n] a group, all rows once.

    A head learns from all rows but those it predicts: where these happen to show a larger effect than the rest, it says
    a smaller one. Left so, a ranking over several heads is turned against the truth, more than chance would do it.
    """
    found = effects.copy()
    for rows in groups:
        found[rows] += effects.mean() - effects[rows].mean()
    return found


def probability_head(features: Floats, outcome: Floats) -> Callable[[Floats], Floats]:
    """A logistic regression (ridge) of a 0/1 outcome; the smoothed share where there is too little to learn from."""
    from sklearn.linear_model import LogisticRegression

    hits = outcome.sum()
    if min(hits, len(outcome) - hits) < LEAST:
        share = (hits + 0.5) / (len(outcome) + 1)
        return lambda rows: np.full(len(rows), share)
    model = LogisticRegression(C=0.05, max_iter=500).fit(features, outcome.astype(np.int64))
    return lambda rows: model.predict_proba(rows)[:, 1]


def propensity(features: Floats, treated: Flags, folds: Folds) -> Floats:
    """float64 [n]: P(treated | features), out of fold."""
    return cross_fitted(features, treated.astype(np.float64), folds, probability_head)


def arms(features: Floats, converted: Flags, treated: Flags, folds: Folds) -> tuple[Floats, Floats]:
    """(without, with), float64 [n] each, out of fold: the T-learner's P(converts) had nobody, or all, been treated."""
    found = []
    for arm in (False, True):
        predicted = np.full(len(converted), np.nan)
        for learn, predict in folds.pairs():
            rows = learn & (treated == arm)
            predicted[predict] = probability_head(features[rows], converted[rows].astype(np.float64))(features[predict])
        found.append(predicted)
    return found[0], found[1]


def effect_head(features: Floats, outcome: Floats) -> Callable[[Floats], Floats]:
    """A ridge regression whose penalty is chosen by leave-one-out error, from none to the mean alone.

    The mean where there is too little to learn from, and 0 where there is nothing: a network may have scored a
    campaign's assignments of one part of its customers alone.
    """
    from sklearn.linear_model import RidgeCV

    if len(outcome) < LEAST:
        mean = float(outcome.mean()) if len(outcome) else 0.0
        return lambda rows: np.full(len(rows), mean)
    model = RidgeCV(alphas=np.geomspace(1, 1e6, 13)).fit(features, outcome)
    return model.predict


def doubly_robust_learner(
    features: Floats,
    converted: Flags,
    treated: Flags,
    propensities: Floats,
    arm_predictions: tuple[Floats, Floats],
    *,
    folds: Folds,
) -> Floats:
    """float64 [n], out of fold: the effect of each assignment, by regression of its pseudo-outcome on the features."""
    outcomes = pseudo_outcomes(converted, treated, propensities, arm_predictions)
    return cross_fitted(features, outcomes, folds, effect_head)


def _standardised(columns: Floats) -> Floats:
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
