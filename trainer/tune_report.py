"""tuning.html: how a search for settings went, and which of them mattered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing import page
from preprocessing.svg import BLUE, GREY, ORANGE, Plot

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TEMPLATES = Path(__file__).parent / "templates"
_FEWEST = 4  # trials that came to their end, below which importances would say nothing
_STATES = {"COMPLETE": "", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "under way", "WAITING": "waiting"}


def render(study: optuna.Study, metric: str, best: dict[str, Any]) -> str:
    """The page, as HTML. best: the best trial's settings, as best.json has them."""
    from optuna.trial import TrialState

    done = study.get_trials(states=[TrialState.COMPLETE])
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    ranked = sorted(
        study.trials, key=lambda one: (one.state != TrialState.COMPLETE, -sign * (one.value or 0), one.number)
    )
    first = next((one for one in done if one.number == 0 and "fixed_params" in one.system_attrs), None)  # enqueued
    leader = study.best_trial
    gain = "" if first is None else f" Trial 1, the default setting, reached {first.value:.4f}."
    parameters = sorted({name for one in study.trials for name in one.params})
    importances, silent = _importances(study, done)
    return page.render(
        "tuning.html.j2",
        TEMPLATES,
        title="Search for settings",
        version="",
        lead=f"The best of {len(study.trials)} trials is trial {leader.number + 1}: {metric} {leader.value:.4f}.{gain}",
        best=[(name, _number(value)) for name, value in best.items()],
        history=_history(study, done, metric, sign),
        importances=_bars(importances) if importances else "",
        silent=silent,
        parameters=parameters,
        metric=metric,
        trials=[
            {
                "number": one.number + 1,
                "value": "" if one.value is None else f"{one.value:.4f}",
                "seconds": f"{one.user_attrs['seconds']:,.0f}" if "seconds" in one.user_attrs else "",
                "parameters": [_number(one.params[name]) if name in one.params else "" for name in parameters],
                "state": one.user_attrs.get("failed", _STATES[one.state.name]),
            }
            for one in ranked
        ],
    )


def _importances(study: optuna.Study, done: list[FrozenTrial]) -> tuple[dict[str, float], str]:
    """(a parameter's share of the metric's variance over the search, why there is none)."""
    import optuna

    if len(done) < _FEWEST:
        return {}, f"{len(done)} trials came to their end; below {_FEWEST} nothing can be said of what mattered."
    if len({one.value for one in done}) < 2:
        return {}, "All trials measure the same: nothing can be said of what mattered."
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator), ""


def _history(study: optuna.Study, done: list[FrozenTrial], metric: str, sign: int) -> str:
    """Each trial's value in the order of the trials, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    plot = Plot("history", f"{metric} of each trial, in order, with the best so far as a line.")
    values = np.array([one.value for one in done], dtype=float)
    numbers = np.array([one.number + 1 for one in done])
    early = [(one.number + 1, one.intermediate_values[max(one.intermediate_values)]) for one in study.trials if
             one.state.name == "PRUNED" and one.intermediate_values]  # fmt: skip
    with plot.drawn() as (axes,):
        axes.step(
            numbers, sign * np.maximum.accumulate(sign * values), where="post", color=BLUE, lw=1.8, label="best so far"
        )
        axes.plot(numbers, values, "o", color=BLUE, ls="", label="trial")
        if early:
            axes.plot(*zip(*early, strict=True), "x", color=ORANGE, ls="", label="stopped early")
        axes.set(xlabel="Trial", ylabel=metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return plot.svg


def _bars(importances: dict[str, float]) -> str:
    names = list(importances)[::-1]
    plot = Plot("importances", "Share of each parameter in the metric's variance.", height=1.2 + 0.4 * len(names))
    with plot.drawn() as (axes,):
        axes.barh(names, [importances[name] for name in names], color=BLUE, height=0.6)
        for place, name in enumerate(names):
            axes.text(importances[name] + 0.01, place, f"{100 * importances[name]:.0f} %", va="center", color=GREY)
        axes.set(
            xlabel="Share of the metric's variance over the search",
            xlim=(0, min(1.15, max(importances.values()) + 0.15)),
        )
        axes.grid(visible=False, axis="y")
    return plot.svg


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
