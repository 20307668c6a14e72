"""Plots as SVG to embed in a page. Colours are CSS variables of the page, so one drawing works in light and dark mode.

The same plot gives identical bytes with the same version of matplotlib.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT = 4.7, 2.95  # inches of 72 units: small enough to be readable at a width of 330 px
_MARGINS = 0.15, 0.165, 0.985  # left, bottom, right, as fractions; measuring the axes would take as long as drawing them
# matplotlib needs real colours; each stands for a CSS variable of the page, which replaces it in the SVG.
_COLOURS = {
    "ink": "#010001",
    "muted": "#010002",
    "line": "#010003",
    "first": "#010004",
    "second": "#010005",
    "soft": "#010006",
    "fill": "#010007",
}
_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))


@dataclass(frozen=True)
class Series:
    """A data series of a plot.

    `kind` "steps": `y` [N] over edges `x` [N + 1], filled; "outline": the same as a line; "line": `y` [N] at `x` [N];
    "band": between `y` and `high`, [N], at `x` [N].
    """

    label: str
    kind: str
    x: Sequence[float]
    y: Sequence[float]
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """A plot: its series, its axis labels with units, and `alt`, its text alternative.

    `name` makes the ids in the SVG unique within the page.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    alt: str
    series: list[Series] = field(default_factory=list)
    x_log: int = 0  # base of a logarithmic axis; 0: linear
    y_log: int = 0


def compact(value: float) -> str:
    """Return a number for an axis: 0.01, 10, 2,048, 100k, 30M."""
    for least, unit, letter in _UNITS:
        if abs(value) >= least:
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _put(axes: Any, series: Series, number: int, floor: float) -> None:
    colour, style = (_COLOURS["first"], "-") if number == 0 else (_COLOURS["second"], (0, (4, 1.5)))
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    if series.kind == "band":
        axes.fill_between(x, y, np.asarray(series.high, float), color=_COLOURS["soft"], linewidth=0, label=series.label)
        return
    if series.kind == "line":
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1.6, label=series.label)
        return
    fill = series.kind == "steps"
    axes.stairs(
        np.maximum(y, floor) if fill else np.where((y > 0) | (floor == 0), y, np.nan),
        x,
        baseline=floor if fill else None,
        fill=fill,
        color=_COLOURS["fill"] if fill else colour,
        linestyle="-" if fill else style,
        linewidth=0 if fill else 1.6,
        label=series.label,
    )


def _scales(axes: Any, plot: Plot) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    for axis, scale, base in ((axes.xaxis, axes.set_xscale, plot.x_log), (axes.yaxis, axes.set_yscale, plot.y_log)):
        low, high = axis.get_view_interval()
        if base:
            scale("log", base=base)
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
            low, high = axis.get_view_interval()
            powers = np.arange(np.ceil(np.log(low) / np.log(base)), np.floor(np.log(high) / np.log(base)) + 1)
            axis.set_major_locator(FixedLocator(float(base) ** powers[:: max(1, -(-len(powers) // 7))]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _style(axes: Any, plot: Plot) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=_COLOURS["line"], linewidth=0.7)
    axes.tick_params(colors=_COLOURS["muted"], length=0, labelsize=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_COLOURS["muted"])
    axes.set_xlabel(plot.x_label, color=_COLOURS["muted"])
    axes.set_ylabel(plot.y_label, color=_COLOURS["muted"])
    axes.margins(x=0.01)
    if len(plot.series) > 1:
        axes.figure.legend(
            loc="upper left", ncols=3, frameon=False, borderpad=0.1, labelcolor=_COLOURS["ink"], handlelength=1.6
        )


def draw(plot: Plot) -> str:
    """Return an <svg> element."""
    import matplotlib  # takes half a second, so it is imported only for drawing
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.family": ["DejaVu Sans"], "font.size": 10.5}
    with matplotlib.rc_context(settings | {"text.parse_math": False}):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72, facecolor="none")
        figure.subplots_adjust(*_MARGINS, top=0.87 if len(plot.series) > 1 else 0.96)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        shown = [value for series in plot.series for value in series.y if value > 0]
        floor, lines = min(shown, default=1.0) / 2 if plot.y_log else 0.0, 0  # 0 has no logarithm
        for series in plot.series:
            _put(axes, series, lines, floor)
            lines += series.kind != "band"
        _style(axes, plot)
        _scales(axes, plot)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(buffer.getvalue(), plot)


def _inline(svg: str, plot: Plot) -> str:
    """Return a drawing for embedding in a page: with CSS variables for colours, and ids unique to the plot."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)  # its rules would be the whole page's
    box = re.search(r'viewBox="([^"]+)"', svg)[1]
    title = f'<title id="{plot.name}-title">{escape(plot.title)}</title><desc id="{plot.name}-desc">{escape(plot.alt)}</desc>'
    svg = re.sub(r'\bid="', f'id="{plot.name}-', svg)
    svg = svg.replace("url(#", f"url(#{plot.name}-").replace('href="#', f'href="#{plot.name}-')
    head = f'<svg viewBox="{box}" role="img" aria-labelledby="{plot.name}-title {plot.name}-desc" '
    svg = re.sub(r"<svg[^>]*>", head + 'xmlns:xlink="http://www.w3.org/1999/xlink">' + title.replace("\\", r"\\"), svg, count=1)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: inherit", svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.strip()
