"""Whether lots were drawn: what in the data speaks against a campaign's declaration as randomised."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.assignments import Assigned
from trainer.experiment import SUSPICIOUS, Floats, predictable_p, sample_ratio_p, uneven_shares_p

RULES = {
    "planned share": "The share treated is as planned (--planned_share): a score test clustered by customer, p at "
    "least 0.001.",
    "same share in every sending": "The share treated is the same at every instant of assignment: a score test "
    "clustered by customer, p at least 0.001.",
    "not foretold by the journey": "A cross-fitted model of who is treated, given journey and customer fields, finds "
    "nothing: p at least 0.001.",
}
_SENDING = 100  # assignments at one instant, on average, below which customers are assigned one by one


def checks(rows: Assigned, propensities: Floats, planned_share: float | None) -> list[dict[str, Any]]:
    """One row a rule: name, p_value and status, of assignments of known outcome.

    propensities: float64 [n], each assignment's probability of being treated, out of fold. A share that nobody planned
    is not checked.
    """
    sending = np.unique(rows.as_of, return_inverse=True)[1]
    if np.bincount(sending).mean() < _SENDING:  # by thirtieths of the time, in order
        sending = np.argsort(np.argsort(rows.as_of, kind="stable")) * 30 // len(rows)
    ratio = None if planned_share is None else sample_ratio_p(rows.treated, rows.customer, planned_share)
    foretold = predictable_p(rows.treated, propensities, rows.customer)
    return [
        {
            "name": name,
            "p_value": value,
            "status": "not checked" if value is None else "failed" if value < SUSPICIOUS else "passed",
        }
        for name, value in zip(
            RULES, (ratio, uneven_shares_p(rows.treated, sending, rows.customer), foretold), strict=True
        )
    ]
