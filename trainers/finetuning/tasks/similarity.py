"""The task type of sentence vectors: they are evaluated by pairs of texts, each with a number for how similar they are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clozemill.model.task_model import Task
from clozemill.pipelines.pages.content import Plot, Series, Table
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.reading import tables
from clozemill.trainers.finetuning.reading.lines import lines, plain_name
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.base import Example, Rows, Sample
from clozemill.trainers.finetuning.tasks.classification import Regress

_PLAIN = Layout("0", "1", "2", header=False)  # two texts and a number
_TABLES = (".tsv", ".csv", ".txt")
_WORD = re.compile(r"\w+")


class Similarity(Regress):
    """A vector for each text of a pair; the answer is their cosine."""

    description = "a vector for each text; the similarity of two texts is the cosine of theirs"
    paired = True
    compared_with = "by comparing words"

    def rows(self, path: str, layout: Layout, answers: bool) -> Iterator[tables.Row | tables.BadRow]:
        """Yield a file's rows, in GLUE's columns of STS-B. A table without that header has two texts and a number per line."""
        if layout != TASKS["embed"].layout or not _is_plain(path, layout):
            yield from tables.rows(path, layout, answers)
            return
        for row in tables.rows(path, replace(_PLAIN, named_by=layout.named_by), answers):
            if isinstance(row, tables.BadRow):
                yield row
            else:
                where, values = row
                yield where, {name: values[number] for name, number in _names(layout).items() if number in values}

    def encode(self, examples: Sequence[Example], task: Task, encoder: TextEncoder, answers: bool) -> Rows:
        """Encode each example as two rows, without targets: only texts are trained on, see trainers/contrast."""
        texts = [encoder.beginning(text) for example in examples for text in (example.text, example.pair or "")]
        features, truncated = encoder.truncated_pairs(texts)
        return Rows(features, [(number,) for number in range(len(examples)) for _ in range(2)], truncated)

    def answers(self, examples: Sequence[Example], rows: Rows, logits: np.ndarray, task: Task) -> list[dict[str, Any]]:
        """Return the cosine of each pair. logits: vectors of length 1, float32 [2N, H]."""
        cosines = (logits[0::2].astype(np.float64) * logits[1::2]).sum(axis=1)
        return super().answers(examples, rows, cosines[:, None], task)

    def baseline(self, train: Sequence[Example], dev: Sequence[Example]) -> tuple[str, list[dict]]:
        return "the share of words in common", [{"score": shared_words(each.text, each.pair or "")} for each in dev]

    def exhibits(self, task: Task, examples: Sequence[Example], answers: Sequence[dict]) -> tuple[list[Table], list[Plot]]:
        """Return a plot of cosines against expected numbers."""
        _, [plot] = super().exhibits(task, examples, answers)
        dots: Series = plot.series[0]
        alt = f"Cosines of {len(dots.x):,} dev pairs against how similar they are."
        return [], [Plot("similarity", "Cosines of the dev pairs", "expected similarity", "cosine", alt, [dots])]

    def sample(self, example: Example, answer: dict[str, Any]) -> Sample | None:
        """Return None: a cosine isn't on the scale of the expected number."""
        return None


def _names(layout: Layout) -> dict[str, str]:
    """Return the numbers of the columns of a plain table by their names."""
    return {layout.text: _PLAIN.text, layout.pair: _PLAIN.pair, layout.label: _PLAIN.label}


def _is_plain(path: str, layout: Layout) -> bool:
    """Return whether a file is a table whose first line doesn't name the columns of STS-B."""
    if not plain_name(path).endswith(_TABLES):
        return False
    names = {name.strip().strip('"').casefold() for name in re.split("[\t,;]", next(lines(path), ""))}
    return not names & {layout.text, layout.pair, layout.label}


def shared_words(one: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' words, without case: 1 for the same words, 0 for none in common."""
    words = [set(_WORD.findall(text.casefold())) for text in (one, other)]
    return len(words[0] & words[1]) / max(1, len(words[0] | words[1]))
