"""Axes of a plot: the range of values, where a value is drawn, and the ticks. Shared by the plots of pages and PNGs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.pages.content import Plot, Series

_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between ticks, times a power of ten


def compact(value: float) -> str:
    """Return a number for an axis: 0.01, 10, 2,048, 100k, 30M."""
    for least, unit, letter in _UNITS:
        if abs(value) >= least:
            return f"{value / unit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers at equal distances between two values, at most `most`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * (1 - 1e-9))
    # multiples of the step, so that 0.30000000000000004 can't occur
    return [round(number * step, 12) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, base: int, most: int) -> list[float]:
    """Return powers of a base between two values, at most `most`."""
    first, last = (math.log(value) / math.log(base) for value in (low, high))
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    return [float(base) ** power for power in powers[:: max(1, -(-len(powers) // most))]]


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, drawn from `start` to `end`. `base`: that of a logarithmic axis; 0: linear."""

    low: float
    high: float
    start: float
    end: float
    base: int = 0

    def place(self, values: Iterable[float]) -> np.ndarray:
        """Return where values are drawn, float64 [N]; NaN for values that a logarithmic axis can't show."""
        found = np.asarray(list(values), float)
        low, high = self.low, self.high
        if self.base:
            found = np.log(np.where(found > 0, found, np.nan))
            low, high = math.log(low), math.log(high)
        return self.start + (found - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return the values to write beside the axis. A logarithmic axis within one power has round numbers."""
        powers = log_ticks(self.low, self.high, self.base, most) if self.base else []
        return powers if len(powers) > 1 else linear_ticks(self.low, self.high, most)


def floor_of(plot: Plot) -> float:
    """Return the value at which bars begin: 0, or half of the lowest positive value, since 0 has no logarithm."""
    positive = [value for series in plot.series for value in np.asarray(series.y, float).tolist() if value > 0]
    return min(positive, default=1.0) / 2 if plot.y_log else 0.0


def bounds(values: Sequence[float], base: int, margin: float, ground: float | None = None) -> tuple[float, float]:
    """Return the range of an axis: that of the values, widened by a margin, but not below the `ground` of bars.

    Args:
        values: all values to show; those that are not finite, and on a logarithmic axis those below 0, are ignored.
        margin: fraction of the range to add on both sides.
    """
    shown = [value for value in values if math.isfinite(value) and (value > 0 or not base)] or [1.0]
    low, high = min(shown), max(shown)
    if base:
        low, high = math.log(low), math.log(high)
    room = margin * (high - low) or max(abs(low) * 0.05, 0.05)
    first, last = low - room, high + room
    if base:
        first, last = math.exp(first), math.exp(last)
    return (ground if ground is not None and min(shown) >= ground else first), last


def values_of(series: Series, floor: float) -> tuple[list[float], list[float]]:
    """Return the x and y values that the axes must show for a series."""
    parts = (series.y, series.high, [floor] if series.kind == "steps" else [])
    xs, ys = ([value for part in some for value in np.asarray(part, float).tolist()] for some in ((series.x,), parts))
    return xs, ys
