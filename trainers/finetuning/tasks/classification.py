"""Task types with one answer per text: reading examples, encoding them as tensors, and decoding logits into answers.

To add a task type, add a class to TASK_TYPES in registry.py, its logits and loss to KINDS in model/task_model.py, and its
answers to ANSWERS in model/export/signatures.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.reading import label_sets, tables
from clozemill.trainers.finetuning.reading.example_reader import Reader
from clozemill.trainers.finetuning.reading.labels import label_name
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import Example, Rows, sigmoid, softmax

LARGEST = float(np.finfo(np.float32).max)  # largest number that can be learnt
_TEXTS = (("text", pa.string()), ("text_pair", pa.string()))


class Classify(Reader):
    """One label for a text or a pair of texts."""

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[tables.Row | tables.BadRow]:
        return tables.rows(path, layout, answers)

    def example(self, row: tables.Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """Return a text, or a pair, with its label. Texts may be empty if no answers are read."""
        empty = None if answers else ""
        text = tables.text(row, layout.text, "--text-column", empty)
        pair = tables.text(row, layout.pair, "--pair-column", empty) if layout.pair else None
        answer = self._answer(row, layout, labels) if answers else None
        if answers and (not text.strip() or (pair is not None and not pair.strip())):
            raise tables.BadRow(row[0], "empty text", "its text is empty", "fix it, or remove that row")
        id_ = str(tables.value(row, layout.id, "--id-column", "")) if layout.id else ""
        return Example(row[0], text, pair, answer=answer, id=id_)

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> str:
        value = tables.value(row, layout.label, "--label-column")
        return label_name(row[0], layout.label, value, labels, nameable=self.labels_nameable)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return the labels that occur, sorted."""
        return tuple(sorted({example.answer for example in examples}))

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Encode each example as one row."""
        texts, pairs = [example.text for example in examples], [example.pair or "" for example in examples]
        features = encoder.pairs(*([encoder.beginning(text) for text in column] for column in (texts, pairs)))
        if answers:
            features |= {"weights": np.ones(len(examples), np.float32)} | self._targets(examples, task)
        return Rows(features, [(number,) for number in range(len(examples))])

    def _targets(self, examples: Sequence[Example], task: Task) -> dict[str, np.ndarray]:
        index = {name: number for number, name in enumerate(task.labels)}
        return {"labels": np.array([index[example.answer] for example in examples], np.int32)}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return the label of each example, and all probabilities."""
        probs = softmax(logits)
        return [
            _asked(example)
            | {"label": task.labels[int(row.argmax())], "probabilities": dict(zip(task.labels, row.tolist(), strict=True))}
            for example, row in zip(examples, probs, strict=True)
        ]

    def columns(self, task: Task) -> pa.Schema:
        """Return the schema of `answers`."""
        probabilities = pa.struct([(label, pa.float64()) for label in task.labels])
        return pa.schema([*_TEXTS, ("label", pa.string()), ("probabilities", probabilities)])

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        """Return (expected, given) for the metrics."""
        index = {name: number for number, name in enumerate(task.labels)}
        return [index[e.answer] for e in examples], [index[answer["label"]] for answer in answers]


def _asked(example: Example) -> dict[str, Any]:
    """Return the texts that an answer belongs to."""
    return {"text": example.text} | ({"text_pair": example.pair} if example.pair is not None else {})


class MultiLabel(Classify):
    """Any number of labels, including none, for a text or a pair of texts."""

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> tuple[str, ...]:
        return label_sets.labels_of(row, layout, labels, self.labels_nameable)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return the labels that occur, sorted. Raises UserError if all examples have 0 and 1: their lists must be vectors."""
        if examples and all(set(example.answer) == {"0", "1"} for example in examples):
            problem = "every example has the labels 0 and 1, so its lists must be vectors"
            raise UserError(f"{examples[0].where}: {problem}: {label_sets.COLUMNS} (or name 0 and 1 in --labels)")
        return tuple(sorted({label for example in examples for label in example.answer}))

    def _flags(self, answers: Sequence[Sequence[str]], task: Task) -> np.ndarray:
        """Return the labels of each answer as 0 and 1, int [N, L]."""
        return np.array([[label in answer for label in task.labels] for answer in answers], np.int64)

    def _targets(self, examples: Sequence[Example], task: Task) -> dict[str, np.ndarray]:
        labels = self._flags([example.answer for example in examples], task).astype(np.float32)[:, None]
        return {"labels": labels, "weights": np.ones_like(labels)}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return the labels of each example whose probability reaches the threshold, and all probabilities."""
        probs = sigmoid(logits)
        return [
            _asked(example)
            | {"labels": [label for label, prob in zip(task.labels, row, strict=True) if prob >= task.threshold]}
            | {"probabilities": dict(zip(task.labels, row.tolist(), strict=True))}
            for example, row in zip(examples, probs, strict=True)
        ]

    def columns(self, task: Task) -> pa.Schema:
        probabilities = pa.struct([(label, pa.float64()) for label in task.labels])
        return pa.schema([*_TEXTS, ("labels", pa.list_(pa.string())), ("probabilities", probabilities)])

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[np.ndarray, np.ndarray]:
        """Return (expected, given): 0 and 1, int [N, L]."""
        expected, given = [example.answer for example in examples], [answer["labels"] for answer in answers]
        return self._flags(expected, task), self._flags(given, task)


class Regress(Classify):
    """One number for a text or a pair of texts."""

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> float:
        value = tables.value(row, layout.label, "--label-column")
        try:
            number = np.nan if "_" in str(value) else float(value)  # Python reads 1_000 as 1000
        except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of 309 digits
            number = np.nan
        if not np.isfinite(number):
            problem = f"its {layout.label!r} is empty" if value == "" else f"its answer {repr(value)[:80]} is not a number"
            raise tables.BadRow(row[0], "no number", problem, "fix it, or give --label-column")
        if abs(number) > LARGEST:
            problem = f"its answer {repr(value)[:80]} is beyond {LARGEST:.2g}, the largest number of float32"
            raise tables.BadRow(row[0], "too large", problem, "fix it, or scale all answers")
        return number

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return ()

    def _targets(self, examples: Sequence[Example], task: Task) -> dict[str, np.ndarray]:
        return {"labels": np.array([example.answer for example in examples], np.float32)}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return the number of each example."""
        return [_asked(example) | {"score": float(row[0])} for example, row in zip(examples, logits, strict=True)]

    def columns(self, task: Task) -> pa.Schema:
        return pa.schema([*_TEXTS, ("score", pa.float64())])

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        return [example.answer for example in examples], [answer["score"] for answer in answers]
