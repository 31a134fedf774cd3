"""Plots of the page before training: each an SVG that loads nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from preprocessing.event_findings import GAPS_A_DECADE
from preprocessing.findings import NONE, OTHER, START, STEPS, Rate, doubled
from preprocessing.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Plot, percent_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, "#56B4E9", "#4d4d4d")
STEP_COLOURS = (BLUE, GREEN, ORANGE, PURPLE, "#56B4E9", "#4d4d4d")  # the red one is that of conversions
LINES = ("-", "--", "-.", ":", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SPANS = ((1, "1 s"), (60, "1 min"), (3600, "1 h"), (86400, "1 d"), (2592000, "30 d"))
_LABEL = 22  # letters of a name


def over_time(rows: Sequence[tuple[float, str, int]], step_days: int, field: str) -> str:
    """Events a week or day, a line a value; the first and the last step may be cut short."""
    total: dict[str, int] = {}
    for _, value, n in rows:
        total[value] = total.get(value, 0) + n
    names = sorted(total, key=lambda name: (name in (OTHER, NONE), -total[name]))
    days = sorted({day for day, _, _ in rows})
    grid = np.arange(days[0], days[-1] + 1, step_days)
    at = {day: i for i, day in enumerate(grid)}
    unit = "week" if step_days == 7 else "day"
    plot = Plot("over-time", f"Events per {unit} for each value of {field}, as lines over time, on a logarithmic axis.")
    with plot.drawn() as (axes,):
        for i, name in enumerate(names):
            counts = np.zeros(len(grid))
            for day, value, n in rows:
                if value == name:
                    counts[at[day]] += n
            x = np.array([dt.date(1970, 1, 1) + dt.timedelta(days=int(day)) for day in grid])
            colour = GREY if name in (OTHER, NONE) else COLOURS[i % len(COLOURS)]
            style = LINES[i % len(LINES)]
            counts[counts == 0] = np.nan
            axes.plot(x, counts, color=colour, ls=style, lw=1.6, marker=".", ms=3.5, label=_short(name))
        axes.set(yscale="log", ylabel=f"Events per {unit}")
        columns = 3 if max(len(_short(name)) for name in names) < 14 else 2
        _dates(axes)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, handlelength=2.2)
    return plot.svg


def lengths(rows: Sequence[tuple[int, int]], max_events: int) -> str:
    """Journeys by their number of events: 0, 1, 2, then bins that double."""
    bins: dict[int, int] = {}
    for length, n in rows:
        at = 0 if length == 0 else int(np.log2(length)) + 1
        bins[at] = bins.get(at, 0) + n
    total = sum(bins.values())
    places = list(range(max(bins) + 1))
    names = ["0", *(doubled(i - 1, max_events) for i in places[1:])]
    plot = Plot("lengths", "Share of journeys by their number of events, as bars.")
    with plot.drawn() as (axes,):
        shares = [bins.get(i, 0) / total for i in places]
        axes.bar(places, shares, color=BLUE, width=0.75)
        for i, share in zip(places, shares, strict=True):
            axes.text(i, share, f"{100 * share:.1f}", ha="center", va="bottom", fontsize=9, color=GREY)
        axes.set_xticks(places, names)
        axes.set(xlabel=f"Events of the journey (at most {max_events} are kept)", ylabel="Share of journeys")
        axes.grid(visible=False, axis="x")
        percent_ticks(axes, "y")
    return plot.svg


def gaps(rows: Sequence[tuple[int, int]]) -> str:
    """Time between neighbouring events of a customer, on a logarithmic axis."""
    plot = Plot("gaps", "Time between neighbouring events of a customer, as bars on a logarithmic time axis.")
    total = sum(n for _, n in rows)
    with plot.drawn() as (axes,):
        left = [10 ** (bin / GAPS_A_DECADE) for bin, _ in rows]
        width = [10 ** ((bin + 1) / GAPS_A_DECADE) - edge for (bin, _), edge in zip(rows, left, strict=True)]
        axes.bar(left, [n / total for _, n in rows], width=width, align="edge", color=BLUE, ec="white", lw=0.6)
        axes.set(xscale="log", xlabel="Time since the customer's event before", ylabel="Share of gaps")
        axes.minorticks_off()
        top = left[-1] + width[-1]
        shown = [(seconds, name) for seconds, name in SPANS if left[0] / 2 <= seconds <= 2 * top]
        axes.set_xticks([seconds for seconds, _ in shown], [name for _, name in shown])
        percent_ticks(axes, "y")
    return plot.svg


def rates(name: str, alternative: str, found: Sequence[Rate], xlabel: str, base: float) -> str:
    """A point with its 95 % interval a cell, over the base rate as a line."""
    plot = Plot(name, alternative, height=1.1 + 0.38 * len(found))
    with plot.drawn() as (axes,):
        y = np.arange(len(found))[::-1]
        rate = np.array([one.rate for one in found])
        error = np.clip(np.stack([rate - [one.low for one in found], [one.high for one in found] - rate]), 0, None)
        axes.axvline(base, color=GREY, lw=0.9, ls=(0, (4, 2)))
        axes.errorbar(rate, y, xerr=error, fmt="o", color=BLUE, ms=6, elinewidth=1.6)
        labels = [f"{_short(one.name)}  ({_count(one.journeys)})" for one in found]
        axes.set_yticks(y, labels)
        axes.set(xlabel=xlabel, ylim=(-0.6, len(found) - 0.4))
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        percent_ticks(axes, "x")
    return plot.svg


def by_snapshot(found: Sequence[Rate], starts: Sequence[tuple[str, dt.datetime]], label: str) -> str:
    """The label rate by as_of with intervals, and where eval and test begin."""
    from matplotlib.dates import date2num

    plot = Plot("snapshots", "The share of journeys that convert by as_of, with 95 % intervals, over time.")
    with plot.drawn() as (axes,):
        x = np.array([dt.date.fromisoformat(one.name) for one in found])
        rate = np.array([one.rate for one in found])
        error = np.clip(np.stack([rate - [one.low for one in found], [one.high for one in found] - rate]), 0, None)
        axes.errorbar(x, rate, error, fmt="o-", color=BLUE, ms=5, lw=1.2, elinewidth=1.2)
        top = float(max(one.high for one in found))
        for name, start in starts:
            at = float(date2num(start.date()))
            axes.axvline(at, color=GREY, lw=0.9, ls=(0, (4, 2)))
            late = at > float(date2num(x[0])) + 0.8 * float(date2num(x[-1]) - date2num(x[0]))
            side: Literal["left", "right"] = "right" if late else "left"
            aside = (-4 if late else 4, 0)  # points; spaces would be lost in SVG
            axes.annotate(
                name, (at, 1.1 * top), aside, textcoords="offset points", color=GREY, fontsize=9, va="top", ha=side
            )
        axes.set(xlabel="as_of (UTC)", ylabel=label, ylim=(0, 1.12 * top))
        _dates(axes)
        percent_ticks(axes, "y")
    return plot.svg


def flows(rows: Sequence[tuple[int, str, str, int]], rate: float) -> str:
    """The last steps of journeys as a Sankey diagram: bands from step to step, as wide as journeys are many.

    rate: the share of all that converts; bands of fewer than k customers are not among the rows.
    """
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    sizes: list[dict[str, int]] = [{} for _ in range(STEPS + 1)]
    for step, source, target, n in rows:
        sizes[step][source] = sizes[step].get(source, 0) + n
        if step == STEPS - 1:
            sizes[STEPS][target] = sizes[STEPS].get(target, 0) + n
    overall: dict[str, int] = {}
    for held in sizes[:-1]:
        for name, n in held.items():
            overall[name] = overall.get(name, 0) + n
    ranked = sorted(overall, key=lambda name: (name == START, name == OTHER, -overall[name]))
    outcomes = {"converts": VERMILION, "does not": "#9aa4ad"}
    colour = {name: STEP_COLOURS[i % len(STEP_COLOURS)] for i, name in enumerate(ranked)}
    colour |= {START: "#c9d1d8", OTHER: "#8a8a8a", **outcomes}
    total, gap, width = max(sum(held.values()) for held in sizes), 0.025, 0.07
    top: list[dict[str, float]] = []
    for i, held in enumerate(sizes):
        order = [name for name in (ranked if i < STEPS else outcomes) if name in held]
        place, tops = 1.0, {}
        for name in order:
            tops[name] = place
            place -= held[name] / total + gap
        top.append(tops)
    plot = Plot(
        "flows",
        f"The last {STEPS} steps of journeys and whether they convert, as bands from step to step; the table beside "
        "tells the most common paths.",
        height=5.2,
    )
    with plot.drawn() as (axes,):
        out = [dict(tops) for tops in top]
        into = [dict(tops) for tops in top]
        place_of = {name: i for i, name in enumerate([*ranked, *outcomes])}
        for step, source, target, n in sorted(rows, key=lambda r: (r[0], place_of[r[1]], place_of.get(r[2], 99))):
            if target not in into[step + 1]:
                continue
            high = n / total
            a, b = out[step][source], into[step + 1][target]
            out[step][source], into[step + 1][target] = a - high, b - high
            x0, x1 = step + width, step + 1.0
            middle = (x0 + x1) / 2
            points = [(x0, a), (middle, a), (middle, b), (x1, b)]
            points += [(x1, b - high), (middle, b - high), (middle, a - high), (x0, a - high), (x0, a)]
            codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
            tint = VERMILION if target == "converts" else colour[source]
            axes.add_patch(PathPatch(Path(points, codes), fc=tint, ec="none", alpha=0.6 if tint == VERMILION else 0.33))
        for i, held in enumerate(sizes):
            for name, place in top[i].items():
                high = held[name] / total
                axes.add_patch(Rectangle((i, place - high), width, high, color=colour[name], lw=0))
                if high > 0.018 or i == STEPS:
                    text = f"{_short(name, 14)}"
                    text += f"\n{100 * (rate if name == 'converts' else 1 - rate):.3g} %" if i == STEPS else ""
                    axes.text(i + width + 0.03, place - high / 2, text, va="center", fontsize=9, zorder=5)
        names = [*(f"{STEPS - i} before" if i < STEPS - 1 else "last step" for i in range(STEPS)), "outcome"]
        axes.set_xticks([i + width / 2 for i in range(STEPS + 1)], names)
        low = min(min(tops[name] - sizes[i][name] / total for name in tops) for i, tops in enumerate(top) if tops)
        axes.set(xlim=(-0.05, STEPS + 0.75), ylim=(low - 0.02, 1.02), yticks=[])
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0)
    return plot.svg


def _dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _short(name: str, most: int = _LABEL) -> str:
    text = "".join(letter if letter.isprintable() else "·" for letter in name).replace("$", r"\$")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _count(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n / 1000:,.0f}k"
