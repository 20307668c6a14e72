"""The kinds of tasks, each in one class: how examples are read, become rows of tensors, and rows of logits become answers.

To add a kind, add a class to KINDS, its logits to model/tasks.py, and its signature to model/savedmodel.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.tasks import Task
from pipelines.schema import UserError
from trainers import tables
from trainers.features import TextEncoder
from trainers.presets import Layout

_MAX_QUESTION, _MAX_ANSWER = 64, 30  # tokens, as google-research/bert's run_squad.py


@dataclass(frozen=True)
class Example:
    """A text, or two, or words, and its answer where there is one. `where`: for messages. `id`: of a question."""

    where: str
    text: str = ""
    pair: str | None = None
    words: tuple[str, ...] = ()
    answer: Any = None
    id: str = ""


@dataclass
class Rows:
    """Rows of tensors: `features` int32 [N, S] each, targets among them where answers are known, and float `weights`.

    `about`: for each row, which example it belongs to, and what its kind has to remember of it.
    """

    features: dict[str, np.ndarray]
    about: list[tuple] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.features["input_ids"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Classify:
    """One label for a text, or for a pair."""

    def read(self, path: str, layout: Layout, labels: dict[str, str], answers: bool) -> Iterator[Example]:
        """A file's examples. `labels`: names of the labels as the file has them, {} for any. Raises UserError."""
        for row in tables.rows(path, layout):
            text = tables.text(row, layout.text, "--text-column")
            pair = tables.text(row, layout.pair, "--pair-column") if layout.pair else None
            answer = self._answer(row, layout, labels) if answers else None
            if answers and (not text.strip() or (pair is not None and not pair.strip())):
                raise UserError(f"{row[0]}: its text is empty: remove that example, or mend it")
            yield Example(row[0], text, pair, answer=answer)

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> str:
        value = tables.value(row, layout.label, "--label-column")
        told = str(int(value)) if isinstance(value, bool | int) else str(value)
        if labels and told not in labels:
            raise UserError(
                f"{row[0]}: its label {told!r} is none of {', '.join(labels)}: mend it, or give --label-column or --labels"
            )
        return labels.get(told, told)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({example.answer for example in examples}))

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """A row per example."""
        pairs = [example.pair or "" for example in examples] if any(e.pair is not None for e in examples) else ()
        features = encoder.pairs([example.text for example in examples], pairs)
        if answers:
            features |= self._targets(examples, task)
            features["weights"] = np.ones(len(examples), np.float32)
        return Rows(features, [(number,) for number in range(len(examples))])

    def _targets(self, examples: Sequence[Example], task: Task) -> dict[str, np.ndarray]:
        index = {name: number for number, name in enumerate(task.labels)}
        return {"labels": np.array([index[example.answer] for example in examples], np.int32)}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """The label of each example, and all probabilities."""
        probs = softmax(logits)
        return [
            _asked(example)
            | {"label": task.labels[int(row.argmax())], "probabilities": dict(zip(task.labels, row.tolist(), strict=True))}
            for example, row in zip(examples, probs, strict=True)
        ]

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        """(expected, given) for the metrics."""
        index = {name: number for number, name in enumerate(task.labels)}
        return [index[e.answer] for e in examples], [index[answer["label"]] for answer in answers]


def _asked(example: Example) -> dict[str, Any]:
    """What an answer is to."""
    return {"text": example.text} | ({"text_pair": example.pair} if example.pair is not None else {})


class Regress(Classify):
    """One number for a text, or for a pair."""

    def _answer(self, row: tables.Row, layout: Layout, labels: dict[str, str]) -> float:
        value = tables.value(row, layout.label, "--label-column")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise UserError(f"{row[0]}: its answer {value!r} is no number: mend it, or give --label-column")
        return number

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return ()

    def _targets(self, examples: Sequence[Example], task: Task) -> dict[str, np.ndarray]:
        return {"labels": np.array([example.answer for example in examples], np.float32)}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """The number of each example."""
        return [_asked(example) | {"score": float(row[0])} for example, row in zip(examples, logits, strict=True)]

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        return [example.answer for example in examples], [answer["score"] for answer in answers]


