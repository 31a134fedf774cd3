"""What the network has to beat: recency and frequency in a logistic regression, aggregates in boosted trees.

Both learn from train, select on eval only, and are read on the same test journeys as the network. Where train is
downsampled their probabilities are brought back to the true base rate. With assignments beside snapshots the network
learns from the journeys at assignments, too; they are another population than test's, and the baselines leave them out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.spec import DAY_US, AnySpec
from trainer.aggregates import EVENTS, RECENCY, RECENT, Aggregates, fit_aggregates
from trainer.outcomes import Outcomes, matched
from trainer.threads import one_thread

logger = logging.getLogger(__name__)

MOST_TRAIN_ROWS = 300_000
# Beyond so many train rows the trees are grown for the primary horizon only, which bounds the time.
MOST_ROWS_ALL_HORIZONS = 150_000
TREES = 400
PATIENCE = 20
Floats = NDArray[np.float64]
Predict = Callable[[NDArray[np.float32]], Floats]


@dataclass(frozen=True)
class _Sample:
    """Journeys whose outcome at a horizon is known: aggregates float32 [n, columns], converted bool [n].

    kept: float64 [n], the chance that train's downsampling would have kept the journey.
    """

    matrix: NDArray[np.float32]
    converted: NDArray[np.bool_]
    kept: Floats

    @property
    def has_both(self) -> bool:
        return bool(0 < self.converted.sum() < len(self.converted))


@one_thread()
def baseline_predictions(
    journeys: Path, spec: AnySpec, train: Outcomes, evaluation: Outcomes, test: Outcomes, *, rows: int = MOST_TRAIN_ROWS
) -> tuple[dict[str, dict[int, Floats]], list[str]]:
    """Fits the baselines on train and scores the journeys of `test`, in its order.

    Returns {"recency_frequency": {horizon: float64 [len(test)]}, "gradient_boosting": …} and the notes that a reader
    of the figures must know. A horizon that train cannot teach (one class only) is left out, with a note. Of more than
    `rows` train journeys those with the smallest journey_id are taken, which is by the keyed hash: a fixed sample.
    """
    notes: list[str] = []
    if len(spec.train_splits) > 1:
        notes.append(
            "The network also learns from journeys at assignments (assigned_train); the baselines learn from the "
            "snapshots of train alone."
        )
    aggregates = fit_aggregates(journeys, spec)
    if len(train) > rows:
        notes.append(
            f"The baselines learn from {rows:,} of {len(train):,} train journeys (those with the smallest id)."
        )
        train = train.take(np.sort(pc.array_sort_indices(train.journey_id).to_numpy()[:rows]))
    logger.info("baselines: aggregates of %s train journeys", f"{len(train):,}")
    matrices = {
        "train": _matrix(journeys, "train", aggregates, train),
        "eval": _matrix(journeys, "eval", aggregates, evaluation),
    }
    rate = spec.sampling.negative_rate
    longest = spec.horizons_days[-1]
    grown = set(spec.horizons_days)
    if len(train) > MOST_ROWS_ALL_HORIZONS:
        # the correction for downsampling needs the longest horizon beside the primary one
        grown = {spec.primary_horizon} | ({longest} if rate < 1 else set())
        left = [h for h in spec.horizons_days if h not in grown]
        if left:
            notes.append(f"More than {MOST_ROWS_ALL_HORIZONS:,} train journeys: no gradient boosting at {left} days.")

    predictors: dict[str, dict[int, Predict]] = {"recency_frequency": {}, "gradient_boosting": {}}
    for horizon in spec.horizons_days:
        learnt = _sample(matrices["train"], train, horizon, spec)
        selecting = _sample(matrices["eval"], evaluation, horizon, spec)
        conversions = int(learnt.converted.sum())
        if not learnt.has_both:
            notes.append(
                f"{horizon} days: no baseline is fitted: {conversions:,} of {len(learnt.converted):,} train journeys "
                "whose outcome is known converted, and a classifier needs both kinds."
            )
            continue
        logger.info("baselines: %d days, %s conversions in %s", horizon, f"{conversions:,}", f"{len(learnt.kept):,}")
        predictors["recency_frequency"][horizon] = _recency_frequency(aggregates, learnt)
        if horizon in grown:
            if not selecting.has_both:
                notes.append(f"{horizon} days: eval has not both kinds to select on: gradient boosting takes 50 trees.")
            predictors["gradient_boosting"][horizon] = _gradient_boosting(aggregates, learnt, selecting)

    predictions = {name: {h: np.full(len(test), np.nan) for h in found} for name, found in predictors.items()}
    for place, batch in matched(journeys, "test", test, aggregates.columns):
        matrix = aggregates.of(batch)
        for name, found in predictors.items():
            raw = {horizon: predict(matrix) for horizon, predict in found.items()}
            # not fitted while shorter ones are: all of train converts within the longest, and nothing was thinned
            sure = raw.get(longest, np.ones(len(matrix)))
            for horizon, probability in raw.items():
                predictions[name][horizon][place] = undo_downsampling(probability, sure, rate)
    return predictions, notes


def undo_downsampling(probability: Floats, longest: Floats, negative_rate: float) -> Floats:
    """The probability in the population, from one learnt where never-converters were kept at `negative_rate`.

    probability, longest: float64 [n], P(converts within a horizon) and within the longest one, both in the sample.
    Of the sample's mass only the never-converters' (1 - longest) was thinned: restored, the total is longest +
    (1 - longest) / rate, by which every horizon's mass is divided. For the longest horizon this is the shift of prior
    odds of King & Zeng 2001, eq. 7. The two come from separate models: where they contradict each other the result is
    cut at 1.
    """
    if negative_rate == 1:
        return probability
    return probability / np.maximum(longest + (1 - longest) / negative_rate, probability)


def recency_frequency_inputs(aggregates: Aggregates, matrix: NDArray[np.float32]) -> Floats:
    """float64 [n, 5]: ln(1 + days since the last event), whether there is none, ln(1 + events) overall, 7 and 30 days.

    Without an event the recency is the lookback (journeys without dates: 0), and the second column tells it apart.
    """
    column = {name: i for i, name in enumerate(aggregates.names)}
    recency = matrix[:, column[RECENCY]].astype(np.float64)
    lookback_us = aggregates.spec.lookback_us
    never = np.isnan(recency)
    recency[never] = 0.0 if lookback_us is None else lookback_us / DAY_US
    counts = [matrix[:, column[name]].astype(np.float64) for name in (EVENTS, *RECENT.values())]
    return np.column_stack([np.log1p(recency), never, *map(np.log1p, counts)])


def _recency_frequency(aggregates: Aggregates, learnt: _Sample) -> Predict:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(recency_frequency_inputs(aggregates, learnt.matrix), learnt.converted)
    return lambda rows: model.predict_proba(recency_frequency_inputs(aggregates, rows))[:, 1]


def _gradient_boosting(aggregates: Aggregates, learnt: _Sample, selecting: _Sample) -> Predict:
    """Trees of two sizes, each stopped by its log loss on eval, thinned by weight as train is; the better is kept."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn cannot bin a column without a single value
    usable = np.flatnonzero(~np.isnan(learnt.matrix).all(axis=0))
    stop = selecting.has_both
    common: dict[str, Any] = {
        "categorical_features": aggregates.is_category[usable],
        "max_iter": TREES if stop else 50,
        "early_stopping": stop,
        "n_iter_no_change": PATIENCE,
        "scoring": "loss",
        "random_state": 0,
    }
    sizes: list[dict[str, Any]] = [{"max_leaf_nodes": 8, "min_samples_leaf": 50}]
    validation: dict[str, Any] = {}
    if stop:
        sizes.append({"max_leaf_nodes": 31, "min_samples_leaf": 20})
        validation = {
            "X_val": selecting.matrix[:, usable],
            "y_val": selecting.converted,
            "sample_weight_val": selecting.kept,
        }
    models = [HistGradientBoostingClassifier(learning_rate=0.1, **common, **size) for size in sizes]
    for model in models:
        model.fit(learnt.matrix[:, usable], learnt.converted, **validation)
    if not stop:
        return lambda rows: models[0].predict_proba(rows[:, usable])[:, 1]
    best = max(models, key=lambda model: max(model.validation_score_))
    # scikit-learn keeps the trees grown while it waited; the model that eval chose ends before them (entry 0: no tree)
    trees = max(1, int(np.argmax(best.validation_score_)))
    return lambda rows: next(islice(best.staged_predict_proba(rows[:, usable]), trees - 1, None))[:, 1]


def _sample(matrix: NDArray[np.float32], outcomes: Outcomes, horizon: int, spec: AnySpec) -> _Sample:
    known = outcomes.known(horizon, spec.gap_days)
    kept = 1 / outcomes.natural_weight(spec.horizons_days, spec.gap_days, spec.sampling.negative_rate)
    return _Sample(matrix[known], outcomes.converted(horizon)[known], kept[known])


def _matrix(journeys: Path, split: str, aggregates: Aggregates, wanted: Outcomes) -> NDArray[np.float32]:
    matrix = np.zeros((len(wanted), len(aggregates.names)), dtype=np.float32)
    for place, batch in matched(journeys, split, wanted, aggregates.columns):
        matrix[place] = aggregates.of(batch)
    return matrix
