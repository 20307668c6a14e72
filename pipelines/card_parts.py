"""The parts of a dataset's card: what it is drawn from, its tables and plots, and how figures are written in it."""

import math
from dataclasses import dataclass, field
from typing import Any

from pipelines.figures import Plot
from pipelines.wordpiece import Vocabulary

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """`kinds`: a letter per column. l: words; r: figures; t: text of the corpus; m: digests and names; b: a share of 100, to be
    drawn as a bar; i: a place from 0 to 100 where the interval lies from 20 to 80, or None. `folded`: long, to be opened.
    """

    title: str
    kinds: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A heading, sentences, tables and plots."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """`state`: "passed", "failed" or "overridden", of the gate, and `verdict`, the sentence about it."""

    digest: str
    inputs: list[str]
    state: str
    verdict: str
    tiles: list[tuple[str, str]]
    sections: list[Section]


@dataclass(frozen=True)
class Dataset:
    """What a card is drawn from. run: {} where the dataset has none; samples: reason -> ["source: excerpt"]."""

    contract: dict[str, Any]
    vocabulary: Vocabulary
    statistics: dict[str, Any]
    run: dict[str, Any]
    samples: dict[str, list[str]]


def large(count: float) -> str:
    """9,365, 196 k, 1.13 M, 2.40 G: three digits for the eye."""
    for unit, letter in ((1e9, "G"), (1e6, "M")):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return f"{count / 1e3:.0f} k" if count >= 1e5 else f"{count:,.0f}"


def figure(value: Any) -> str:
    """A figure of unknown size and kind, to be read below others."""
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
