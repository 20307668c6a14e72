"""Format counts, percentages and sizes for people."""

import math
from collections.abc import Sequence
from typing import Any


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: '1 group', '2,000 groups'."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def enumerated(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: 'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def share(part: float, whole: float) -> str:
    """Return a percentage: '12.34 %', or '-' if `whole` is 0."""
    return f"{100 * part / whole:.2f} %" if whole else "-"


def large(count: float) -> str:
    """Return a count with three significant digits: 9,365, 196 k, 1.13 M, 2.4 G, 3.3 T."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if float(f"{count:.3g}") >= unit:
            return f"{count / unit:,.0f} {letter}" if count >= 1e15 else f"{count / unit:.3g} {letter}"
    return f"{count / 1e3:.0f} k" if count >= 1e5 else f"{count:,.0f}"


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> list[str]:
    """Return the lines of a table, with two spaces between columns.

    Args:
        lines: cells by line, as many in each.
        right: by column, whether its cells end at the same place instead of beginning there; default: none do.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    flushed = right or [False] * len(widths)
    padded = (
        [cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(line, widths, flushed, strict=True)]
        for line in lines
    )
    return ["  ".join(line).rstrip() for line in padded]


def figure(value: Any) -> str:
    """Format a value of unknown size and type, for a table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if not isinstance(value, int | float) or not math.isfinite(value):
        return str(value)
    if value == int(value) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.1e}"


def listed(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {listed(each)}" for name, each in value.items())
    return "; ".join(listed(each) for each in value) if isinstance(value, list) else figure(value)
