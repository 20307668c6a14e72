"""The parts of a dataset's card: what it is drawn from, its tables and plots, and how figures are written in it."""

from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.data_card.svg import Plot
from clozemill.pipelines.text.vocabulary import Vocabulary

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
