"""Scores a fine-tuned model's answers on a file with labels: the task's metrics, beside those of a baseline."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning import baselines
from clozemill.trainers.finetuning.metrics import shown_metrics
from clozemill.trainers.finetuning.reading.tables import BadRow
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.base import BLIND, Example
from clozemill.trainers.finetuning.tasks.task_type import TaskType

PROBED = 100  # rows in which a label must occur
# Reasons of unusable rows in files without answers.
_UNLABELLED = {"missing column", "no words", "no tags", "no answers", "wrong number of columns", "no JSON object"}
_ANSWERS = ("label", "labels", "score", "tags", "answer")


@dataclass
class Scores:
    """Collects examples with known answers and a model's answers, and computes the metrics of a task.

    Args:
        preset: a key of TASKS.
    """

    task_type: TaskType
    task: Task
    preset: str
    examples: list[Example] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, examples: Sequence[Example], answers: Sequence[dict[str, Any]]) -> None:
        """Add some examples and the model's answers to them. Their texts are kept only if the baseline compares them."""
        blind = self.task_type.compared_with == BLIND
        self.examples += [replace(example, text="", pair=None) for example in examples] if blind else examples
        self.answers += [{name: answer[name] for name in _ANSWERS if name in answer} for answer in answers]

    def figures(self) -> dict[str, Any]:
        """Return metrics by name (None if undefined), `examples`, `baseline` with its answer and metrics, and `remarks`.

        The baseline gives the answer that fits these examples best, whatever the text.
        """
        metrics = TASKS[self.preset].metrics
        scores = baselines.scored(metrics, *self.task_type.references_and_predictions(self.examples, self.answers, self.task))
        base = baselines.baseline(self.task_type, self.task, metrics, self.examples, self.examples)
        remarks = baselines.remarks(metrics, scores, self.answers, base)
        return {**scores, "examples": len(self.examples), "baseline": base.to_dict(), "remarks": remarks}

    def report(self) -> list[str]:
        """Return the metrics, the baseline and warnings as lines of text."""
        figures = self.figures()
        base, metrics = figures["baseline"], TASKS[self.preset].metrics
        return [
            f"on {figures['examples']:,} labelled examples: {shown_metrics(metrics, figures)}",
            f"baseline: {shown_metrics(metrics, base)} ({base['answer']})",
            *(f"warning: {remark}" for remark in figures["remarks"]),
        ]


def spellings(task: Task, preset: str) -> dict[str, str]:
    """Return the label names by their spelling in files: the model's own names, and the preset's. {} for no labels."""
    known, own = dict(TASKS[preset].labels), {label: label for label in task.labels}
    return known | own if set(known.values()) == set(task.labels) else own


def labelled(task_type: TaskType, path: str, layout: Layout, labels: dict[str, str], asked: bool = False) -> bool:
    """Return whether a known label occurs in the first PROBED rows of a file. Prints a note if only unknown ones do.

    asked: whether the user named the column of labels; then a note is printed also if there are none, and UserError raised for
    a file without that column.
    """
    first = None
    try:
        for row in itertools.islice(task_type.rows(path, layout, True), PROBED):
            try:
                if isinstance(row, BadRow):
                    raise row
                task_type.example(row, layout, labels, True)
                return True
            except BadRow as bad:
                first = first or bad
    except UserError:  # without a column of labels; any other error appears when the file is read for its texts
        if asked:
            raise
        return False
    if first and (asked or first.reason not in _UNLABELLED):
        print(f"note: no scores, since none of the first {PROBED} rows of {path} has a known label; first: {first}")
    return False


class Labels:
    """Reads the answers of a file beside its texts. Rows without a usable answer are left out, and counted.

    asked: as in `labelled`.
    """

    def __init__(self, task_type: TaskType, path: str, layout: Layout, labels: dict[str, str], asked: bool = False) -> None:
        self._rows: Iterator[Example] = iter(())
        if labelled(task_type, path, layout, labels, asked):
            self._rows = task_type.read(path, layout, labels, answers=True, max_reject_rate=1.0, instead="not scored")
        self._next = next(self._rows, None)

    def matching(self, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Example], list[dict]]:
        """Return the examples that have a known answer, with it, and the model's answers to them.

        `examples`: as read without answers, in the order of the file.
        """
        found = []
        for example, answer in zip(examples, answers, strict=True):
            if self._next is not None and self._next.where == example.where:
                found.append((self._next, answer))
                self._next = next(self._rows, None)
        return [example for example, _ in found], [answer for _, answer in found]
