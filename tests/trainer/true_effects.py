"""What a ranking is worth where a simulation knows each assignment's true effect."""

from __future__ import annotations

import numpy as np

from trainer.experiment import Floats
from trainer.qini import area_above_chance


def of_true_effects(uplift: Floats, effect: Floats) -> float:
    """The Qini coefficient of a ranking where each assignment's true effect is known, as in a simulation.

    The curve is then the sum of the true effects of the first k, over n. uplift, effect: float64 [n].
    """
    order = np.argsort(-uplift, kind="stable")
    ranked = uplift[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    gained = np.cumsum(effect[order])[ends] / len(effect)
    return area_above_chance(np.append(0.0, (ends + 1) / len(effect)), np.append(0.0, gained))
