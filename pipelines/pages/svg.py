"""Plots as SVG to embed in a page. Colours are CSS variables of the page, so one drawing works in light and dark mode.

They are written directly: matplotlib would take two seconds for the seven plots of a data card. The same plot gives the same
bytes everywhere.
"""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from clozemill.pipelines.pages.axis import Axis, bounds, compact, floor_of, values_of
from clozemill.pipelines.pages.content import Plot, Series

WIDTH, HEIGHT = 338, 212  # small enough to be readable at a width of 330 px
LEFT, RIGHT, BOTTOM, TOP, LEGEND_ROW = 51, 333, 177, 8, 18  # the edges of the axes; the legend moves the upper one down
COLUMNS = 3  # of a legend
_CHARACTER = 5.6  # the mean width of one in a legend
_DASHES = ("", "6.4 2.4", "2.4 1.9", "9.6 2.4 2.4 2.4")
_COLOURS = ("first", "second", "third")
_OWN = {"band": ("soft", ""), "steps": ("fill", ""), "guide": ("muted", "9 2.4 1.6 2.4"), "level": ("muted", "1.6 2.6"),
        "mark": ("muted", "")}  # fmt: skip


def legend_rows(plot: Plot) -> int:
    """Return the rows of the legend, 0 for a plot of one series."""
    return -(-len(plot.series) // COLUMNS) if len(plot.series) > 1 else 0


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _points(x: np.ndarray, y: np.ndarray) -> str:
    """Return a path through points, with gaps where one is NaN."""
    words, command = [], "M"
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if across == across and down == down:
            words.append(f"{command} {_number(across)} {_number(down)}")
        command = "L" if across == across and down == down else "M"
    return " ".join(words)


def _stairs(x: np.ndarray, y: np.ndarray) -> str:
    """Return a path of horizontal lines, y [N], between edges x [N + 1]."""
    return _points(np.repeat(x, 2)[1:-1], np.repeat(y, 2))


def _line(path: str, colour: str, dashes: str = "", width: float = 1.6) -> str:
    dashed = f"; stroke-dasharray: {dashes}" if dashes else ""
    return f'<path d="{path}" style="fill: none; stroke: var(--{colour}); stroke-width: {width}{dashed}"/>'


def _filled(path: str, colour: str) -> str:
    return f'<path d="{path} Z" style="fill: var(--{colour})"/>'


def _circles(x: np.ndarray, y: np.ndarray, colour: str, style: str = "") -> str:
    places = [(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True) if a == a and b == b]
    circle = '<circle cx="{}" cy="{}" r="1.8" style="fill: var(--{}){}"/>'
    return "".join(circle.format(_number(a), _number(b), colour, style) for a, b in places)


def _text(x: float, y: float, anchor: str, colour: str, text: str, size: float = 10, more: str = "") -> str:
    style = f"font-family: inherit; font-size: {size}px; text-anchor: {anchor}; fill: var(--{colour})"
    return f'<text x="{_number(x)}" y="{_number(y)}" style="{style}"{more}>{escape(text)}</text>'


def _styles(plot: Plot) -> list[tuple[Series, str, str]]:
    """Return each series with its colour and dashes, which change from line to line."""
    found, lines = [], 0
    for series in plot.series:
        own = _OWN.get(series.kind)
        found.append((series, *(own or (_COLOURS[lines % len(_COLOURS)], _DASHES[lines % len(_DASHES)]))))
        lines += series.kind not in ("band", "level", "guide", "mark")
    return found


def _drawn(series: Series, colour: str, dashes: str, across: Axis, up: Axis, floor: float) -> str:
    x, y, kind = across.place(series.x), up.place(series.y), series.kind
    if kind == "band":
        upper = up.place(series.high)
        return _filled(_points(np.concatenate([x, x[::-1]]), np.concatenate([y, upper[::-1]])), colour)
    if kind == "steps":
        (ground,) = up.place([floor]).tolist()
        tops = np.minimum(np.nan_to_num(y, nan=ground), ground)  # y grows downwards
        return _filled(_stairs(np.array([x[0], *x, x[-1]]), np.array([ground, *tops, ground])), colour)
    if kind == "outline":
        return _line(_stairs(x, y), colour, dashes)
    if kind == "level":
        return _line(_points(np.array([LEFT, RIGHT]), np.repeat(y, 2)), colour, dashes)
    if kind == "mark":
        return _line(_points(np.repeat(x, 2), np.array([up.start, up.end])), colour, dashes, 1)
    if kind == "points":
        return _circles(x, y, colour, "; fill-opacity: 0.6")
    dots = _circles(x, y, colour) if kind == "dots" or len(x) < 2 else ""  # a single point has no line
    return _line(_points(x, y), colour, dashes) + dots


def _axes(plot: Plot, across: Axis, up: Axis) -> Iterator[str]:
    """Yield the grid, the numbers beside it, and the names of the axes."""
    columns, rows = across.ticks(7), up.ticks(6)
    xs, ys = across.place(columns).tolist(), up.place(rows).tolist()
    for lines in ([((x, up.end), (x, up.start)) for x in xs], [((LEFT, y), (RIGHT, y)) for y in ys]):
        path = " ".join(f"M {_number(a)} {_number(b)} L {_number(c)} {_number(d)}" for (a, b), (c, d) in lines)
        yield _line(path, "line", width=0.7)
    yield _line(f"M {LEFT} {BOTTOM} L {RIGHT} {BOTTOM}", "muted", width=0.8)
    yield from (_text(x, BOTTOM + 13, "middle", "muted", compact(value)) for x, value in zip(xs, columns, strict=True))
    yield from (_text(LEFT - 4, y + 3.5, "end", "muted", compact(value)) for y, value in zip(ys, rows, strict=True))
    yield _text((LEFT + RIGHT) / 2, HEIGHT - 6, "middle", "muted", plot.x_label, 10.5)
    middle = (up.start + up.end) / 2
    yield _text(11, middle, "middle", "muted", plot.y_label, 10.5, f' transform="rotate(-90 11 {_number(middle)})"')


def _legend(plot: Plot) -> Iterator[str]:
    """Yield a sample of each series with its label, row by row."""
    styles = _styles(plot)
    longest = [max((len(series.label) for series, *_ in styles[at::COLUMNS]), default=0) for at in range(COLUMNS)]
    offsets = np.cumsum([6, *(34 + _CHARACTER * length for length in longest)])
    scale = min(1.0, WIDTH / offsets[-1])  # long labels in smaller letters
    for number, (series, colour, dashes) in enumerate(styles):
        x, y = scale * offsets[number % COLUMNS], TOP + LEGEND_ROW * (number // COLUMNS) + 3
        ends = np.array([x, x + 17]), np.array([y, y])
        if series.kind in ("band", "steps"):
            yield _filled(_points(np.array([*ends[0], *ends[0][::-1]]), np.array([y - 4, y - 4, y + 3, y + 3])), colour)
        elif series.kind != "points":
            yield _line(_points(*ends), colour, dashes)
        if series.kind in ("dots", "points"):
            yield _circles(np.array([x + 8.5]), np.array([y]), colour)
        yield _text(x + 22, y + 3.5, "start", "ink", series.label, round(10.5 * scale, 1))


def _both(plot: Plot, floor: float) -> tuple[Axis, Axis]:
    """Return the horizontal and the vertical axis."""
    values = [values_of(series, floor) for series in plot.series]
    xs, ys = ([value for pair in values for value in pair[at]] for at in (0, 1))
    ground = floor if any(series.kind == "steps" for series in plot.series) else None
    top = TOP + LEGEND_ROW * legend_rows(plot)
    across, up = bounds(xs, plot.x_log, 0.01), bounds(ys, plot.y_log, 0.05, ground)
    return Axis(*across, LEFT, RIGHT, plot.x_log), Axis(*up, BOTTOM, top, plot.y_log)


def _ordered(plot: Plot) -> Sequence[tuple[Series, str, str]]:
    """Return the series in the order of drawing: areas first, so that they cover no line."""
    return sorted(_styles(plot), key=lambda style: style[0].kind not in ("band", "steps"))


def draw(plot: Plot) -> str:
    """Return an <svg> element."""
    name, floor = plot.name, floor_of(plot)
    across, up = _both(plot, floor)
    lines = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(plot.title)}</title><desc id="{name}-desc">{escape(plot.alt)}</desc>',
        *_axes(plot, across, up),
        '<g class="data">',
        *(_drawn(*style, across, up, floor) for style in _ordered(plot)),
        "</g>",
        *(_legend(plot) if legend_rows(plot) else ()),
    ]
    return "\n".join([*lines, "</svg>"])
