"""Tags: a label for every word of a sentence."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from model.tasks import Task
from pipelines.schema import UserError
from trainers import tables
from trainers.examples import Example, Rows, softmax
from trainers.features import TextEncoder
from trainers.presets import Layout


def _column(name: str, default: str) -> str:
    """A column of lists; numbers are those of CoNLL's columns."""
    return default if name.removeprefix("-").isdigit() else name


def _known(where: str, tags: list, labels: dict[str, str]) -> tuple[str, ...]:
    """Tags by their names. Raises UserError for one that isn't in the set, where there is one ({}: any)."""
    for tag in tags:
        if not isinstance(tag, str | int) or (labels and str(tag) not in labels):
            known = f"none of {', '.join(labels)}" if labels else "neither a text nor a number"
            raise UserError(f"{where}: its tag {tag!r} is {known}: mend it, or give --labels")
    return tuple(labels.get(str(tag), str(tag)) for tag in tags)


class Tags:
    """A label for every word; its first piece answers. Sentences that are too long go on in a row of their own."""

    def read(self, path: str, layout: Layout, labels: dict[str, str], answers: bool) -> Iterator[Example]:
        """CoNLL columns, or a table (JSON lines, Parquet) with words and tags as lists, or `text` with spaces.

        Such a table's columns are `words` and `tags` unless the layout has names instead of numbers.
        """
        table = path.removesuffix(".gz").endswith((".jsonl", ".parquet"))
        if not answers and not table:
            layout = layout.changed("", "", layout.text, "auto")  # the words' column will do
        of_words, of_tags = (_column(layout.text, "words"), _column(layout.label, "tags")) if table else ("words", "tags")
        for where, row in tables.rows(path, layout) if table else tables.conll(path, layout):
            words, tags = row.get(of_words), row.get(of_tags) if answers else None
            if words is None and isinstance(row.get("text"), str) and not answers:
                words = row["text"].split()
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise UserError(f"{where}: {of_words!r} is no list of words: give one, or --text-column")
            if answers and (not isinstance(tags, list) or len(tags) != len(words)):
                told = f"{of_tags!r} is no list of as many as its {len(words)} words"
                raise UserError(f"{where}: {told}: mend it, or give --label-column")
            if words:
                yield Example(where, words=tuple(words), answer=_known(where, tags, labels) if answers else None)

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

    def columns(self, task: Task) -> pa.Schema:
        """The types of what `answers` gives."""
        texts = pa.list_(pa.string())
        return pa.schema([("words", texts), ("tags", texts), ("probabilities", pa.list_(pa.float64()))])

    def judged(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[list, list]:
        return [list(example.answer) for example in examples], [answer["tags"] for answer in answers]
