"""Plots as SVG to embed in a page. Colours are CSS variables of the page, so one drawing works in light and dark mode.

The same plot gives identical bytes with the same version of matplotlib.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from clozemill.pipelines.pages.content import Plot, Series

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
    "third": "#010008",
}
# The same names in a PNG, which has one colour scheme: those of the page in light mode.
_ON_WHITE = {
    "ink": "#1d2126", "muted": "#575e66", "line": "#dfdcd4", "first": "#2a6192", "second": "#a8480a", "third": "#1a6136",
    "soft": "#c9dced", "fill": "#8db4d6",
}  # fmt: skip
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_LEGEND_COLUMNS, _LEGEND_ROWS = 3, 4  # at most, while labels need not be shortened
_HANDLE, _CHARACTER = 40, 6.2  # units of a line in the legend with its margins, and of a character
_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))


def compact(value: float, step: float = 0.0) -> str:
    """Return a number for an axis: 0.01, 10, 2,048, 100k, 30M.

    step: distance of the numbers on the axis, which then have the digits to tell them apart: 100.2k.
    """
    size = abs(float(f"{value:.3g}"))
    least, unit, letter = next(each for each in (*_UNITS, (1e3, 1.0, ""), (0.0, 1.0, "")) if size >= each[0])
    if not step:
        return f"{value:,.0f}" if least == 1e3 else f"{value:.6g}" if unit == 1.0 else f"{value / unit:.3g}{letter}"
    digits = next((count for count in range(9) if abs(round(step / unit, count) - step / unit) < 1e-3 * step / unit), 9)
    text = f"{round(value / unit, digits) + 0.0:,.{digits}f}"  # + 0.0: no -0
    return (text.rstrip("0").rstrip(".") if "." in text else text) + letter


def _put(axes: Any, series: Series, number: int, floor: float, colours: dict[str, str]) -> None:
    """Draw a series; `number` of the lines drawn before it decides its colour and dashes."""
    colour, style = colours[("first", "second", "third")[number % 3]], _DASHES[number % len(_DASHES)]
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    label = f"\u200b{series.label}" if series.label.startswith("_") else series.label  # matplotlib leaves out the others
    line = {"color": colour, "label": label, "linewidth": 1.6}
    if series.kind == "band":
        axes.fill_between(x, y, np.asarray(series.high, float), color=colours["soft"], linewidth=0, label=label)
    elif series.kind in ("line", "dots"):
        few = series.kind == "dots" or len(x) < 2  # a single point has no line
        axes.plot(x, y, linestyle=style, marker="o" if few else "", markersize=3.5, **line)
    elif series.kind == "points":
        axes.plot(x, y, linestyle="", marker="o", markersize=3, alpha=0.6, **line)
    elif series.kind == "guide":
        axes.plot(x, y, **line | {"color": colours["muted"], "linestyle": "-."})
    elif series.kind == "level":
        axes.axhline(y[0], **line | {"color": colours["muted"], "linestyle": ":"})
    elif series.kind == "mark":
        axes.axvline(x[0], **line | {"color": colours["muted"], "linewidth": 1})
    else:
        fill = series.kind == "steps"
        axes.stairs(
            np.maximum(y, floor) if fill else np.where((y > 0) | (floor == 0), y, np.nan),
            x,
            baseline=floor if fill else None,
            fill=fill,
            linestyle="-" if fill else style,
            **line | ({"color": colours["fill"], "linewidth": 0} if fill else {}),
        )


def _formatter(axis: Any, base: int) -> Callable[[float, int], str]:
    """Return a function for the labels of an axis; a layout may change the ticks until it is drawn."""

    def label(value: float, _: int) -> str:
        gaps = np.diff(np.sort(axis.get_majorticklocs()))
        return compact(value, float(gaps.min()) if len(gaps) and not base else 0.0)

    return label


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
            axis.set_major_locator(FixedLocator((float(base) ** powers[:: max(1, -(-len(powers) // 7))]).tolist()))
        axis.set_major_formatter(FuncFormatter(_formatter(axis, base)))


def _style(axes: Any, plot: Plot, colours: dict[str, str]) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=colours["line"], linewidth=0.7)
    axes.tick_params(colors=colours["muted"], length=0, labelsize=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colours["muted"])
    axes.set_xlabel(plot.x_label, color=colours["muted"])
    axes.set_ylabel(plot.y_label, color=colours["muted"])
    axes.margins(x=0.01)


def _fill(axes: Any, plot: Plot, colours: dict[str, str]) -> None:
    """Draw everything of a plot but its title and legend."""
    positive = [value for series in plot.series for value in np.asarray(series.y, float).tolist() if value > 0]
    floor, lines = min(positive, default=1.0) / 2 if plot.y_log else 0.0, 0  # 0 has no logarithm
    for series in plot.series:
        _put(axes, series, lines, floor, colours)
        lines += series.kind not in ("band", "level", "guide", "mark")
    _style(axes, plot, colours)
    _scales(axes, plot)


def legend_columns(labels: Sequence[str]) -> int:
    """Return the columns of the legend: as many as have room for the labels, but enough for _LEGEND_ROWS rows at most."""
    wide = [columns for columns in range(1, _LEGEND_COLUMNS + 1) if _fit(labels, columns)]
    return min(_LEGEND_COLUMNS, max([*wide, -(-len(labels) // _LEGEND_ROWS), 1]))


def _room(columns: int) -> int:
    """Return the characters that have room in a row of a legend of some columns."""
    return int((72 * WIDTH - columns * _HANDLE) / _CHARACTER)


def _fit(labels: Sequence[str], columns: int) -> bool:
    """Return whether labels have room in a legend of some columns, each as wide as its longest label."""
    return sum(max(map(len, labels[at::columns]), default=0) for at in range(columns)) <= _room(columns)


def legend_rows(plot: Plot) -> int:
    """Return the rows of the legend, 0 for a plot of one series."""
    count = len(plot.series)
    return -(-count // legend_columns([series.label for series in plot.series])) if count > 1 else 0


def shortened(labels: Sequence[str], room: int) -> list[str]:
    """Return labels of at most `room` characters: long ones without their middle, with numbers if they would be the same."""

    def cut(label: str, room: int) -> str:
        return label if len(label) <= room else f"{label[: (room - 1) // 2]}…{label[len(label) - room // 2 :]}"

    found = [cut(label, room) for label in labels]
    if len(set(found)) < len(set(labels)):
        found = [f"{number} {cut(label, room - 3)}" for number, label in enumerate(labels, 1)]
    return found


def draw(plot: Plot) -> str:
    """Return an <svg> element."""
    return _inline(matplotlib_svg(plot), plot)


def matplotlib_svg(plot: Plot) -> str:
    """Return the drawing of a plot as matplotlib writes it: an SVG document."""
    import matplotlib  # takes half a second, so it is imported only for drawing
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.family": ["DejaVu Sans"], "font.size": 10.5}
    with matplotlib.rc_context(settings | {"text.parse_math": False}):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72, facecolor="none")
        figure.subplots_adjust(*_MARGINS, top=0.96 - 0.09 * legend_rows(plot))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        _fill(axes, plot, _COLOURS)
        if legend_rows(plot):
            handles, labels = axes.get_legend_handles_labels()
            columns = legend_columns(labels)
            if not _fit(labels, columns):
                labels = shortened(labels, _room(columns) // columns)
            rows = [at for column in range(columns) for at in range(column, len(labels), columns)]
            figure.legend(
                [handles[at] for at in rows],  # matplotlib fills columns first
                [labels[at] for at in rows],
                loc="upper left",
                ncols=columns,
                frameon=False,
                borderpad=0.1,
                labelcolor=_COLOURS["ink"],
                handlelength=1.6,
            )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()


def draw_png(plots: Sequence[Plot], title: str) -> bytes:
    """Return plots side by side as a PNG of 11 x 3.6 inches and 120 dots per inch, on white."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for number, plot in enumerate(plots, 1):
            axes = figure.add_subplot(1, len(plots), number)
            _fill(axes, plot, _ON_WHITE)
            axes.set_title(plot.title, color=_ON_WHITE["ink"], fontsize="medium")
            if legend_rows(plot):
                axes.legend(frameon=False, fontsize="small", labelcolor=_ON_WHITE["ink"])
        figure.suptitle(title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _inline(svg: str, plot: Plot) -> str:
    """Return a drawing for embedding in a page: with CSS variables for colours, and ids unique to the plot."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)  # its rules would be the whole page's
    box = re.findall(r'viewBox="([^"]+)"', svg)[0]
    title = f'<title id="{plot.name}-title">{escape(plot.title)}</title><desc id="{plot.name}-desc">{escape(plot.alt)}</desc>'
    svg = re.sub(r'\bid="', f'id="{plot.name}-', svg)
    svg = svg.replace("url(#", f"url(#{plot.name}-").replace('href="#', f'href="#{plot.name}-')
    head = f'<svg viewBox="{box}" role="img" aria-labelledby="{plot.name}-title {plot.name}-desc" '
    svg = re.sub(r"<svg[^>]*>", head + 'xmlns:xlink="http://www.w3.org/1999/xlink">' + title.replace("\\", r"\\"), svg, count=1)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: inherit", svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.strip()
