"""The plots of influence.html, as self-contained SVG strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocessing.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Plot, above, percent_ticks
from trainer.influence_words import LEARNERS

_LINES = {
    "s_learner": (BLUE, "-"),
    "t_learner": (VERMILION, (0, (5, 1.5))),
    "dr_learner": (GREEN, (0, (3, 1, 1, 1))),
}
_BARS = {
    "shapley": ("model (Shapley)", BLUE),
    "last touch": ("last touch", VERMILION),
    "first touch": ("first touch", ORANGE),
    "linear": ("linear", GREEN),
    "position": ("position", PURPLE),
}


def effects(campaigns: list[dict[str, Any]]) -> str:
    """Each campaign's effect with its interval; associations hollow."""
    plot = Plot("effects", "Effect of each campaign with its 95 % interval.", height=1.2 + 0.5 * len(campaigns))
    with plot.drawn() as (axes,):
        for place, campaign in enumerate(reversed(campaigns)):
            effect = campaign["effect"]
            random = campaign["claim"] == "randomised"
            colour = BLUE if random else ORANGE
            axes.plot([effect["low"], effect["high"]], [place, place], color=colour, lw=1.8)
            axes.plot(
                [effect["value"]], [place], "o" if random else "D", color=colour, mfc=colour if random else "white"
            )
        axes.axvline(0, color=GREY, lw=0.8)
        axes.set_yticks(range(len(campaigns)), [campaign["campaign"] for campaign in reversed(campaigns)])
        axes.set(xlabel="Effect (full: randomised; hollow: association)")
        axes.set(ylim=(-0.6, len(campaigns) - 0.4))
        axes.locator_params(axis="x", nbins=5)  # names take the room of more
        percent_ticks(axes, "x")
    return plot.svg


def qini_curves(name: str, uplift: dict[str, Any]) -> str:
    """Extra conversions per treated over the share taken, by learner, above the straight line of chance."""
    plot = Plot(f"qini-{name}", "Qini curve of each learner against the line of chance.")
    with plot.drawn() as (axes,):
        for learner, found in uplift.items():
            colour, style = _LINES[learner]
            label = LEARNERS[learner].split(":")[0]
            axes.plot(found["curve"]["share"], found["curve"]["qini"], color=colour, ls=style, lw=1.6, label=label)
        end = found["curve"]["qini"][-1]
        axes.plot([0, 1], [0, end], color=GREY, lw=0.8, label="chance")
        axes.set(xlabel="Share of assignments, highest predicted uplift first", ylabel="Extra conversions per treated")
        axes.set(xlim=(0, 1))
        percent_ticks(axes, "xy")
        above(axes, 2)
    return plot.svg


def deciles(name: str, rows: list[dict[str, Any]]) -> str:
    """Measured and predicted uplift by tenth of the ranking."""
    plot = Plot(f"deciles-{name}", "Uplift by tenth of the ranking, measured with intervals, and predicted.")
    with plot.drawn() as (axes,):
        there = [row for row in rows if row["value"] is not None]
        if there:
            place, value, low, high = (
                np.array([row[key] for row in there]) for key in ("decile", "value", "low", "high")
            )
            axes.errorbar(
                place, value, [value - low, high - value], fmt="o", color=BLUE, elinewidth=1, label="measured"
            )
        shown = [row for row in rows if row["predicted"] is not None]
        axes.plot(
            [row["decile"] for row in shown],
            [row["predicted"] for row in shown],
            "_",
            color=VERMILION,
            ms=14,
            mew=2,
            label="predicted",
        )
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set(xlabel="Tenth of the ranking, highest predicted uplift first", ylabel="Uplift")
        axes.set_xticks(range(1, 11))
        percent_ticks(axes, "y")
        above(axes, 2)
    return plot.svg


def overlap(name: str, histogram: dict[str, Any]) -> str:
    """Assignments by propensity: treated above the line, held out below."""
    plot = Plot(f"overlap-{name}", "How many treated and held-out assignments there are at each propensity.")
    with plot.drawn() as (axes,):
        edges = np.array(histogram["edges"])
        treated, held_out = (np.array(histogram[arm]) for arm in ("treated", "held_out"))
        axes.stairs(treated, edges, fill=True, color=BLUE, alpha=0.75, label="treated")
        axes.stairs(-held_out, edges, fill=True, color=ORANGE, alpha=0.75, label="held out")
        axes.axhline(0, color=GREY, lw=0.8)
        from matplotlib.ticker import FuncFormatter

        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
        axes.set(xlabel="Propensity: P(treated | journey, customer)", ylabel="Assignments", xlim=(0, 1))
        percent_ticks(axes, "x")
        axes.legend()
    return plot.svg


def attribution(column: dict[str, Any]) -> str:
    """Conversions credited to each player, by the model and by each rule."""
    players = column["players"]
    plot = Plot(
        f"credit-{column['column']}",
        "Conversions credited to each value, by rule.",
        height=1.1 + 0.62 * max(len(players), 1),
    )
    with plot.drawn() as (axes,):
        width = 0.8 / len(_BARS)
        base = np.arange(len(players))[::-1]
        for number, (rule, (label, colour)) in enumerate(_BARS.items()):
            credit = [player[rule] for player in players]
            error = [1.96 * player["se"] for player in players] if rule == "shapley" else None
            axes.barh(base + 0.4 - width * (number + 0.5), credit, width, xerr=error, color=colour, label=label)
        axes.axvline(0, color=GREY, lw=0.8)
        axes.set_yticks(base, [player["name"] for player in players])
        axes.set(xlabel="Conversions credited")
        axes.legend(loc="lower right")
    return plot.svg
