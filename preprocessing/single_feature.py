"""How well one feature alone ranks journeys by whether they convert: too well, and it knows the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 20
SURE_AUC = 0.9  # no honest single feature of a purchase ranks so well
STRONG_AUC = 0.8
FEWEST_CONVERSIONS = 20  # and journeys without: below, nothing is said
_PRIOR = 5.0  # journeys at the base rate that each bin's rate starts from


def rate_auc(code: NDArray[np.int64], converted: NDArray[np.bool_], half: NDArray[np.int64]) -> float:
    """ROC-AUC of the conversion rate of each code, learnt on one half (0 or 1, int64 [n]) and ranked on the other.

    code: int64 [n] >= 0; a feature of any shape, a category or missingness counts alike. The mean of the two halves;
    0.5 where a half lacks one kind of outcome. Rates are shrunk to the base rate by _PRIOR journeys.
    """
    codes = int(code.max(initial=0)) + 1
    counts = np.stack([np.bincount(code[half == h], minlength=codes) for h in (0, 1)]).astype(np.float64)
    hits = np.stack([np.bincount(code[(half == h) & converted], minlength=codes) for h in (0, 1)]).astype(np.float64)
    aucs = []
    for learnt, ranked in ((0, 1), (1, 0)):
        rate = hits[learnt].sum() / max(counts[learnt].sum(), 1.0)
        score = (hits[learnt] + _PRIOR * rate) / (counts[learnt] + _PRIOR)
        block = np.unique(score, return_inverse=True)[1]
        good = np.bincount(block, weights=hits[ranked])
        bad = np.bincount(block, weights=counts[ranked]) - good
        pairs = good.sum() * bad.sum()
        aucs.append(float(good @ (np.cumsum(bad) - bad / 2)) / pairs if pairs else 0.5)
    return (aucs[0] + aucs[1]) / 2


def binned(column: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64 [n]: 0 missing, then BINS bins of equally many; few distinct values (codes, counts) keep a bin each."""
    there = column[~np.isnan(column)]
    values = np.unique(there)
    edges = values[1:] if len(values) <= 256 else np.unique(np.quantile(there, np.arange(1, BINS) / BINS))
    code = np.searchsorted(edges, column, side="right") + 1
    code[np.isnan(column)] = 0
    return code.astype(np.int64)
