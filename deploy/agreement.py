"""How far two sets of scores agree: by rank, at the top, in their distribution, and where they differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.scores import Floats

PSI_BINS = 10
LISTED = 20
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
DEFINITIONS = {
    "spearman": "Correlation of the two rankings: 1 the same order, 0 no relation, -1 the reverse.",
    "kendall": "Kendall's tau-b: of two journeys taken at random, how much likelier the two scorers order them alike "
    "than not; ties are left out of account.",
    "top_decile_overlap": "Of the tenth of journeys that the incumbent scores highest, the share that is also in the "
    "candidate's highest tenth; journeys tied at the threshold count in proportion. By chance: 10 %.",
    "psi": f"Population stability index of the scores: over {PSI_BINS} bins that each hold a tenth of the incumbent's "
    "scores, the sum of (q - p) · ln(q / p), where p and q are the shares of incumbent and candidate in the bin, each "
    "share counted as (n + 0.5) / (N + 0.5 · bins) so that an empty bin has a logarithm. "
    "Customary reading: below 0.1 little shift, above 0.25 a large one.",
}


def agreement(incumbent: Floats, candidate: Floats, *, comparable: bool) -> dict[str, Any]:
    """Figures over n paired journeys (float64 [n] each); null where undefined, with `reason`.

    comparable: whether both are probabilities; else nothing is said of differences in value.
    Spearman and Kendall (tau-b) by scipy.stats; the PSI is described in DEFINITIONS.
    """
    from scipy import stats

    n = len(incumbent)
    found: dict[str, Any] = {
        "journeys": n,
        "spearman": None,
        "kendall": None,
        "top_decile_overlap": None,
        "reason": None,
    }
    if n < 2:
        return found | {"reason": "fewer than two paired journeys", "psi": None, "shift": None}
    if np.ptp(incumbent) == 0 or np.ptp(candidate) == 0:
        which = "incumbent" if np.ptp(incumbent) == 0 else "candidate"
        found["reason"] = f"the {which} gives every journey the same score"
    else:
        found["spearman"] = float(stats.spearmanr(incumbent, candidate).statistic)
        found["kendall"] = float(stats.kendalltau(incumbent, candidate).statistic)
    found["top_decile_overlap"] = top_overlap(incumbent, candidate)
    if not comparable:
        return found | {
            "psi": None,
            "shift": None,
            "psi_reason": "one side's score is a rank: its values cannot be held against probabilities",
        }
    found["psi"], found["psi_bins"] = psi(incumbent, candidate)
    found["shift"] = {
        "mean_difference": float(np.mean(candidate - incumbent)),
        "mean_absolute_difference": float(np.mean(np.abs(candidate - incumbent))),
        "largest_difference": float(np.max(np.abs(candidate - incumbent))),
        "quantiles": {
            f"{q:g}": {"incumbent": float(np.quantile(incumbent, q)), "candidate": float(np.quantile(candidate, q))}
            for q in QUANTILES
        },
    }
    return found


def top_overlap(one: Floats, other: Floats, share: float = 0.1) -> float:
    """How much of the highest `share` of scores both have in common, 0 … 1; ties at the threshold in proportion."""
    return float(np.minimum(_membership(one, share), _membership(other, share)).sum() / (share * len(one)))


def _membership(scores: Floats, share: float) -> Floats:
    """float64 [n]: 1 above the threshold, 0 below, and what is left of the share divided among those tied at it."""
    wanted = share * len(scores)
    ranked = np.sort(scores)[::-1]
    threshold = ranked[int(np.ceil(wanted)) - 1]
    above, tied = scores > threshold, scores == threshold
    return np.where(above, 1.0, np.where(tied, (wanted - above.sum()) / tied.sum(), 0.0))


def psi(incumbent: Floats, candidate: Floats, bins: int = PSI_BINS) -> tuple[float, list[dict[str, Any]]]:
    """The index, and its bins, lowest first: upper bound (null: none), share of each. Ties share a bin, so there may be
    fewer bins than asked."""
    edges = np.unique(np.quantile(incumbent, np.arange(1, bins) / bins))
    counts = [
        np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (incumbent, candidate)
    ]
    p, q = (
        (count + 0.5) / (len(x) + 0.5 * len(count)) for count, x in zip(counts, (incumbent, candidate), strict=True)
    )
    table = [
        {
            "to": float(edges[i]) if i < len(edges) else None,
            "incumbent": float(counts[0][i] / len(incumbent)),
            "candidate": float(counts[1][i] / len(candidate)),
        }
        for i in range(len(p))
    ]
    return float(np.sum((q - p) * np.log(q / p))), table


def percentiles(scores: Floats) -> Floats:
    """float64 [n] in (0, 1): mean rank of ties, from the lowest, over n + 1. Keeps the order of any score."""
    from scipy import stats

    return np.asarray(stats.rankdata(scores) / (len(scores) + 1), dtype=np.float64)


def disagreements(incumbent: Floats, candidate: Floats, listed: int = LISTED) -> NDArray[np.int64]:
    """Rows of the largest |candidate - incumbent|, largest first; of equal ones, the first."""
    return np.argsort(-np.abs(candidate - incumbent), kind="stable")[:listed].astype(np.int64)
