"""The double run's plots, each a self-contained SVG string; the incumbent is grey, the candidate blue."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploy.scores import Floats
from preprocessing.svg import Plot, above, percent_ticks

COLOURS = {"incumbent": "#6b6b6b", "candidate": "#0072B2"}
MARKERS = {"incumbent": "s", "candidate": "o"}
_RARE = 0.1  # below this mean score, probabilities are drawn on logarithmic axes
_MOST_POINTS = 4000


def scatter(incumbent: Floats, candidate: Floats, of: str = "score") -> str:
    """The candidate's score over the incumbent's, a point a journey (evenly thinned), and both scores' quantiles."""
    plot = Plot("scatter", f"The candidate's {of} against the incumbent's, a point a journey, equal quantiles joined.")
    step = -(-len(incumbent) // _MOST_POINTS)
    with plot.drawn() as (axes,):
        low = 0.0
        if max(incumbent.mean(), candidate.mean()) < _RARE:
            low = max(min(float(np.quantile(x, 0.001)) for x in (incumbent, candidate)), 1e-6)
            axes.set(xscale="log", yscale="log")
        top = max(float(incumbent.max()), float(candidate.max()), low * 2)
        axes.plot([low, top], [low, top], color=COLOURS["incumbent"], lw=0.8, label=f"equal {of}s")
        # rasterized, or thousands of points are a megabyte of page
        axes.plot(
            np.maximum(incumbent[::step], low), np.maximum(candidate[::step], low), ".", color=COLOURS["candidate"],
            ms=2.5, alpha=0.35, mew=0, rasterized=True,
        )  # fmt: skip
        if of == "score":
            at = np.linspace(0.01, 0.99, 50)
            quantiles = (np.quantile(scores, at) for scores in (incumbent, candidate))
            axes.plot(*quantiles, color="#D55E00", lw=1.6, label="equal quantiles")
            axes.legend(loc="upper left")
        axes.set(xlim=(low, top), ylim=(low, top), xlabel=f"Incumbent's {of}", ylabel=f"Candidate's {of}")
        percent_ticks(axes, "xy")
    return plot.svg


def shift(bins: list[dict[str, Any]]) -> str:
    """Share of each side's scores in the bins of the PSI, lowest first."""
    plot = Plot("shift", "Share of scores in each bin of the incumbent's tenths, for incumbent and candidate.")
    with plot.drawn() as (axes,):
        places = np.arange(len(bins))
        for i, side in enumerate(COLOURS):
            axes.bar(places + 0.4 * i - 0.2, [one[side] for one in bins], 0.38, color=COLOURS[side], label=side)
        named = [f"≤ {100 * one['to']:.2g} %" if one["to"] is not None else "above" for one in bins]
        axes.set_xticks(places, named, rotation=45, ha="right")
        axes.set(xlabel="Score, in bins of a tenth of the incumbent's", ylabel="Share of journeys")
        axes.grid(visible=False, axis="x")
        percent_ticks(axes, "y")
        above(axes, 2)
    return plot.svg


def reliability(bins: dict[str, list[dict[str, Any]] | None]) -> str:
    """Share converted over mean probability of both sides, with 95 % intervals; logarithmic where rare."""
    plot = Plot("calibration", "Share converted against mean predicted probability, for incumbent and candidate.")
    drawn = {side: one for side, one in bins.items() if one}
    predicted = {side: np.array([b["predicted"] for b in one], dtype=float) for side, one in drawn.items()}
    observed = {side: np.array([b["observed"]["value"] for b in one], dtype=float) for side, one in drawn.items()}
    everything = np.concatenate([*predicted.values(), *observed.values()])
    positive = everything[everything > 0]
    if not len(positive):
        return ""
    with plot.drawn() as (axes,):
        floor, top = 0.0, min(1.0, 1.3 * float(positive.max()))
        if float(np.median(positive)) < _RARE:
            floor = float(positive.min()) / 2
            axes.set(xscale="log", yscale="log")
        axes.plot([floor, top], [floor, top], color="#9a9a9a", lw=0.8)
        for side, one in drawn.items():
            shown = np.maximum(observed[side], floor)
            low, high = (np.array([b["observed"][end] for b in one], dtype=float) for end in ("low", "high"))
            error = np.nan_to_num(np.stack([shown - np.clip(low, floor, shown), np.clip(high, shown, None) - shown]))
            axes.errorbar(predicted[side], shown, error, fmt="none", ecolor=COLOURS[side], elinewidth=1, alpha=0.6)
            axes.plot(predicted[side], shown, MARKERS[side], color=COLOURS[side], ms=4.5, label=side)
        axes.set(xlabel="Mean predicted probability", ylabel="Share converted", xlim=(floor, top), ylim=(floor, top))
        percent_ticks(axes, "xy")
        axes.legend(loc="upper left")
    return plot.svg
