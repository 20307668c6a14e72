"""Curves side by side as a PNG, drawn by matplotlib: for programs that show no HTML."""

import io
from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.pages.axis import compact
from clozemill.pipelines.pages.content import Plot, Series

# The colours of the page in light mode, by the same names.
_COLOURS = {"ink": "#1d2126", "muted": "#575e66", "line": "#dfdcd4"}
_LINES = ("#2a6192", "#a8480a", "#1a6136")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


def _put(axes: Any, series: Series, number: int) -> None:
    """Draw a series; `number` of the lines drawn before it decides its colour and dashes."""
    line = {"color": _COLOURS["muted"], "label": series.label, "linewidth": 1.6}
    if series.kind == "guide":
        axes.plot(series.x, series.y, **line, linestyle="-.")
    elif series.kind == "level":
        axes.axhline(series.y[0], **line, linestyle=":")
    elif series.kind == "mark":
        axes.axvline(series.x[0], **line | {"linewidth": 1})
    else:
        few = series.kind == "dots" or len(series.x) < 2  # a single point has no line
        style = {"color": _LINES[number % len(_LINES)], "linestyle": _DASHES[number % len(_DASHES)]}
        axes.plot(series.x, series.y, marker="o" if few else "", markersize=3.5, **line | style)


def _fill(axes: Any, plot: Plot) -> None:
    """Draw everything of a plot but its title and legend."""
    from matplotlib.ticker import FuncFormatter

    lines = 0
    for series in plot.series:
        _put(axes, series, lines)
        lines += series.kind in ("line", "dots")
    axes.set_axisbelow(True)
    axes.grid(color=_COLOURS["line"], linewidth=0.7)
    axes.tick_params(colors=_COLOURS["muted"], length=0, labelsize=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_COLOURS["muted"])
    axes.set_xlabel(plot.x_label, color=_COLOURS["muted"])
    axes.set_ylabel(plot.y_label, color=_COLOURS["muted"])
    axes.margins(x=0.01)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def draw_png(plots: Sequence[Plot], title: str) -> bytes:
    """Return plots side by side as a PNG of 11 x 3.6 inches and 120 dots per inch, on white.

    Args:
        plots: those of `trainers.training.curves`, with linear axes and series of the kinds line, dots, level, guide and mark.
    """
    import matplotlib  # takes half a second, so it is imported only for drawing
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(11, 3.6))
        figure.subplots_adjust(0.065, 0.15, 0.985, 0.83, wspace=0.27)  # a constrained layout takes as long as drawing
        for number, plot in enumerate(plots, 1):
            axes = figure.add_subplot(1, len(plots), number)
            _fill(axes, plot)
            axes.set_title(plot.title, color=_COLOURS["ink"], fontsize="medium")
            if len(plot.series) > 1:
                axes.legend(frameon=False, fontsize="small", labelcolor=_COLOURS["ink"])
        figure.suptitle(title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
