"""`clozemill predict`: write a model's answers for a file of texts, or print the answer for one text.

clozemill predict FT --input texts.tsv --output predictions.jsonl
clozemill predict RUN --text "The [MASK] stands by the river."
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import tqdm

from clozemill.model.task_heads import TASK_HEADS
from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from clozemill.trainers.inference import scoring, writers
from clozemill.trainers.inference.config import TYPED, EvaluateModelConfig, PredictConfig
from clozemill.trainers.inference.fill_mask import MaskFiller
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import PretrainedModel

T = TypeVar("T", Example, tuple[int, str])  # the tuple: a text and its number
CHUNK = 1024  # examples in memory at once
MAX_CHARS = 1 << 24  # maximum characters per chunk


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, shorter if the texts are long or at the end."""
    chunk, characters = [], 0
    for item in items:
        chunk.append(item)
        characters += item.characters if isinstance(item, Example) else len(item[1])
        if len(chunk) == size or characters >= MAX_CHARS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class Answerer(Protocol):
    """A model that answers for texts."""

    def layout(self) -> Layout: ...

    def read(self, path: str, layout: Layout, max_reject_rate: float) -> Iterator[Example]: ...

    def typed(self, text: str, pair: str, names: tuple[str, str] = ...) -> Example: ...

    def columns(self) -> pa.Schema: ...

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, Any]]: ...


class Predictor:
    """Predicts with a fine-tuned model. Raises UserError for a checkpoint that isn't fine-tuned."""

    def __init__(self, config: PredictConfig | EvaluateModelConfig, found: PretrainedModel) -> None:
        if "task" not in found.index:
            raise UserError(f"{found.name} is not a fine-tuned model: create one with clozemill finetune")
        engine = make_engine(config)
        model = pretrained.load_model(found, engine, config.precision)
        self.task, self._index = Task.from_dict(found.index["task"]), found.index
        if config.threshold is not None:
            if self.task.kind != "multilabel":
                raise UserError(f"--threshold is for multilabel, but {found.name} is for {self.task.kind}: leave it out")
            self.task = replace(self.task, threshold=config.threshold)
        self.preset = found.index.get("preset", self.task.kind)
        self.task_type = TASK_TYPES[self.task.kind]()
        self.encoder = found.text_encoder(self.task.max_seq_length)
        self.truncated = 0  # number of examples whose texts were longer than the model's task
        per_token = TASK_HEADS[self.task.kind].per_token
        self.forward = BatchedInference(engine, model, lambda batch: model(batch)["logits"], config.batch_size, per_token)

    def layout(self) -> Layout:
        """Return the layout of the training file."""
        return Layout.from_dict(self._index["layout"]) if "layout" in self._index else TASKS[self.preset].layout

    def read(self, path: str, layout: Layout, max_reject_rate: float) -> Iterator[Example]:
        """Return a file's examples, without answers."""
        return self.task_type.read(path, layout, {}, answers=False, max_reject_rate=max_reject_rate)

    def typed(self, text: str, pair: str, names: tuple[str, str] = TYPED) -> Example:
        """Return a text, and its pair, as an example. Raises UserError, with their names, if one is missing."""
        if not text.strip() or (self.task_type.paired and not pair.strip()):
            missing = f"{names[1]} is missing: give the context" if text.strip() else f"{names[0]} is empty: give a text"
            raise UserError(f"{missing} to predict for")
        return Example(names[0], text, pair or None, words=tuple(text.split()))

    def columns(self) -> pa.Schema:
        """Return the schema of the answers."""
        return self.task_type.columns(self.task)

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return an answer for each example."""
        rows = self.task_type.encode(examples, self.task, self.encoder, answers=False)
        self.truncated += rows.truncated
        logits = self.forward(rows.features) if len(rows) else np.empty((0, 0, 0), np.float32)  # only sentences without words
        return self.task_type.answers(examples, rows, logits, self.task)

    def labels(self, path: str, layout: Layout, asked: bool) -> scoring.Labels:
        """Return the answers of a file, to score those of the model. asked: whether the user named their column."""
        return scoring.Labels(self.task_type, path, layout, self.spellings(), asked)

    def spellings(self) -> dict[str, str]:
        """Return the label names by their spelling in files."""
        return scoring.spellings(self.task, self.preset)

    def scores(self) -> scoring.Scores:
        """Return an empty collection of answers to score."""
        return scoring.Scores(self.task_type, self.task, self.preset)


def answerer(config: PredictConfig, found: PretrainedModel) -> Predictor | MaskFiller:
    """Return the model as a predictor: a fine-tuned one for its task, a pretrained one to fill in masks. Raises UserError."""
    if "task" not in found.index:
        return MaskFiller(config, found)
    if found.index["task"].get("kind") == "embed":
        raise UserError(
            f"{found.name} makes vectors of texts and predicts nothing: write them with clozemill embed, or compare it with "
            "graded pairs with clozemill evaluate"
        )
    return Predictor(config, found)


def as_unicode(text: str) -> str:
    """Return a text of the command line with a replacement character for bytes that aren't UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def main(config: PredictConfig) -> int:
    """Write the answers; with --text and without --output, print one."""
    if config.output:
        writers.check(config.output, config.overwrite)
    model = answerer(config, pretrained.read(config.run, config.checkpoint))
    named = bool(config.label_column or config.label_columns)
    if named and not (config.input and isinstance(model, Predictor)):
        raise UserError("--label-column and --label-columns are for the files of fine-tuned models: leave them out")
    layout = replace(config.applied(model.layout()), id=config.id_column)
    if config.id_column and (config.text or "text" not in model.columns().names):
        raise UserError("--id-column is for tables of texts: leave it out")
    if config.text:
        examples = iter([model.typed(as_unicode(config.text), as_unicode(config.text_pair))])
        if not config.output:
            print(_shown(model(list(examples))[0]), flush=True)
            return 0
    else:
        rate = config.allowed(model.preset if isinstance(model, Predictor) else "classify")
        examples = model.read(config.input, layout, rate)
    labels = model.labels(config.input, layout, named) if config.input and isinstance(model, Predictor) else None
    written = _Written(config, model, layout, labels)
    written.write(examples)
    print("\n".join([f"wrote {config.output}: {written.count:,} answers{written.note()}", *written.report()]), flush=True)
    return 0


