"""The report's plots: each a self-contained SVG string, the same bytes for the same numbers.

Colours are after Okabe & Ito, told apart with any colour vision; every series also has a line style or
marker of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Plot, above, percent_ticks
from trainer.comparison import LABELS
from trainer.metrics import EPSILON, Floats, Scores

STYLES: dict[str, dict[str, Any]] = {
    "lstm": {"color": BLUE, "lw": 2.2, "zorder": 5},
    "gradient_boosting": {"color": VERMILION, "lw": 1.5, "ls": (0, (5, 1.5))},
    "recency_frequency": {"color": GREEN, "lw": 1.5, "ls": (0, (3, 1, 1, 1))},
    "oracle": {"color": "#222222", "lw": 1.3, "ls": (0, (1, 1.2))},
}
SPLITS = {"train": (GREEN, "s"), "eval": (ORANGE, "^"), "test": (BLUE, "o")}
MOST_POINTS = 400  # of a curve: more than a screen shows
RARE = 0.1  # below this base rate probabilities are drawn on logarithmic axes
Models = dict[str, Scores]


def pr_curve(models: Models, base_rate: float) -> str:
    """Precision over recall; recall below one conversion in a hundred is left out, where precision is noise."""
    plot = Plot("pr", "Precision over recall for each model, with the base rate as a horizontal line.")
    with plot.drawn() as (axes,):
        top = base_rate
        for name, label, scores in _curves(models):
            seen, found = _thinned(*scores.thresholds())
            drawn = found >= max(1, 0.01 * found[-1])
            precision = found[drawn] / seen[drawn]
            alone = "o" if drawn.sum() == 1 else None  # all scores tied: a point
            axes.plot(found[drawn] / found[-1], precision, label=label, marker=alone, **STYLES[name])
            top = max(top, float(precision.max()))
        axes.axhline(base_rate, color=GREY, lw=0.9, label=f"base rate {100 * base_rate:.3g} %")
        axes.set(xlabel="Recall (share of conversions found)", ylabel="Precision (share that converts)")
        axes.set(xlim=(0, 1), ylim=(0, min(1.02, top * 1.08)))
        percent_ticks(axes, "xy")
        axes.legend()
    return plot.svg


def roc_curve(models: Models) -> str:
    """Share of conversions found over share of the others taken along."""
    plot = Plot("roc", "ROC curve of each model above the diagonal of chance.")
    with plot.drawn() as (axes,):
        for name, label, scores in _curves(models):
            seen, found = _thinned(*scores.thresholds())
            axes.plot((seen - found) / (seen - found)[-1], found / found[-1], label=label, **STYLES[name])
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        axes.set(xlabel="False positive rate", ylabel="True positive rate (recall)", xlim=(0, 1), ylim=(0, 1.005))
        axes.legend(loc="lower right")
    return plot.svg


def gain_curve(models: Models) -> str:
    """Share of conversions among the share of journeys with the highest scores."""
    plot = Plot(
        "gain", "Cumulative gain: share of conversions found by share of journeys contacted, best scores first."
    )
    with plot.drawn() as (axes,):
        for name, label, scores in _curves(models):
            seen, found = _thinned(*scores.thresholds())
            axes.plot(seen / seen[-1], found / found[-1], label=label, **STYLES[name])
            if name == "lstm":
                at = float(np.interp(0.1, seen / seen[-1], found / found[-1]))
                axes.plot(
                    [0.1], [at], "o", color=BLUE, ms=6, ls="", zorder=6, label=f"its first 10 %: {100 * at:.0f} %"
                )
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        axes.set(xlabel="Share of journeys, highest scores first", ylabel="Share of conversions found")
        axes.set(xlim=(0, 1), ylim=(0, 1.005))
        percent_ticks(axes, "xy")
        axes.legend(loc="lower right")
    return plot.svg


def reliability(bins: Sequence[dict[str, Any]], base_rate: float) -> str:
    """Share converted over mean probability, by bin, with 95 % intervals by customer; logarithmic where rare."""
    plot = Plot("reliability", "Share converted against mean predicted probability in bins of equally many journeys.")
    predicted = np.array([one["predicted"] for one in bins], dtype=float)
    observed = np.array([one["observed"]["value"] for one in bins], dtype=float)
    low, high = (np.array([one["observed"][end] for one in bins], dtype=float) for end in ("low", "high"))
    with plot.drawn() as (axes,):
        positive = np.concatenate([predicted, observed])
        positive = positive[positive > 0]
        top = min(1.0, 1.15 * float(np.nanmax(np.concatenate([positive, high]))))
        floor = 0.0
        if base_rate < RARE:
            floor = float(positive.min()) / 2
            axes.set(xscale="log", yscale="log")
        shown = np.maximum(observed, floor)
        # beyond the axes' floor an interval has no end to draw
        error = np.nan_to_num(np.stack([shown - np.clip(low, floor, shown), np.clip(high, shown, None) - shown]))
        axes.plot([floor, top], [floor, top], color=GREY, lw=0.8)
        axes.errorbar(predicted, shown, error, fmt="none", ecolor=BLUE, elinewidth=1, alpha=0.7)
        some = observed > 0
        axes.plot(predicted[some], shown[some], "o", color=BLUE, ms=4.5, label="LSTM")
        axes.plot(
            predicted[~some], shown[~some], "o", mfc="white", color=BLUE, ms=4.5, label="no conversion in the bin"
        )
        counts = [one["journeys"] for one in bins]
        axes.set(xlabel="Mean predicted probability", ylabel="Share converted")
        axes.set(xlim=(floor, top), ylim=(floor, top))
        percent_ticks(axes, "xy")
        axes.text(0.97, 0.04, _each(counts), transform=axes.transAxes, ha="right", color=GREY)
        if not some.all():
            axes.legend(loc="upper left")
    return plot.svg


def profit_curve(curves: dict[str, tuple[Floats, Floats]], marks: Sequence[tuple[str, float, float]], unit: str) -> str:
    """Profit per 1,000 journeys over the share contacted, for eval and test; marks: (label, share, profit) on test."""
    plot = Plot("profit", "Profit per 1,000 journeys against the share of journeys contacted, for eval and for test.")
    with plot.drawn() as (axes,):
        for split, (share, profit) in curves.items():
            kept = np.unique(np.linspace(0, len(share) - 1, MOST_POINTS).astype(int))
            style = {"lw": 2.0} if split == "test" else {"lw": 1.3, "ls": (0, (5, 1.5))}
            axes.plot(share[kept], profit[kept], color=SPLITS[split][0], label=split, **style)
        for (label, share_there, profit_there), marker in zip(marks, "oD", strict=False):
            axes.plot(
                [share_there],
                [profit_there],
                marker,
                color=BLUE,
                mfc="white",
                mew=1.6,
                ms=7,
                ls="",
                label=label,
                zorder=6,
            )
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set(
            xlabel="Share of journeys contacted, highest scores first", ylabel=f"Profit per 1,000 journeys ({unit})"
        )
        axes.set(xlim=(0, 1))
        percent_ticks(axes, "x")
        axes.legend()
    return plot.svg


def score_histogram(scores: Scores) -> str:
    """How many journeys got which probability, those that converted apart; logarithmic counts."""
    plot = Plot("scores", "Histogram of the LSTM's probabilities, journeys that converted and others apart.")
    with plot.drawn() as (axes,):
        probability = scores.probability
        rare = scores.converted.mean() < RARE
        low = max(float(np.quantile(probability, 0.001)), EPSILON) if rare else 0.0
        top = max(float(probability.max()), low * 1.01, EPSILON)
        edges = np.geomspace(low, top, 41) if rare else np.linspace(0, top, 41)
        for value, label, style in (
            (0, "not converted", {"color": "#c9c9c9", "ec": GREY}),
            (1, "converted", {"color": BLUE, "alpha": 0.65}),
        ):
            chosen = np.clip(probability[scores.converted == value], edges[0], edges[-1])
            axes.stairs(np.histogram(chosen, edges)[0], edges, fill=True, label=label, baseline=0.5, **style)
        axes.set(yscale="log", xscale="log" if rare else "linear", ylim=(0.5, None), xlim=(edges[0], edges[-1]))
        axes.set(xlabel="Predicted probability", ylabel="Journeys (logarithmic)")
        percent_ticks(axes, "x")
        above(axes, 2)
    return plot.svg


def training_curves(history: Sequence[dict[str, Any]]) -> str:
    """Losses by epoch above, PR-AUC and ROC-AUC on eval below; nothing where the history holds neither."""
    above = (("train_loss", "train", GREEN, "s"), ("eval_loss", "eval", ORANGE, "^"))
    below = (("eval_pr_auc", "PR-AUC", BLUE, "o"), ("eval_roc_auc", "ROC-AUC", PURPLE, "D"))
    panels = [("Loss", above), ("On eval", below)]
    panels = [
        (label, lines) for label, lines in panels if any(_series(history, name) is not None for name, *_ in lines)
    ]
    if not panels:
        return ""
    from matplotlib.ticker import MaxNLocator

    plot = Plot("training", "Loss on train and eval, and PR-AUC on eval, by epoch.", len(panels))
    with plot.drawn() as drawn:
        for axes, (label, lines) in zip(drawn, panels, strict=True):
            for name, legend, colour, marker in lines:
                series = _series(history, name)
                if series is not None:
                    axes.plot(*series, marker=marker, ms=4, color=colour, label=legend, lw=1.5)
            axes.set(ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        loss = _series(history, "eval_loss")
        if loss is not None:
            best = int(np.nanargmin(loss[1]))
            for axes in drawn:
                axes.axvline(loss[0][best], color=GREY, lw=0.8, ls=":")
            drawn[-1].set_title(f"lowest eval loss: epoch {loss[0][best]:g}", loc="right", color=GREY)
        drawn[-1].set(xlabel="Epoch")
    return plot.svg


def label_rates(labels: Sequence[str], rates: dict[str, Floats]) -> str:
    """Share converted by as_of; labels: the periods, as ISO dates; rates: by split float64 [labels], NaN: none."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = np.array(labels, dtype="datetime64[s]")
    plot = Plot("label-rate", "Share of journeys that converted by as_of, for train, eval and test.")
    with plot.drawn() as (axes,):
        for split, rate in rates.items():
            there = np.flatnonzero(np.isfinite(rate))
            if len(there):
                colour, marker = SPLITS[split]
                axes.plot(times[there], rate[there], marker=marker, ms=4.5, color=colour, label=split, lw=1.2)
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        top = np.nanmax(np.concatenate(list(rates.values())), initial=0.0)
        axes.set(xlabel="as_of (UTC)", ylabel="Share converted", ylim=(0, 1.15 * top or 1))
        percent_ticks(axes, "y")
        axes.legend()
    return plot.svg


