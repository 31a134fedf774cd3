"""What trainer.watch saw, as lines and a plot of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocessing.svg import BLUE, GREEN, GREY, ORANGE, Plot

_GB = 1e9


def resource_lines(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Names and values; nothing where nothing was watched, as in a run that was only evaluated anew."""
    if not found or not found["steps"]:
        return []
    memory = found["memory"]
    lines = [
        ("CPU, of all cores", _shares(found["cpu"])),
        ("Memory", f"{memory['highest'] / _GB:.2f} of {memory['limit'] / _GB:.2f} GB at most"),
        ("GPU", _shares(found["gpu"]) if found["gpu"] else "not told" if found["gpu_memory"] else "none"),
        ("A step", f"{1e3 * found['step_seconds']:.3g} ms, {found['input_wait']:.1%} of it waiting for input"),
    ]
    if found["gpu_memory"] is not None:
        lines.insert(3, ("GPU memory", _shares(found["gpu_memory"])))
    return lines + [("To change", text) for text in found["warnings"]]


def resource_plot(found: dict[str, Any] | None) -> str:
    """CPU and GPU, memory below its limit, and steps, over time; "" with fewer than two samples."""
    if not found or not found["steps"] or len(found["series"]) < 2:
        return ""
    columns = dict(zip(found["columns"], np.array(found["series"], dtype=np.float64).T, strict=True))
    minutes, limit = columns["seconds"] / 60, found["memory"]["limit"] / _GB
    plot = Plot("resources", "CPU and GPU, memory, and time a step, while the model trained.", 3, 5.6)
    with plot.drawn() as (busy, memory, steps):
        busy.plot(minutes, 100 * columns["cpu"], color=BLUE, lw=1.5, label="CPU")
        if found["gpu"] is not None:
            busy.plot(minutes, 100 * columns["gpu"], color=GREEN, lw=1.5, label="GPU")
        busy.set(ylabel="Busy, %", ylim=(0, 105))
        busy.legend(ncols=2, loc="lower right")
        memory.plot(minutes, columns["memory"] / _GB, color=BLUE, lw=1.5)
        memory.axhline(limit, color=GREY, lw=0.8, ls=":")
        memory.set(ylabel="Memory, GB", ylim=(0, 1.1 * limit))
        memory.set_title("dotted: the limit", loc="right", color=GREY)
        known = np.isfinite(columns["step_seconds"])
        took = 1e3 * columns["step_seconds"][known]
        steps.plot(minutes[known], took, color=BLUE, lw=1.5, label="a step")
        steps.plot(minutes[known], took * columns["input_wait"][known], color=ORANGE, lw=1.5, label="waiting for input")
        steps.set(ylabel="ms", xlabel="Minutes", ylim=(0, None))
        steps.legend(ncols=2, loc="upper right")
    return plot.svg


def _shares(one: dict[str, float]) -> str:
    return f"{one['mean']:.0%} on the mean, {one['highest']:.0%} at most"
