"""The parts of a page: its head, tables, plots and examples. `html` writes them, for data cards, runs and records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None


@dataclass(frozen=True)
class Series:
    """A data series of a plot.

    Attributes:
        kind: "steps": `y` [N] over edges `x` [N + 1], filled; "outline": the same as a line; "line": `y` [N] at `x` [N];
            "dots": the same, marked at each point; "points": the same, without a line; "level": `y` [1], a dotted line across
            the plot; "guide": `y` [N] at `x` [N], dash-dotted; "mark": `x` [1], a vertical line; "band": between `y` and
            `high`, [N], at `x` [N].
    """

    label: str
    kind: str
    x: Any
    y: Any
    high: Any = ()


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


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        kinds: a letter per column. l: words; r: numbers; t: foreign text; w: a foreign word, kept in one line; m: digests and
            names; b: a percentage drawn as a bar; i: a position from 0 to 100 in an interval drawn from 20 to 80, or None;
            h: a count, shaded by its share of the row's counts.
        folded: whether the table is long and collapsed at first.
    """

    title: str
    kinds: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False

    def counted(self, row: Sequence[Cell]) -> float:
        """Return the sum of a row's shaded counts."""
        return sum(float(value or 0) for kind, value in zip(self.kinds, row, strict=True) if kind == "h")


@dataclass(frozen=True)
class Token:
    """A token as the model sees it.

    Attributes:
        how: "mask", "random" or "kept" if the model predicts `original` here, "special", or "".
        glued: whether it continues the token before it.
    """

    shown: str
    original: str = ""
    how: str = ""
    glued: bool = False


@dataclass(frozen=True)
class Side:
    """A segment of an example, "A" or "B"; `origin`: title, start, end and key of its document, if known."""

    name: str
    tokens: list[Token]
    origin: dict[str, str] | None = None


@dataclass(frozen=True)
class Example:
    """An example in tokens, with a table below it. `label`: groups examples of the same label."""

    title: str
    note: str
    sides: list[Side]
    meaning: str = ""
    label: int = 0
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A heading, sentences, the terms used there, quotations, examples, tables and plots."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    terms: list[tuple[str, str]] = field(default_factory=list)
    quotes: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.text or self.tables or self.plots or self.quotes or self.examples)


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        kind: what the page is: "Data card".
        title: name of what it describes.
        lead: sentences that say what that is.
        facts: (name, value) of what identifies it, such as digests.
        state: "passed", "failed", "overridden" or "open"; `verdict` is the sentence about it.
        result: a sentence about what was reached, if that is another matter than the state; result_state: as `state`.
        warnings: sentences in a band at the top.
        tiles: (name, value) of the most important figures.
        command: the command that writes the page again, or "".
    """

    kind: str
    title: str
    lead: list[str]
    facts: list[tuple[str, str]]
    state: str
    verdict: str
    warnings: list[str]
    tiles: list[tuple[str, str]]
    sections: list[Section]
    footer: str = ""
    command: str = ""
    result: str = ""
    result_state: str = "open"


def section_from_dict(values: dict[str, Any]) -> Section:
    """Return a section from its `dataclasses.asdict`, also after JSON. Raises TypeError or KeyError for anything else."""
    plots = [Plot(**plot | {"series": [Series(**series) for series in plot["series"]]}) for plot in values["plots"]]
    examples = [
        Example(**each | {"sides": [_side(side) for side in each["sides"]], "tables": [Table(**t) for t in each["tables"]]})
        for each in values["examples"]
    ]
    tables = [Table(**table) for table in values["tables"]]
    return Section(**values | {"plots": plots, "examples": examples, "tables": tables})


def _side(values: dict[str, Any]) -> Side:
    return Side(**values | {"tokens": [Token(**token) for token in values["tokens"]]})
