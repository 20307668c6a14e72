"""Tables and texts of answers that several task types show on the page of a run. Pure functions."""

import collections
from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.pages.content import Cell, Table
from clozemill.trainers.finetuning.tasks.base import Example

_MOST_LABELS, _MOST_CONFUSIONS, _CHARACTERS = 20, 20, 300


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def scores_table(name: str, counts: dict[str, list[int]]) -> Table:
    """Return precision, recall and F1. counts: by label or type, [right, given, expected]."""
    rows: list[tuple[Cell, ...]] = []
    for label, (right, given, expected) in sorted(counts.items(), key=lambda item: (-item[1][2], item[0])):
        rows.append((label, f"{expected:,}", f"{given:,}", f"{right:,}", percent(right, given), percent(right, expected),
                     percent(2 * right, given + expected)))  # fmt: skip
    head = (name, "expected", "given", "right", "precision", "recall", "F1")
    note = "precision: share of the given ones that are right; recall: share of the expected ones that are found."
    return Table(f"Scores by {name}", "trrrrrr", head, rows, note)


def count_labels(expected: Sequence[Sequence[Any]], given: Sequence[Sequence[Any]]) -> dict[str, list[int]]:
    """Count by label; items are labels, or tuples that begin with one."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for mine, theirs in zip(expected, given, strict=True):
        for at, items in enumerate((set(mine) & set(theirs), set(theirs), set(mine))):
            for item in items:
                counts[item if isinstance(item, str) else item[0]][at] += 1
    return dict(counts)


def _pairs_table(name: str, confusions: collections.Counter, total: int) -> Table:
    """Return the most frequent confusions, where a matrix would be too large."""
    order = sorted(confusions.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[Cell, ...]] = [(right, given, f"{count:,}") for (right, given), count in order[:_MOST_CONFUSIONS]]
    note = f"{min(len(order), _MOST_CONFUSIONS)} of {len(order):,} kinds of errors in {total:,} answers."
    return Table(f"Most frequent confusions of {name}", "ttr", ("expected", "given", "times"), rows, note)


def confusion_table(labels: Sequence[str], expected: Sequence[str], given: Sequence[str], name: str) -> Table:
    counts = collections.Counter(zip(expected, given, strict=True))
    if len(labels) > _MOST_LABELS:
        wrong = collections.Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        return _pairs_table(name, wrong, len(expected))
    rows: list[tuple[Cell, ...]] = [(label, *(counts[label, other] for other in labels)) for label in labels]
    head = ("expected \\ given", *labels)
    note = "A row per expected label, a column per given one; the diagonal is right. Shades are shares of a row."
    return Table("Confusion matrix", "t" + "h" * len(labels), head, rows, note)


def shortened(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + " …"


def shown_text(example: Example) -> str:
    return shortened(example.text if example.pair is None else f"{example.text} | {example.pair}")


def shown_tags(words: Sequence[str], tags: Sequence[str]) -> str:
    return shortened(" ".join(f"{word}/{tag}" if tag != "O" else word for word, tag in zip(words, tags, strict=True)))
