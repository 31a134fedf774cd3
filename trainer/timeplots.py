"""Plots over time: differences between the models by as_of, and how one journey's probability moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.spec import DAY_US
from preprocessing.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Plot, above, percent_ticks
from trainer.evolution import Told
from trainer.plots import STYLES
from trainer.tables import NAMES, SHORT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPARED = ("roc_auc", "log_loss")
MARKERS = "os^Dv"
COLOURS = (VERMILION, GREEN, ORANGE, PURPLE, "#222222")


def differences(by_as_of: Sequence[dict[str, Any]]) -> str:
    """LSTM minus each fitted baseline by as_of, ROC-AUC above, log loss below, bars 95 % intervals; "" without any.

    An as_of of too few customers is left out.
    """
    by_as_of = [one for one in by_as_of if not one["suppressed"]]
    models = [m for m in ("gradient_boosting", "recency_frequency") if by_as_of and m in by_as_of[0]["differences"]]
    if not models:
        return ""
    plot = Plot(
        "differences", "LSTM minus each baseline by test as_of, with 95 % intervals, above or below zero.", 2, 4.6
    )
    with plot.drawn() as drawn:
        for axes, name in zip(drawn, COMPARED, strict=True):
            for i, model in enumerate(models):
                gaps = [one["differences"].get(model, {}).get(name, {}) for one in by_as_of]
                value, low, high = (
                    np.array([gap.get(key) for gap in gaps], dtype=float) for key in ("value", "low", "high")
                )
                x = np.arange(len(gaps)) + 0.16 * (i - (len(models) - 1) / 2)
                error = np.nan_to_num(np.stack([np.clip(value - low, 0, None), np.clip(high - value, 0, None)]))
                colour = STYLES[model]["color"]
                axes.errorbar(
                    x, value, error, fmt=MARKERS[i], color=colour, ms=5, elinewidth=1.2, label=f"minus {SHORT[model]}"
                )
            axes.axhline(0, color=GREY, lw=0.9)
            better = "below 0: better" if name == "log_loss" else "above 0: better"
            axes.set(ylabel=f"{NAMES[name]}\n({better})")
            axes.margins(y=0.15)
            axes.set_xlim(-0.5, len(by_as_of) - 0.5)
        _named(drawn, [one["as_of"] for one in by_as_of])
        drawn[-1].set(xlabel="as_of (UTC)")
        above(drawn[0], 2)
    return plot.svg


def _named(drawn: Sequence[Axes], labels: Sequence[str]) -> None:
    """At most six of the labels below the lowest axes."""
    step = -(-len(labels) // 6)
    places = list(range(0, len(labels), step))
    for axes in drawn:
        axes.set_xticks(places, [labels[i] for i in places] if axes is drawn[-1] else [])


def running(one: Told, horizons: Sequence[int], kinds: Sequence[str], dated: bool, field: str) -> str:
    """The probability after each event, a step an event, over the days before as_of; events marked by kind.

    kinds: values that get a marker of their own; others are grey points. Every horizon is drawn, the longest bold, with
    the markers on it.
    """
    name = f"running-{one.rule.replace('_', '-')}"
    plot = Plot(
        name, "The probability of a conversion after each event of the journey, as steps over time.", height=3.9
    )
    with plot.drawn() as (axes,):
        unit = DAY_US if dated else 1_000_000
        end = one.as_of if dated else one.event_time[0]
        x = (one.event_time - end) / unit
        for i, horizon in enumerate(horizons):
            last = i == len(horizons) - 1
            style: dict[str, Any] = (
                {"color": BLUE, "lw": 1.8} if last else {"color": "#8fb8d6", "lw": 1.1, "ls": ("--", ":")[i % 2]}
            )
            label = f"within {horizon} {'day' if horizon == 1 else 'days'}" if dated else "probability"
            values = one.running[:, i]
            edge = np.append(x, 0.0 if dated else x[-1])
            axes.step(edge, np.append(values, values[-1]), where="post", label=label, **style)
        height = one.running[:, -1]
        for i, kind in enumerate(kinds):
            here = [j for j, event in enumerate(one.event) if event == kind]
            if here:
                axes.plot(x[here], height[here], MARKERS[i], color=COLOURS[i], ms=5, ls="", label=kind, zorder=6)
        rest = [j for j, event in enumerate(one.event) if event not in kinds]
        if rest:
            axes.plot(x[rest], height[rest], ".", color=GREY, ms=5, ls="", label=f"other {field}".strip(), zorder=6)
        axes.set(xlabel="Days before as_of" if dated else "Seconds since the start", ylim=(0, None))
        axes.set(ylabel="P(converts)")
        if dated:
            from matplotlib.ticker import FuncFormatter

            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
        percent_ticks(axes, "y")
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
        axes.legend(ncols=3, fontsize=9, handlelength=1.4, columnspacing=1.0, **below)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
    return plot.svg


def curve(one: Told, horizons: Sequence[int], gap: int) -> str:
    """P(converts within so many days of as_of + gap), and the day on which it happened."""
    name = f"curve-{one.rule.replace('_', '-')}"
    plot = Plot(
        name, "The predicted probability of a conversion by day after as_of, and the day it happened.", height=3.2
    )
    with plot.drawn() as (axes,):
        axes.plot(one.curve_days, one.curve, color=BLUE, lw=2.0, label="predicted")
        at = np.interp(horizons, one.curve_days, one.curve)
        axes.plot(horizons, at, "o", color=BLUE, ms=5, ls="", label="horizons")
        last = float(one.curve_days[-1])
        if one.days <= last:
            axes.axvline(one.days, color=VERMILION, lw=1.6, ls=(0, (5, 1.5)), label=f"converted on day {one.days:.1f}")
        top = float(one.curve.max(initial=0.0))
        start = "as_of" if gap == 0 else f"as_of + {gap} days"
        axes.set(xlabel=f"Days after {start}", ylabel="P(converts by this day)", xlim=(0, last * 1.02))
        axes.set_ylim(0, 1.15 * top or 1)
        percent_ticks(axes, "y")
        axes.legend(loc="best")
        if one.days > last:
            until = "no conversion seen" if np.isinf(one.days) else f"converted later, on day {one.days:.0f}"
            axes.set_title(until, loc="right", color=GREY)
    return plot.svg