def journey_lengths(lengths: dict[str, NDArray[np.int64]]) -> str:
    """Share of journeys by number of events kept; the last bin holds the longest one in a hundred, too."""
    from matplotlib.ticker import MaxNLocator

    plot = Plot("lengths", "Share of journeys by their number of events, for train, eval and test.")
    everything = np.concatenate(list(lengths.values()))
    last = max(1, int(np.quantile(everything, 0.99)))
    with plot.drawn() as (axes,):
        step = -(-(last + 1) // 40)
        edges = np.arange(0, last + step + 1, step) - 0.5
        for split, length in lengths.items():
            if len(length):
                share = np.histogram(np.minimum(length, last), edges)[0] / len(length)
                axes.stairs(share, edges, color=SPLITS[split][0], label=split, lw=1.6, baseline=None)
        longest = f"; the last bin: up to {everything.max()}" if everything.max() > edges[-1] else ""
        axes.set(xlabel=f"Events in the journey{longest}", ylabel="Share of journeys", ylim=(0, None))
        axes.set(xlim=(edges[0], edges[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        percent_ticks(axes, "y")
        axes.legend()
    return plot.svg


def _curves(models: Models) -> Iterator[tuple[str, str, Scores]]:
    """The models that rank, weakest drawing order first, with their names."""
    return ((name, LABELS[name], models[name]) for name in STYLES if name in models)


def _thinned(seen: Floats, found: Floats) -> tuple[Floats, Floats]:
    """From the origin on, at most MOST_POINTS points: half evenly down the ranking, half evenly over what is found."""
    seen, found = np.append(0, seen), np.append(0, found)
    half = MOST_POINTS // 2
    by_seen = np.searchsorted(seen, np.linspace(0, seen[-1], half))
    by_found = np.searchsorted(found, np.linspace(0, found[-1], half))
    kept = np.unique(np.concatenate([by_seen, by_found, [len(seen) - 1]]))
    return seen[kept], found[kept]


def _series(history: Sequence[dict[str, Any]], name: str) -> tuple[Floats, Floats] | None:
    """(epochs, values) of one figure; None where no epoch has it."""
    epochs = np.array([epoch.get("epoch", i + 1) for i, epoch in enumerate(history)], dtype=float)
    values = np.array([epoch.get(name, np.nan) for epoch in history], dtype=float)
    return (epochs, values) if np.isfinite(values).any() else None


def _each(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,} journeys a bin" if low == high else f"{low:,} to {high:,} journeys a bin"
