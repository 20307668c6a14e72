"""Extractive question answering: the span of a context that answers a question."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.model.task_model import MAX_QUESTION, Task
from clozemill.pipelines.pages.content import Cell, Plot, Table
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.metrics import normalised
from clozemill.trainers.finetuning.reading import squad, tables
from clozemill.trainers.finetuning.reading.example_reader import Reader
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks import exhibits
from clozemill.trainers.finetuning.tasks.base import Example, Rows, Sample


class Spans(Reader):
    """The span of a context that answers a question; long contexts are split into overlapping windows."""

    description = "the span of a context that answers a question"
    paired = True

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[tables.Row | tables.BadRow]:
        return squad.questions(path, answers)

    def example(self, row: tables.Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        """Return a question. The first answer at its stated position is moved to the front: it is the training target."""
        where, values = row
        question, context = values["question"].strip(), values["context"]
        if not answers:
            return Example(where, question, context, id=values["id"])
        if not question or not context.strip():
            raise tables.BadRow(where, "empty text", "its question or context is empty", "fix it, or remove that question")

        def misplaced(answer: tuple[str, int]) -> bool:
            text, start = answer
            return not text or start < 0 or context[start : start + len(text)] != text

        found = sorted(
            values["answers"], key=misplaced
        )  # stable sort; misplaced answers are kept, since their texts are used for scoring
        if found and misplaced(found[0]):
            text, start = found[0]
            problem = f"its answer {text!r} is not at {start} in the context"
            raise tables.BadRow(where, "misplaced answer", problem, "fix it, or remove that question")
        return Example(where, question, context, answer=tuple(found), id=values["id"])

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return ()

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Encode windows. They overlap by at least half, so that an answer cut by a window's edge is complete in the next one.

        `about`: (example, position of the context's first token in the row, begin and end of each token in the context).
        """
        questions = encoder.ids([example.text for example in examples])
        contexts = list({example.pair or "": None for example in examples})  # many questions share a context
        located = dict(zip(contexts, encoder.with_offsets(contexts, by_piece=True), strict=True))
        packed, about, targets = [], [], []
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            question = question[: min(MAX_QUESTION, encoder.max_seq_length // 2)]
            ids, starts, ends = located[example.pair or ""]
            room = encoder.max_seq_length - len(question) - 3
            target = _tokens_of(example.answer[0], starts, ends) if example.answer else None
            for begin in range(0, max(1, len(ids)), min(task.doc_stride, -(-room // 2))):
                window, offset = slice(begin, begin + room), len(question) + 2
                packed.append((question, ids[window]))
                about.append((number, offset, starts[window], ends[window]))
                inside = target is not None and begin <= target[0] and target[1] < begin + room
                targets.append([edge - begin + offset for edge in target] if target and inside else [0, 0])
                if begin + room >= len(ids):
                    break
        features = encoder.pack(packed)
        if answers:
            edges = np.array(targets, np.int32).reshape(-1, 2)
            features |= {"starts": edges[:, 0], "ends": edges[:, 1], "weights": np.ones(len(edges), np.float32)}
        return Rows(features, about)

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return the best span of all windows, or "" if [CLS] scores higher and the task has questions without an answer.

        `probability` is relative to all spans of the same window, `no_answer_probability` compares no answer with the span.
        """
        best: dict[int, tuple] = {}
        nothing = dict.fromkeys(range(len(examples)), np.inf)
        for (number, offset, starts, ends), row in zip(rows.about, logits, strict=True):
            nothing[number] = min(nothing[number], float(row[0].sum()))
            score, probability, first, last = _best_span(row[offset : offset + len(starts)], task.max_answer)
            if number not in best or score > best[number][0]:
                place = (int(starts[first]), int(ends[last])) if len(starts) else (0, 0)
                best[number] = (score, probability, place)
        found = []
        for number, example in enumerate(examples):
            score, probability, (begin, end) = best[number]
            none = 1 / (1 + np.exp(np.clip(score - nothing[number], -500, 500))) if task.no_answer else 0.0
            answer = "" if none > 0.5 else (example.pair or "")[begin:end]
            asked = {"id": example.id, "question": example.text, "context": example.pair}
            found.append(
                asked
                | {"answer": answer, "start": begin if answer else -1}
                | {"probability": probability, "no_answer_probability": float(none)}
            )
        return found

    def columns(self, task: Task) -> pa.Schema:
        """Return the schema of `answers`."""
        texts = [(name, pa.string()) for name in ("id", "question", "context", "answer")]
        return pa.schema(
            [*texts, ("start", pa.int64()), ("probability", pa.float64()), ("no_answer_probability", pa.float64())]
        )

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        return [[text for text, _ in e.answer] for e in examples], [answer["answer"] for answer in answers]

    def out_of_reach(self, examples: Sequence[Example], rows: Rows, task: Task) -> dict[str, int]:
        """Count, by reason, the questions whose first answer no model can predict exactly."""
        best = {}  # per question: how its answer is cut in the windows that contain it
        edges = zip(rows.about, rows.features["starts"].tolist(), rows.features["ends"].tolist(), strict=True)
        for (number, offset, starts, ends), first, last in edges:
            if first:
                cut = examples[number].pair[starts[first - offset] : ends[last - offset]]
                best[number] = last - first < task.max_answer, cut
        found: dict[str, int] = {}
        for number, example in enumerate(examples):
            if example.answer:
                fits, cut = best.get(number, (True, None))
                if cut is None:
                    reason = f"don't fit a window of --max-seq-length {task.max_seq_length}"
                elif not fits:
                    reason = f"are longer than --max-answer-length {task.max_answer}"
                elif normalised(cut) != normalised(example.answer[0][0]):
                    reason = "begin or end within a token"
                else:
                    continue
                found[reason] = found.get(reason, 0) + 1
        return found

    def group_key(self, example: Example) -> tuple[str, ...]:
        return (example.pair or "",)

    def strata(self, example: Example) -> Sequence[str]:
        return () if example.answer else ("questions without an answer",)

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        return "never an answer", [{"answer": ""}] * len(dev)

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return how many answers are exact, overlap, or are wrong."""
        counts = collections.Counter(_result(example, answer) for example, answer in zip(examples, answers, strict=True))
        rows: list[tuple[Cell, ...]] = [
            (name, f"{count:,}", exhibits.percent(count, len(examples)), 100 * count / len(examples))
            for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        return [Table("Answers", "lrrb", ("result", "questions", "share", ""), rows)], []

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample:
        expected = exhibits.shortened(example.answer[0][0]) if example.answer else "-"
        given = exhibits.shortened(answer["answer"]) or "-"
        right = _result(example, answer) in _RIGHT
        return Sample(exhibits.shortened(example.text), expected, given, answer["probability"], right)


_RIGHT = ("exact", "no answer, rightly")  # results


def _result(example: Example, answer: dict[str, Any]) -> str:
    right, given = {normalised(text) for text, _ in example.answer} - {""}, normalised(answer["answer"])
    if not right:
        return "an answer, but there is none" if given else "no answer, rightly"
    if not given:
        return "no answer, but there is one"
    if given in right:
        return "exact"
    return "overlapping" if any(set(given.split()) & set(text.split()) for text in right) else "wrong"


def _tokens_of(answer: tuple[str, int], starts: np.ndarray, ends: np.ndarray) -> tuple[int, int] | None:
    """Return the first and last token that overlap an answer (text, position); None if no token does."""
    touched = np.flatnonzero((starts < answer[1] + len(answer[0])) & (ends > answer[1]))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _best_span(logits: np.ndarray, longest: int) -> tuple[float, float, int, int]:
    """Return (score, probability, first token, last token) of the best span of at most `longest` tokens; logits [tokens, 2]."""
    if not len(logits):
        return -np.inf, 0.0, 0, 0
    scores = logits[:, 0, None].astype(np.float64) + logits[None, :, 1]
    places = np.arange(len(logits))
    length = places[None, :] - places[:, None]
    scores[(length < 0) | (length >= longest)] = -np.inf
    best = int(scores.argmax())
    top = scores.flat[best]
    return float(top), float(1 / np.exp(scores - top).sum()), *divmod(best, len(logits))