class Tags:
    """A label for every word; its first piece answers. Sentences that are too long go on in a row of their own."""

    def read(self, path: str, layout: Layout, labels: dict[str, str], answers: bool) -> Iterator[Example]:
        """CoNLL columns, or a table (JSON lines, Parquet) with `words` and `tags` as lists, or `text` with spaces."""
        table = path.removesuffix(".gz").endswith((".jsonl", ".parquet"))
        if not answers and not table:
            layout = layout.changed("", "", layout.text, "auto")  # the words' column will do
        for where, row in tables.rows(path, layout) if table else tables.conll(path, layout):
            words, tags = row.get("words"), row.get("tags") if answers else None
            if words is None and isinstance(row.get("text"), str) and not answers:
                words = row["text"].split()
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise UserError(f"{where}: it has no list of words: give them as 'words', and their tags as 'tags'")
            if answers and (not isinstance(tags, list) or len(tags) != len(words)):
                raise UserError(f"{where}: it has {len(words)} words, and 'tags' is no list of as many: mend it")
            for tag in tags or ():
                if labels and tag not in labels:
                    raise UserError(f"{where}: its tag {tag!r} is none of {', '.join(labels)}: mend it, or give --labels")
            if words:
                yield Example(where, words=tuple(words), answer=tuple(labels.get(tag, tag) for tag in tags or ()) or None)

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """O first, then the tags that occur, sorted."""
        found = {tag for example in examples for tag in example.answer}
        return tuple(["O"] * ("O" in found) + sorted(found - {"O"}))

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """`about`: (example, its first word in the row, where each of its words begins)."""
        words = [word for example in examples for word in example.words]
        pieces, packed, about, begin = encoder.ids(words), [], [], 0
        room = encoder.max_seq_length - 2
        for number, example in enumerate(examples):
            own = [piece[:room] if len(piece) else encoder.unknown for piece in pieces[begin : begin + len(example.words)]]
            begin += len(example.words)
            first = 0
            while first < len(own):
                starts = 1 + np.cumsum([0] + [len(piece) for piece in own[first:]])
                count = int(np.searchsorted(starts, room + 1, "right")) - 1
                packed.append((np.concatenate(own[first : first + count]), None))
                about.append((number, first, starts[:count]))
                first += count
        features = encoder.pack(packed)
        if answers:
            features |= self._targets(examples, task, about, features["input_ids"].shape)
        return Rows(features, about)

    def _targets(self, examples: Sequence[Example], task: Task, about: list[tuple], shape: tuple) -> dict[str, np.ndarray]:
        index = {name: number for number, name in enumerate(task.labels)}
        labels, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, (number, first, starts) in enumerate(about):
            tags = examples[number].answer[first : first + len(starts)]
            labels[row, starts], weights[row, starts] = [index[tag] for tag in tags], 1
        return {"labels": labels, "weights": weights}

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """A tag for every word, and its probability."""
        found = [{"words": list(example.words), "tags": [], "probabilities": []} for example in examples]
        for (number, _, starts), row in zip(rows.about, logits, strict=True):
            probs = softmax(row[starts])
            found[number]["tags"] += [task.labels[best] for best in probs.argmax(axis=1)]
            found[number]["probabilities"] += probs.max(axis=1).tolist()
        return found

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        return [list(example.answer) for example in examples], [answer["tags"] for answer in answers]


