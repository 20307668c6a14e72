"""Task types with one answer per text: reading examples, encoding them as tensors, and decoding logits into answers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.pages.content import Plot, Series, Table
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.config import TextColumn
from clozemill.trainers.finetuning.reading import label_sets, tables
from clozemill.trainers.finetuning.reading.example_reader import Reader
from clozemill.trainers.finetuning.reading.labels import label_name
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks import exhibits
from clozemill.trainers.finetuning.tasks.base import Example, Rows, Sample, most_frequent, sigmoid, softmax

LARGEST = float(np.finfo(np.float32).max)  # largest number that can be learnt
_MOST_POINTS = 1000  # of a plot
_TEXTS = (("text", pa.string()), ("text_pair", pa.string()))


class Classify(Reader):
    """One label for a text or a pair of texts."""

    description = "one of {} labels for a text or a pair of texts"

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[tables.Row | tables.BadRow]:
        return tables.rows(path, layout, answers)

    def example(self, row: tables.Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """Return a text, or a pair, with its label. Texts may be empty if no answers are read."""
        empty = None if answers else ""
        text = tables.text(row, layout.text, layout.option("text"), empty)
        pair = tables.text(row, layout.pair, layout.option("pair"), empty) if layout.pair else None
        answer = self._answer(row, layout, labels) if answers else None
        if answers and (not text.strip() or (pair is not None and not pair.strip())):
            raise tables.BadRow(row[0], "empty text", "its text is empty", "fix it, or remove that row")
        id_ = str(tables.value(row, layout.id, "--id-column", "")) if layout.id else ""
        return Example(row[0], text, pair, answer=answer, id=id_)

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> str | tuple[str, ...] | float:
        value = tables.value(row, layout.label, layout.option("label"))
        return label_name(row[0], layout.label, value, labels, nameable=self.labels_nameable)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return the labels that occur, sorted."""
        return tuple(sorted({example.answer for example in examples}))

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Encode each example as one row."""
        texts, pairs = [example.text for example in examples], [example.pair or "" for example in examples]
        columns = ([encoder.beginning(text) for text in column] for column in (texts, pairs))
        features, truncated = encoder.truncated_pairs(*columns)
        if answers:
            features |= {"weights": np.ones(len(examples), np.float32)} | self._targets(examples, task)
        return Rows(features, [(number,) for number in range(len(examples))], truncated)

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

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        """Return (expected, given) for the metrics."""
        index = {name: number for number, name in enumerate(task.labels)}
        return [index[e.answer] for e in examples], [index[answer["label"]] for answer in answers]

    def group_key(self, example: Example) -> tuple[str, ...]:
        return (example.text, example.pair or "")

    def strata(self, example: Example) -> Sequence[str]:
        return (example.answer,)

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        label = most_frequent([example.answer for example in train])
        return f"always {label!r}, the most frequent label", [{"label": label}] * len(dev)

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return a confusion matrix, and the scores of each label."""
        expected, given = [example.answer for example in examples], [answer["label"] for answer in answers]
        counts = exhibits.count_labels([[label] for label in expected], [[label] for label in given])
        return [exhibits.confusion_table(task.labels, expected, given, "labels"), exhibits.scores_table("label", counts)], []

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample | None:
        label = answer["label"]
        right = example.answer == label
        return Sample(exhibits.shown_text(example), example.answer, label, answer["probabilities"][label], right)


def read_texts(path: str, columns: TextColumn) -> Iterator[Example]:
    """Yield the texts of a file that needs no answers, "" for an unusable row that is allowed. Raises UserError."""
    layout = Layout().changed(columns.text_column, "", "", columns.header)
    return Classify().read(path, layout, {}, answers=False, max_reject_rate=columns.max_reject_rate or 0.0)


def _asked(example: Example) -> dict[str, Any]:
    """Return the texts that an answer belongs to."""
    return {"text": example.text} | ({"text_pair": example.pair} if example.pair is not None else {})


class MultiLabel(Classify):
    """Any number of labels, including none, for a text or a pair of texts."""

    description = "any of {} labels for a text or a pair of texts"

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

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        """Return (expected, given): 0 and 1, int [N, L]."""
        expected, given = [example.answer for example in examples], [answer["labels"] for answer in answers]
        return self._flags(expected, task), self._flags(given, task)

    def strata(self, example: Example) -> Sequence[str]:
        return example.answer

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        labels = most_frequent([tuple(sorted(example.answer)) for example in train])
        told = f"always {', '.join(map(repr, labels))}" if labels else "never a label"
        return f"{told}, the most frequent set of labels", [{"labels": list(labels)}] * len(dev)

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return the scores of each label."""
        expected, given = [example.answer for example in examples], [answer["labels"] for answer in answers]
        return [exhibits.scores_table("label", exhibits.count_labels(expected, given))], []

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample | None:
        expected, given = (", ".join(sorted(labels)) or "-" for labels in (example.answer, answer["labels"]))
        return Sample(exhibits.shown_text(example), expected, given, max(answer["probabilities"].values()), expected == given)


class Regress(Classify):
    """One number for a text or a pair of texts."""

    description = "a number for a text or a pair of texts"

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> float:
        value = tables.value(row, layout.label, layout.option("label"))
        try:
            number = np.nan if "_" in str(value) else float(value)  # Python reads 1_000 as 1000
        except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of 309 digits
            number = np.nan
        if not np.isfinite(number):
            problem = f"its {layout.label!r} is empty" if value == "" else f"its answer {repr(value)[:80]} is not a number"
            raise tables.BadRow(row[0], "no number", problem, f"fix it, or give {layout.option('label')}")
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

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        return [example.answer for example in examples], [answer["score"] for answer in answers]

    def strata(self, example: Example) -> Sequence[str]:
        return ()

    def order(self, example: Example) -> float:
        return example.answer

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        mean = float(np.mean([example.answer for example in train]))
        return f"always {mean:.4g}, the mean", [{"score": mean}] * len(dev)

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return a plot of given against expected numbers."""
        step = -(-len(examples) // _MOST_POINTS)
        expected = [float(example.answer) for example in examples[::step]]
        given = [float(answer["score"]) for answer in answers[::step]]
        ends = [min(expected), max(expected)]
        series = [Series("dev examples", "points", expected, given), Series("right", "guide", ends, ends)]
        alt = f"Given against expected numbers of {len(expected):,} dev examples; right answers are on the diagonal."
        return [], [Plot("regression", "Given against expected numbers", "expected", "given", alt, series)]

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample | None:
        return Sample(exhibits.shown_text(example), f"{example.answer:.4g}", f"{answer['score']:.4g}", None)
