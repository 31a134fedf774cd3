"""Why a journey has its probability: day by day ahead, event by event so far, campaign by campaign."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from deploy import instants
from deploy.scorer import Scorer
from preprocessing.blocks import ASKED

Arrays = Mapping[str, np.ndarray]


def by_horizon(names: list[str], probabilities: np.ndarray) -> dict[str, float | None]:
    """Probabilities float32 [horizons] under the horizons' names, None for NaN."""
    return {name: None if math.isnan(p) else p for name, p in zip(names, probabilities.tolist(), strict=True)}


def askable(arrays: Arrays, about: Mapping[str, Any]) -> list[str]:
    """The campaigns of a journey's events, by first touch, and after them those that the model was trained to be asked
    about, touched or not; none where the model knows of no campaigns."""
    about_campaigns = about.get("campaigns")
    if not about_campaigns:
        return []
    found: list[str] = []
    if about_campaigns["column"] is not None:
        length = int(arrays["length"][0])
        order = np.argsort(arrays["event_time"][0, :length], kind="stable")
        found = arrays[about_campaigns["column"]][0, :length][order].tolist()
    if about_campaigns.get("assigned"):
        found += about_campaigns["known"]
    return [campaign for campaign in dict.fromkeys(found) if campaign]


def explain(scorer: Scorer, arrays: Arrays, key: str | None, campaigns: list[str]) -> dict[str, Any]:
    """The explanation of one journey, as JSON values.

    arrays: of one row. Curve, running and influence are empty where the model has no signature that gives them.
    """
    about = scorer.about
    names = [str(h) for h in about["horizons_days"]]
    answer: dict[str, Any] = {
        "key": key,
        "model_version": about["model_version"],
        "probabilities": by_horizon(names, scorer.score(arrays)[0]),
        "curve": [],
        "running": [],
        "influence": [],
    }
    if scorer.has_evolution:
        evolution = scorer.evolution(arrays)
        curve = zip(evolution["days"].tolist(), evolution["curve"][0].tolist(), strict=True)
        answer["curve"] = [{"days": days, "probability": probability} for days, probability in curve]
        count = int(evolution["running_length"][0])
        steps = zip(evolution["running_time"][0, :count].tolist(), evolution["running"][0, :count], strict=True)
        # each prefix is asked about a microsecond after its last event
        answer["running"] = [
            {**_when(instant - 1, about), "probabilities": by_horizon(names, probabilities)}
            for instant, probabilities in steps
        ]
    if scorer.has_influence and campaigns:
        found = scorer.influence(arrays, campaigns)
        answer["influence"] = [
            {
                "campaign": campaign,
                "with": by_horizon(names, found["with_campaign"][i]),
                "without": by_horizon(names, found["without_campaign"][i]),
                "difference": by_horizon(names, found["difference"][i]),
                "claim": found["claim"][i],
                "reason": found["reason"][i],
            }
            for i, campaign in enumerate(campaigns)
        ]
    return answer


def sample(about: Mapping[str, Any], events: int = 5) -> dict[str, Any]:
    """An instance made up from the model's vocabulary, a few days of events; no customer's."""
    values = about.get("vocabulary", {})

    def field(name: str, kind: str, turn: int) -> Any:
        if kind == "numeric":
            return None
        known = values.get(name, [])
        return known[turn % len(known)] if known else None

    as_of = 1_780_272_000_000_000  # 2026-06-01; only times before it matter, and they move along
    dated = about["journeys"] == "dated"
    made = []
    for turn in range(events):
        when = as_of - (events - turn) * 36 * 3_600_000_000
        time = {"event_time": instants.text(when)} if dated else {"seconds": turn * 30.0}
        made.append(time | {name: field(name, kind, turn) for name, kind in about["sequence"].items()})
    customer = {name: field(name, kind, 0) for name, kind in about["customer"].items()}
    customer |= {ASKED: None} if ASKED in customer else {}
    return {"key": "sample", **({"as_of": instants.text(as_of)} if dated else {}), **customer, "events": made}


def _when(instant: int, about: Mapping[str, Any]) -> dict[str, Any]:
    if about["journeys"] == "dated":
        return {"event_time": instants.text(instant)}
    return {"seconds": instant / 1e6}
