"""Token classification: a label for every word of a sentence."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.pages.content import Plot, Table
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.reading import conll, tables
from clozemill.trainers.finetuning.reading.conll import MAX_WORDS
from clozemill.trainers.finetuning.reading.example_reader import Reader
from clozemill.trainers.finetuning.reading.labels import label_name
from clozemill.trainers.finetuning.reading.lines import plain_name
from clozemill.trainers.finetuning.reading.tagging_schemes import UnknownScheme, entities, scheme_of
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks import exhibits
from clozemill.trainers.finetuning.tasks.base import Example, Rows, Sample, most_frequent, softmax


def _column(name: str, default: str) -> str:
    """Return the name of a column of lists, or the default if the layout has a CoNLL column number."""
    return default if name.removeprefix("-").isdigit() else name


def _words(row: tables.Row, column: str, answers: bool) -> list[str]:
    """Return a row's words; without answers, `text` is split instead. Raises BadRow if they aren't a list of texts."""
    where, values = row
    name = tables.name_in(row, column, "--text-column")
    found = None if name is None else values[name]
    if found is None and not answers and isinstance(values.get("text"), str):
        found = values["text"].split(None, MAX_WORDS)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise tables.BadRow(where, "no words", f"{column!r} is not a list of words", "give one, or --text-column")
    if len(found) > MAX_WORDS:
        raise tables.BadRow(where, "too many words", f"it has more than {MAX_WORDS:,} words", "cut it into sentences")
    return found


def _lists(row: tables.Row, layout: Layout, answers: bool) -> tables.Row | tables.BadRow:
    """Return a table's row with its lists as `words` and `tags`."""
    where, values = row
    try:
        words = _words(row, layout.text, answers)
        name = tables.name_in(row, layout.label, "--label-column") if answers else None
        tags = values[name] if name is not None else None
        if answers and (not isinstance(tags, list) or len(tags) != len(words)):
            problem = f"{layout.label!r} is not a list with one tag for each of its {len(words)} words"
            raise tables.BadRow(where, "no tags", problem, "fix it, or give --label-column")
    except tables.BadRow as bad:
        return bad
    return where, {"words": words, "tags": tags}


class Tags(Reader):
    """A label for every word, predicted at its first piece. Sentences that are too long continue in another row."""

    description = "one of {} tags for every word"

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[tables.Row | tables.BadRow]:
        """Yield rows of CoNLL columns, or of a table (JSON lines, Parquet) with words and tags as lists, or `text` with spaces.

        The columns of a table are `words` and `tags` unless the layout has names instead of numbers.
        """
        if plain_name(path).endswith((".jsonl", ".parquet")):
            layout = Layout(_column(layout.text, "words"), "", _column(layout.label, "tags"))
            for row in tables.rows(path, layout, answers):
                found = row if isinstance(row, tables.BadRow) else _lists(row, layout, answers)
                if (
                    isinstance(found, tables.BadRow) or found[1]["words"] or not answers
                ):  # a sentence without words is useless for training
                    yield found
            return
        if not answers:
            layout = layout.changed("", "", layout.text, "auto")  # only the column of the words is needed
            conll.check_words_per_line(path)
        yield from conll.sentences(path, layout)

    def example(self, row: tables.Row, layout: Layout, labels: dict[str, str], answers: bool) -> Example:
        where, values = row
        if not answers:
            return Example(where, words=tuple(values["words"]))
        found = [label_name(where, "tags", tag, labels, "tag", self.labels_nameable) for tag in values["tags"]]
        return Example(where, words=tuple(values["words"]), answer=tuple(found))

    def check(self, examples: Sequence[Example]) -> None:
        """Raise UserError for tags that look like entities but follow no known scheme: they couldn't be scored.

        Also raised for WikiANN's words, which all begin with the language ("en:Rome"), unlike words of other texts.
        """
        try:
            scheme_of(tag for example in examples for tag in example.answer)
        except UnknownScheme as error:
            where = next(example.where for example in examples if error.tag in example.answer)
            raise UserError(f"{where}: {error}") from None
        words = [word for example in examples for word in example.words]
        if (prefix := re.match(r"[a-z-]{2,12}:", words[0])) and all(word.startswith(prefix[0]) for word in words):
            raise UserError(
                f"{examples[0].where}: all words begin with {prefix[0]!r}, as in WikiANN: remove that prefix from the file"
            )

    def names(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return O, then the other tags that occur, sorted."""
        found = {tag for example in examples for tag in example.answer}
        return tuple(["O"] * ("O" in found) + sorted(found - {"O"}))

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Encode sentences. `about`: (example, its first word in the row, position of each word's first token)."""
        # Spaces matter to tokenizers other than WordPiece: words have the tokens that they have in a text.
        words = [f" {word}" if number else word for example in examples for number, word in enumerate(example.words)]
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
        """Return a tag for every word, and its probability."""
        found = [{"words": list(example.words), "tags": [], "probabilities": []} for example in examples]
        for (number, _, starts), row in zip(rows.about, logits, strict=True):
            probs = softmax(row[starts])
            found[number]["tags"] += [task.labels[best] for best in probs.argmax(axis=1)]
            found[number]["probabilities"] += probs.max(axis=1).tolist()
        return found

    def columns(self, task: Task) -> pa.Schema:
        """Return the schema of `answers`."""
        texts = pa.list_(pa.string())
        return pa.schema([("words", texts), ("tags", texts), ("probabilities", pa.list_(pa.float64()))])

    def references_and_predictions(self, examples: Sequence[Example], answers: Sequence[dict], task: Task) -> tuple[Any, Any]:
        return [list(example.answer) for example in examples], [answer["tags"] for answer in answers]

    def group_key(self, example: Example) -> tuple[str, ...]:
        return example.words

    def strata(self, example: Example) -> Sequence[str]:
        return example.answer

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        tag = most_frequent([tag for example in train for tag in example.answer])
        return f"always {tag!r}, the most frequent tag", [{"tags": [tag] * len(example.words)} for example in dev]

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return the scores of each type of entity, if there are entities, and the confusion matrix of tags."""
        expected, given = [list(example.answer) for example in examples], [answer["tags"] for answer in answers]
        found = [[list(entities(tags)) for tags in sentences] for sentences in (expected, given)]
        tables_ = []
        if any(found[0]) or any(found[1]):
            tables_.append(exhibits.scores_table("entity type", exhibits.count_labels(found[0], found[1])))
        one, other = ([tag for tags in side for tag in tags] for side in (expected, given))
        return [*tables_, exhibits.confusion_table(task.labels, one, other, "tags")], []

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample:
        expected, given = (exhibits.shown_tags(example.words, tags) for tags in (example.answer, answer["tags"]))
        text, right = exhibits.shortened(" ".join(example.words)), list(example.answer) == list(answer["tags"])
        return Sample(text, expected, given, min(answer["probabilities"], default=1.0), right)