class Spans:
    """Where in a context the answer to a question stands; long contexts are read in windows that overlap."""

    def __init__(self, doc_stride: int = 128) -> None:
        self.doc_stride = doc_stride

    def read(self, path: str, layout: Layout, labels: dict[str, str], answers: bool) -> Iterator[Example]:
        """SQuAD's JSON. Raises UserError where an answer doesn't stand in its context."""
        for where, row in tables.squad(path, layout):
            question, context = row["question"].strip(), row["context"]
            if not question or not context.strip():
                raise UserError(f"{where}: its question or context is empty: remove it, or mend it")
            for text, start in row["answers"] if answers else ():
                if context[start : start + len(text)] != text:
                    raise UserError(f"{where}: its answer {text!r} doesn't stand at {start} in the context: mend it")
            yield Example(where, question, context, answer=tuple(row["answers"]) if answers else None, id=row["id"])

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return ()

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """`about`: (example, the context's first token in the row, where each token's word begins and ends)."""
        questions = encoder.ids([example.text for example in examples])
        packed, about, targets = [], [], []
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            question = question[: min(_MAX_QUESTION, encoder.max_seq_length // 2)]
            ids, starts, ends = encoder.with_offsets(example.pair)
            room = encoder.max_seq_length - len(question) - 3
            target = _tokens_of(example.answer[0], starts, ends) if example.answer else None
            for begin in range(0, max(1, len(ids)), min(self.doc_stride, room)):
                window, offset = slice(begin, begin + room), len(question) + 2
                packed.append((question, ids[window]))
                about.append((number, offset, starts[window], ends[window]))
                inside = target is not None and begin <= target[0] and target[1] < begin + room
                targets.append([edge - begin + offset for edge in target] if inside else [0, 0])
                if begin + room >= len(ids):
                    break
        features = encoder.pack(packed)
        if answers:
            edges = np.array(targets, np.int32).reshape(-1, 2)
            features |= {"starts": edges[:, 0], "ends": edges[:, 1], "weights": np.ones(len(edges), np.float32)}
        return Rows(features, about)

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """The best span of all windows, or "" where [CLS] scores higher and the task has questions without an answer.

        `probability` compares all spans of the best one's window, and `no_answer_probability` no answer with the best span.
        """
        best: dict[int, tuple] = {}
        nothing = dict.fromkeys(range(len(examples)), np.inf)
        for (number, offset, starts, ends), row in zip(rows.about, logits, strict=True):
            nothing[number] = min(nothing[number], float(row[0].sum()))
            score, probability, first, last = _best_span(row[offset : offset + len(starts)])
            if number not in best or score > best[number][0]:
                place = (int(starts[first]), int(ends[last])) if len(starts) else (0, 0)
                best[number] = (score, probability, place)
        found = []
        for number, example in enumerate(examples):
            score, probability, (begin, end) = best[number]
            none = 1 / (1 + np.exp(np.clip(score - nothing[number], -500, 500))) if task.no_answer else 0.0
            answer = "" if none > 0.5 else example.pair[begin:end]
            asked = {"id": example.id, "question": example.text, "context": example.pair}
            found.append(
                asked
                | {"answer": answer, "start": begin if answer else -1}
                | {"probability": probability, "no_answer_probability": float(none)}
            )
        return found

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        return [[text for text, _ in e.answer] for e in examples], [answer["answer"] for answer in answers]


def _tokens_of(answer: tuple[str, int], starts: np.ndarray, ends: np.ndarray) -> tuple[int, int] | None:
    """The first and last token whose words an answer (text, place) touches; None where it touches none."""
    touched = np.flatnonzero((starts < answer[1] + len(answer[0])) & (ends > answer[1]))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _best_span(logits: np.ndarray) -> tuple[float, float, int, int]:
    """(score, probability, first token, last token) of the best span of up to 30 tokens; logits [tokens, 2]."""
    if not len(logits):
        return -np.inf, 0.0, 0, 0
    scores = logits[:, 0, None].astype(np.float64) + logits[None, :, 1]
    places = np.arange(len(logits))
    length = places[None, :] - places[:, None]
    scores[(length < 0) | (length >= _MAX_ANSWER)] = -np.inf
    best = int(scores.argmax())
    top = scores.flat[best]
    return float(top), float(1 / np.exp(scores - top).sum()), *divmod(best, len(logits))


KINDS = {"classify": Classify, "regress": Regress, "tags": Tags, "spans": Spans}
