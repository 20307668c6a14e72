"""The answers to the dev examples, for the page of a run: a task type's tables, and samples. Pure functions."""

from collections.abc import Sequence
from typing import Any

from clozemill.model.task_model import Task
from clozemill.pipelines.pages.content import Section, Table
from clozemill.trainers.finetuning.tasks.base import Example, Sample
from clozemill.trainers.finetuning.tasks.task_type import TaskType

Answers = Sequence[dict[str, Any]]
_WRONG, _RIGHT = 8, 4  # samples


def _sure(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _samples(task_type: TaskType, examples: Sequence[Example], answers: Answers) -> list[Table]:
    found = [task_type.sample(example, answer) for example, answer in zip(examples, answers, strict=True)]
    rows = [row for row in found if row is not None]
    if all(row.confidence is None for row in rows):  # numbers
        order = sorted(rows, key=lambda row: -abs(float(row.expected) - float(row.given)))
        return [_sample_table("Largest errors", order[:_WRONG], False)] if rows else []
    wrong = sorted((row for row in rows if not row.right), key=lambda row: -(row.confidence or 0.0))
    right = [row for row in rows if row.right]
    tables = [
        _sample_table("Errors, the most confident first", wrong[:_WRONG], True),
        _sample_table("Right answers", right[:_RIGHT], True),
    ]
    return [table for table in tables if table.rows]


def _sample_table(title: str, rows: list[Sample], confident: bool) -> Table:
    cells = [(*row[:3], *([_sure(row.confidence or 0.0)] if confident else [])) for row in rows]
    head = ("text", "expected", "given", *(["confidence"] if confident else []))
    return Table(title, "ttt" + "r" * confident, head, cells)


def exhibits(task_type: TaskType, task: Task, examples: Sequence[Example], answers: Answers) -> list[Section]:
    """Return the answers to the dev examples as sections of a page."""
    if not answers:
        return []
    tables, plots = task_type.exhibits(task, examples, answers)
    samples = _samples(task_type, examples, answers)
    sections = [Section("Answers to the dev examples", tables=tables, plots=plots)]
    return sections + ([Section("Sample predictions", tables=samples)] if samples else [])
