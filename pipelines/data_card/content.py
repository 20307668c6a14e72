"""The parts of a data card: its data, its tables and its plots."""

from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.data_card.svg import Plot
from clozemill.pipelines.text.vocabulary import Vocabulary

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """A table of the card.

    Attributes:
        kinds: a letter per column. l: words; r: numbers; t: text of the corpus; m: digests and names; b: a percentage drawn as
            a bar; i: a position from 0 to 100 in an interval drawn from 20 to 80, or None.
        folded: whether the table is long and collapsed at first.
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
    """`state`: "passed", "failed" or "overridden", the result of the gate; `verdict`: the sentence about it."""

    digest: str
    inputs: list[str]
    state: str
    verdict: str
    tiles: list[tuple[str, str]]
    sections: list[Section]


@dataclass(frozen=True)
class Dataset:
    """The data of a card. run: {} if the dataset has none; samples: reason -> ["source: excerpt"]."""

    contract: dict[str, Any]
    vocabulary: Vocabulary
    statistics: dict[str, Any]
    run: dict[str, Any]
    samples: dict[str, list[str]]
