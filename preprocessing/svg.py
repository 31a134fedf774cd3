"""A matplotlib figure as SVG for the inside of a page: it loads nothing, and the same figure is the same bytes.

Text stays text: it scales, can be searched, and takes the page's fonts.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# after Okabe & Ito: told apart with any colour vision
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#00795A", "#A3568A", "#B8860B", "#6b6b6b"
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "parcours",  # element ids by content: the same plot is the same bytes
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


class Plot:
    """An SVG in the making: `with plot.drawn() as (axes,): axes.plot(…)`; after that, `plot.svg`.

    name: unique in the page, prefixes the element ids; alternative: says what is to be seen; rows: axes, top to bottom.
    """

    def __init__(self, name: str, alternative: str, rows: int = 1, height: float = 3.9) -> None:
        self.name, self.alternative, self.rows, self.height = name, alternative, rows, height
        self.svg = ""

    @contextmanager
    def drawn(self) -> Iterator[list[Axes]]:
        """Yields the axes; on leaving them the SVG is made."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context(cast(Any, _STYLE)):
            figure = Figure(figsize=(5.6, self.height), layout="constrained")
            yield list(figure.subplots(self.rows, 1, squeeze=False)[:, 0])
            self.svg = _svg(figure, self.name, self.alternative)


def _svg(figure: Figure, name: str, alternative: str) -> str:
    """The figure as SVG for the inside of a page: no prologue, no metadata, no addresses, ids of the plot's own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    # one family for all text, the page's; matplotlib would name its own fonts on each
    svg = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 system-ui, sans-serif", svg)
    root = f'role="img" aria-label="{html.escape(alternative)}"'
    svg = re.sub(r'<svg\b[^>]*?(viewBox="[^"]*")[^>]*>', rf"<svg \1 {root}>", svg, count=1)
    return "\n".join(line.rstrip() for line in svg.splitlines())


class Shown:
    """Plots as the result of a notebook's cell, side by side as the pages have them; "" is left out."""

    def __init__(self, *svgs: str) -> None:
        self.svgs = [svg for svg in svgs if svg]

    def _repr_html_(self) -> str:
        figure = '<figure style="flex: 1 1 24rem; max-width: 36rem; margin: 0">{}</figure>'
        cells = "".join(figure.format(svg) for svg in self.svgs)
        return f'<div style="display: flex; flex-wrap: wrap; gap: 1.5rem; background: #fff">{cells}</div>'


def above(axes: Axes, columns: int) -> None:
    """The legend above the axes, where no curve or bar runs through it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def percent_ticks(axes: Axes, which: str) -> None:
    """Labels of an axis ("x", "y" or both) that holds shares, in percent."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 3000 * low else (1.0,), numticks=7))
            axis.set_minor_formatter(NullFormatter())