def _shown(answer: dict[str, Any]) -> str:
    """Return an answer as JSON for people, each candidate for a mask on a line."""
    text = json.dumps(answer, ensure_ascii=False, indent=1)
    return re.sub(r'\{\s+("token": ".*"),\s+("probability": .*)\s+\}', r"{\1, \2}", text)


class _Written:
    """Writes the answers, one chunk of examples at a time, and scores those whose label is known."""

    def __init__(self, config: PredictConfig, model: Answerer, layout: Layout, labels: scoring.Labels | None) -> None:
        self.config, self.model, self.layout, self.labels = config, model, layout, labels
        self.scores = model.scores() if isinstance(model, Predictor) else None
        self.count = self.empty = self.unmasked = 0

    def write(self, examples: Iterator[Example]) -> None:
        """Write the answers. Raises UserError if there are no examples."""
        config, named = self.config, bool(self.layout.id)
        columns = pa.schema([("row", pa.int64()), *([("id", pa.string())] if named else []), *self.model.columns()])
        bar = tqdm.tqdm(unit=" examples", disable=None if config.progress else True, file=sys.stderr, mininterval=0.5)
        with writers.opened(config.output, columns, config.overwrite) as sink, bar:
            for chunk in chunks(examples, CHUNK):
                answers = self.model(chunk)
                ids = [{"id": example.id} if named else {} for example in chunk]
                sink.write([{"row": self.count + n, **ids[n], **answer} for n, answer in enumerate(answers)])
                self.count += len(chunk)
                self.empty += sum(not (example.text.strip() or example.words) for example in chunk)
                self.unmasked += sum("masks" in answer and not answer["masks"] for answer in answers)
                if self.scores and self.labels:
                    self.scores.add(*self.labels.matching(chunk, answers))
                bar.update(len(chunk))
            if not self.count:
                raise UserError(f"{config.input} has no examples: give a file with one text per line")

    def note(self) -> str:
        """Return a remark about unusual texts."""
        told = {"empty texts": self.empty, "texts without [MASK]": self.unmasked - self.empty}
        if isinstance(self.model, Predictor):
            told[f"texts truncated to {self.model.task.max_seq_length} tokens"] = self.model.truncated
        found = [f"{name}: {number:,}" for name, number in told.items() if number > 0]
        return f" ({', '.join(found)})" if found else ""

    def report(self) -> list[str]:
        """Return the scores, if the file has labels, as lines of text."""
        return self.scores.report() if self.scores and self.scores.examples else []
