"""The answers to the dev examples, for the page of a run: confusions, entities, and samples. Pure functions.

To add a type of task, add to TABLES, and to SAMPLES what one answer looks like.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

from clozemill.model.task_model import Task
from clozemill.pipelines.pages.content import Cell, Plot, Section, Series, Table
from clozemill.trainers.finetuning.metrics import normalised
from clozemill.trainers.finetuning.reading.tagging_schemes import entities
from clozemill.trainers.finetuning.tasks.base import Example

Answers = Sequence[dict[str, Any]]
_MOST_LABELS, _MOST_CONFUSIONS, _WRONG, _RIGHT, _CHARACTERS, _MOST_POINTS = 20, 20, 8, 4, 300, 1000


def _ratio(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _scores(name: str, counts: dict[str, list[int]]) -> Table:
    """Return precision, recall and F1. counts: by label or type, [right, given, expected]."""
    rows: list[tuple[Cell, ...]] = []
    for label, (right, given, expected) in sorted(counts.items(), key=lambda item: (-item[1][2], item[0])):
        rows.append((label, f"{expected:,}", f"{given:,}", f"{right:,}", _ratio(right, given), _ratio(right, expected),
                     _ratio(2 * right, given + expected)))  # fmt: skip
    head = (name, "expected", "given", "right", "precision", "recall", "F1")
    note = "precision: share of the given ones that are right; recall: share of the expected ones that are found."
    return Table(f"Scores by {name}", "trrrrrr", head, rows, note)


def _count(expected: Sequence[Sequence[Any]], given: Sequence[Sequence[Any]]) -> dict[str, list[int]]:
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


def _confusion(labels: Sequence[str], expected: Sequence[str], given: Sequence[str], name: str) -> Table:
    counts = collections.Counter(zip(expected, given, strict=True))
    if len(labels) > _MOST_LABELS:
        wrong = collections.Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        return _pairs_table(name, wrong, len(expected))
    rows: list[tuple[Cell, ...]] = [(label, *(counts[label, other] for other in labels)) for label in labels]
    head = ("expected \\ given", *labels)
    note = "A row per expected label, a column per given one; the diagonal is right. Shades are shares of a row."
    return Table("Confusion matrix", "t" + "h" * len(labels), head, rows, note)


def _classify(task: Task, examples: Sequence[Example], answers: Answers) -> tuple[list[Table], list[Plot]]:
    expected, given = [example.answer for example in examples], [answer["label"] for answer in answers]
    scores = _scores("label", _count([[label] for label in expected], [[label] for label in given]))
    return [_confusion(task.labels, expected, given, "labels"), scores], []


def _multilabel(task: Task, examples: Sequence[Example], answers: Answers) -> tuple[list[Table], list[Plot]]:
    return [_scores("label", _count([e.answer for e in examples], [answer["labels"] for answer in answers]))], []


def _regress(task: Task, examples: Sequence[Example], answers: Answers) -> tuple[list[Table], list[Plot]]:
    step = -(-len(examples) // _MOST_POINTS)
    expected = [float(example.answer) for example in examples[::step]]
    given = [float(answer["score"]) for answer in answers[::step]]
    ends = [min(expected), max(expected)]
    series = [Series("dev examples", "points", expected, given), Series("right", "guide", ends, ends)]
    alt = f"Given against expected numbers of {len(expected):,} dev examples; right answers are on the diagonal."
    return [], [Plot("regression", "Given against expected numbers", "expected", "given", alt, series)]


def _tags(task: Task, examples: Sequence[Example], answers: Answers) -> tuple[list[Table], list[Plot]]:
    expected, given = [list(example.answer) for example in examples], [answer["tags"] for answer in answers]
    found = [[list(entities(tags)) for tags in sentences] for sentences in (expected, given)]
    tables = []
    if any(found[0]) or any(found[1]):
        tables.append(_scores("entity type", _count(found[0], found[1])))
    one, other = ([tag for tags in side for tag in tags] for side in (expected, given))
    return [*tables, _confusion(task.labels, one, other, "tags")], []


def _spans(task: Task, examples: Sequence[Example], answers: Answers) -> tuple[list[Table], list[Plot]]:
    counts = collections.Counter(_span_result(example, answer) for example, answer in zip(examples, answers, strict=True))
    rows: list[tuple[Cell, ...]] = [
        (name, f"{count:,}", _ratio(count, len(examples)), 100 * count / len(examples))
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return [Table("Answers", "lrrb", ("result", "questions", "share", ""), rows)], []


def _span_result(example: Example, answer: dict[str, Any]) -> str:
    right, given = {normalised(text) for text, _ in example.answer} - {""}, normalised(answer["answer"])
    if not right:
        return "an answer, but there is none" if given else "no answer, rightly"
    if not given:
        return "no answer, but there is one"
    if given in right:
        return "exact"
    return "overlapping" if any(set(given.split()) & set(text.split()) for text in right) else "wrong"


TABLES: dict[str, Callable[[Task, Sequence[Example], Answers], tuple[list[Table], list[Plot]]]] = {
    "classify": _classify,
    "multilabel": _multilabel,
    "regress": _regress,
    "tags": _tags,
    "spans": _spans,
}


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + " …"


def _text(example: Example) -> str:
    return _short(example.text if example.pair is None else f"{example.text} | {example.pair}")


def _sure(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _tagged(words: Sequence[str], tags: Sequence[str]) -> str:
    return _short(" ".join(f"{word}/{tag}" if tag != "O" else word for word, tag in zip(words, tags, strict=True)))


# By task type: (text, expected, given, confidence) of an answer. The confidence sorts errors, and is shown.
SAMPLES: dict[str, Callable[[Example, dict[str, Any]], tuple[str, str, str, float | None]]] = {
    "classify": lambda e, a: (_text(e), e.answer, a["label"], a["probabilities"][a["label"]]),
    "multilabel": lambda e, a: (_text(e), ", ".join(sorted(e.answer)) or "-", ", ".join(sorted(a["labels"])) or "-",
                                max(a["probabilities"].values())),
    "regress": lambda e, a: (_text(e), f"{e.answer:.4g}", f"{a['score']:.4g}", None),
    "tags": lambda e, a: (_short(" ".join(e.words)), _tagged(e.words, e.answer), _tagged(e.words, a["tags"]),
                          min(a["probabilities"], default=1.0)),
    "spans": lambda e, a: (_short(e.text), _short(e.answer[0][0]) if e.answer else "-", _short(a["answer"]) or "-",
                           a["probability"]),
}  # fmt: skip


def _samples(task: Task, examples: Sequence[Example], answers: Answers) -> list[Table]:
    rows = [SAMPLES[task.kind](example, answer) for example, answer in zip(examples, answers, strict=True)]
    if task.kind == "regress":
        order = sorted(rows, key=lambda row: -abs(float(row[1]) - float(row[2])))
        return [_sample_table("Largest errors", order[:_WRONG], False)] if rows else []
    wrong = [row for row in rows if row[1] != row[2]]
    right = [row for row in rows if row[1] == row[2]]
    found = [
        _sample_table("Errors, the most confident first", sorted(wrong, key=lambda row: -(row[3] or 0.0))[:_WRONG], True),
        _sample_table("Right answers", right[:_RIGHT], True),
    ]
    return [table for table in found if table.rows]


def _sample_table(title: str, rows: list[tuple[str, str, str, float | None]], confident: bool) -> Table:
    cells = [(*row[:3], *([_sure(row[3] or 0.0)] if confident else [])) for row in rows]
    head = ("text", "expected", "given", *(["confidence"] if confident else []))
    return Table(title, "ttt" + "r" * confident, head, cells)


def exhibits(task: Task, examples: Sequence[Example], answers: Answers) -> list[Section]:
    """Return the answers to the dev examples as sections of a page."""
    if not answers:
        return []
    tables, plots = TABLES[task.kind](task, examples, answers)
    return [
        Section("Answers to the dev examples", tables=tables, plots=plots),
        Section("Sample predictions", tables=_samples(task, examples, answers)),
    ]
