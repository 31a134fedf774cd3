"""What a set of probabilities is worth, each metric weighted, so that a bootstrap is a change of weights and no copy.

Ranking metrics treat tied scores as a block (no order among them is rewarded or punished), so nothing here depends on
the order of rows. Whatever a sample does not define (an AUC without a conversion, say) is NaN, never an exception.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LIFT_PERCENTS = (1, 5, 10, 20)
METRICS = (
    "base_rate",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "log_loss_skill",
    *(f"lift_{percent}" for percent in LIFT_PERCENTS),
    "brier",
    "calibration_error",
    "mean_prediction",
    "gap_to_truth",
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "gap_to_truth"})
CALIBRATION_BINS = 15
# Probabilities are clipped to [EPSILON, 1 - EPSILON] inside logarithms: float32 outputs reach 0 and 1 exactly.
EPSILON = 1e-7

DEFINITIONS = {
    "base_rate": "Share of the journeys that converted within the horizon.",
    "roc_auc": "Probability that a journey that converted is scored above one that did not; ties count half. "
    "0.5 is chance, 1 is perfect.",
    "pr_auc": "Average precision: the precision at each score threshold, averaged over the conversions. "
    "Chance is the base rate.",
    "log_loss": "Mean of -ln(probability given to what happened); lower is better.",
    "log_loss_skill": "1 - log loss / log loss of the constant predictor (the train base rate). "
    "0 says nothing beyond the base rate; below 0 is worse than that.",
    "lift_k": "Conversion rate among the k % of journeys with the highest scores, divided by the base rate. "
    "Journeys tied at the threshold count in proportion.",
    "brier": "Mean squared difference between probability and outcome (0 or 1); lower is better.",
    "calibration_error": f"Expected calibration error: over {CALIBRATION_BINS} bins of equally many journeys by "
    "probability, the mean of |mean probability - share converted|; lower is better.",
    "mean_prediction": "Mean probability; to be held against the base rate.",
    "gap_to_truth": "Mean |probability - true probability|; known for simulated data only.",
}


class Scores:
    """One model's probabilities on one set of journeys, sorted once, evaluated under any weights.

    converted: bool [n]; probability: float [n] in [0, 1]; constant: the probability that the constant predictor gives
    to all (NaN: none, and no skill); truth: float [n], true probabilities where they are known.
    Raises ValueError where lengths differ or a probability is not within [0, 1].
    """

    def __init__(
        self, converted: ArrayLike, probability: ArrayLike, *, constant: float = np.nan, truth: ArrayLike | None = None
    ) -> None:
        self.converted: Floats = np.asarray(converted, dtype=bool).astype(np.float64)
        self.probability: Floats = np.asarray(probability, dtype=np.float64)
        if self.converted.shape != self.probability.shape or self.converted.ndim != 1:
            raise ValueError(
                f"expected two vectors of one length, got {self.converted.shape}, {self.probability.shape}"
            )
        if not np.all((self.probability >= 0) & (self.probability <= 1)):
            raise ValueError("expected probabilities within [0, 1]")
        loss = log_losses(self.converted, self.probability)
        gap = np.full(len(self), np.nan) if truth is None else np.abs(self.probability - np.asarray(truth, dtype=float))
        self._constant = float(np.clip(constant, EPSILON, 1 - EPSILON))
        self.bin = equal_mass_bins(self.probability)

        # All that follows is in the order of the scores, highest first, so that a draw gathers its weights but once.
        self._order = np.argsort(-self.probability, kind="stable")
        error = self.probability - self.converted
        self._means = np.stack([self.converted, loss, error**2, self.probability, gap])[:, self._order]
        self._error = error[self._order]
        self._bin_starts = _starts(self.bin[self._order])
        self._block_starts = _block_starts(self.probability[self._order], self.converted[self._order])

    def __len__(self) -> int:
        return len(self.converted)

    def evaluate(self, weight: Floats | None = None) -> Floats:
        """float64 [len(METRICS)], in the order of METRICS; weight: float64 [n] >= 0, by default 1 each.

        AUC: Mann-Whitney with half credit for ties. Average precision: sum over thresholds of precision times the gain
        in recall, as scikit-learn's average_precision_score. Lift at k %: tied journeys at the threshold in proportion.
        """
        ranked = np.ones(len(self)) if weight is None else weight[self._order]
        total = float(ranked.sum())
        values = dict.fromkeys(METRICS, np.nan)
        if total > 0:
            means = self._means @ ranked / total
            names = ("base_rate", "log_loss", "brier", "mean_prediction", "gap_to_truth")
            values.update(zip(names, map(float, means), strict=True))
            in_bins = np.add.reduceat(ranked * self._error, self._bin_starts)
            values["calibration_error"] = float(np.abs(in_bins).sum()) / total
            rate = values["base_rate"]
            if np.isfinite(self._constant):
                constant = -rate * np.log(self._constant) - (1 - rate) * np.log1p(-self._constant)
                values["log_loss_skill"] = 1 - values["log_loss"] / constant
            if rate > 0:
                values.update(self._ranking(ranked, total))
        return np.array([values[name] for name in METRICS])

    def reliability(self, weight: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """By bin of equal mass, lowest probabilities first: weight, mean probability, share converted (NaN: empty)."""
        weight = np.ones(len(self)) if weight is None else weight
        bins = int(self.bin.max()) + 1 if len(self) else 0
        weights: Floats = np.bincount(self.bin, weights=weight, minlength=bins).astype(np.float64)
        with np.errstate(invalid="ignore"):
            predicted = np.bincount(self.bin, weights=weight * self.probability, minlength=bins) / weights
            observed = np.bincount(self.bin, weights=weight * self.converted, minlength=bins) / weights
        return weights, predicted, observed

    def thresholds(self) -> tuple[Floats, Floats]:
        """Down the ranking, wherever a curve can turn: journeys seen so far, conversions found so far."""
        hits, counts = self._blocks(np.ones(len(self)))
        return np.cumsum(counts), np.cumsum(hits)

    def _blocks(self, ranked: Floats) -> tuple[Floats, Floats]:
        """Per block of tied scores, highest first: weight of the converted, weight of all."""
        if len(ranked) == 0:
            return ranked, ranked
        hits = np.add.reduceat(ranked * self._means[0], self._block_starts)
        return hits, np.add.reduceat(ranked, self._block_starts)

    def _ranking(self, ranked: Floats, total: float) -> dict[str, float]:
        hits, counts = self._blocks(ranked)
        found, seen = np.cumsum(hits), np.cumsum(counts)
        positives = float(found[-1])
        values = {}
        if positives < total:
            values["roc_auc"] = float((counts - hits) @ (found - hits / 2)) / (positives * (total - positives))
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        values["pr_auc"] = float(hits @ precision) / positives
        for percent in LIFT_PERCENTS:
            wanted = total * percent / 100
            block = int(np.searchsorted(seen, wanted))
            part = (wanted - (seen[block] - counts[block])) / counts[block]
            captured = found[block] - hits[block] * (1 - part)
            values[f"lift_{percent}"] = float(captured) / positives / (percent / 100)
        return values


def log_losses(converted: Floats, probability: Floats) -> Floats:
    """float64 [n]: -ln(probability given to what happened); converted: float64 [n], 0 or 1; probability: float64 [n].

    Probabilities are clipped to [EPSILON, 1 - EPSILON].
    """
    clipped = np.clip(probability, EPSILON, 1 - EPSILON)
    losses: Floats = -np.where(converted > 0, np.log(clipped), np.log1p(-clipped))
    return losses


def _starts(ranked: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, dtype=np.int64)


def _block_starts(probability: Floats, converted: Floats) -> NDArray[np.int64]:
    """Where each block of tied scores starts, neighbouring blocks without a conversion taken as one.

    Among journeys that did not convert no order matters to any ranking metric, and where conversions are rare there are
    few blocks left.
    """
    starts = _starts(probability)
    if len(starts) < 2:
        return starts
    barren = np.add.reduceat(converted, starts) == 0
    return starts[np.append(True, ~(barren[1:] & barren[:-1]))]


def equal_mass_bins(probability: Floats, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """int64 [n]: the bin, 0 the lowest, of each row; equally many rows a bin, tied probabilities in one bin.

    Where many are tied (or n < bins) there are fewer bins, numbered without holes; what is above the last tie and less
    than a bin's mass joins it.
    """
    n = len(probability)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    ranked = np.sort(probability)
    edges = np.unique(ranked[np.arange(1, bins) * n // bins])
    edges = edges[edges > ranked[0]]
    return np.searchsorted(edges, probability, side="right").astype(np.int64)
