"""The thresholds file of a double run: which rules are asked, and their limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocessing import yamlfile
from preprocessing.blocks import Block

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(ge=0, le=1)]


class Enough(Block):
    """How many known outcomes quality is judged on, at the least."""

    min_journeys: Annotated[int, Field(ge=1)] = 1
    min_conversions: Annotated[int, Field(ge=1)]


class Margin(Block):
    """By how much a metric may be worse (or, goal better, must be better), in its units or as a share of the
    incumbent's value."""

    margin: NotNegative | None = None
    margin_share: NotNegative | None = None
    goal: Literal["not worse", "better"] = "not worse"

    @model_validator(mode="after")
    def _one(self) -> Margin:
        if (self.margin is None) == (self.margin_share is None):
            raise ValueError("expected either margin or margin_share")
        return self


class Quality(Block):
    roc_auc: Margin | None = None
    pr_auc: Margin | None = None
    log_loss: Margin | None = None
    brier: Margin | None = None
    lift_1: Margin | None = None
    lift_5: Margin | None = None
    lift_10: Margin | None = None
    lift_20: Margin | None = None


class Calibration(Block):
    max_error: Positive


class Pairing(Block):
    max_candidate_missing: Part | None = None
    max_incumbent_missing: Part | None = None
    max_strays: Part | None = None


class Errors(Block):
    max_rate: Part


class Latency(Block):
    max_p50_ms: Positive | None = None
    max_p95_ms: Positive | None = None
    max_p99_ms: Positive | None = None


class Cost(Block):
    """Of 1,000 predictions: the candidate's over the incumbent's, and the candidate's alone in the prices' currency."""

    max_ratio: Positive | None = None
    max_per_1000: Positive | None = None


class Agreement(Block):
    min_spearman: Annotated[float, Field(ge=-1, le=1)] | None = None
    min_top_decile_overlap: Part | None = None
    max_psi: Positive | None = None


class Thresholds(Block):
    """The thresholds file: a block that is not there is not asked."""

    outcomes: Enough
    quality: Quality
    calibration: Calibration | None = None
    pairing: Pairing = Pairing()
    errors: Errors | None = None
    latency: Latency = Latency()
    cost: Cost = Cost()
    agreement: Agreement = Agreement()


def load_thresholds(path: str | Path) -> Thresholds:
    """Reads a thresholds file. Raises UserError with a line for each mistake."""
    found: Thresholds = yamlfile.parse(yamlfile.read_text(path, "thresholds file"), str(path), lambda _: Thresholds)
    return found
