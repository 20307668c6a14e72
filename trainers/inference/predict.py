"""`clozemill predict`: write a fine-tuned model's answers for a file of texts, or print the answer for one text.

clozemill predict FT --input texts.tsv --output predictions.jsonl
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import tqdm

from clozemill.model.task_model import KINDS as TASK_KINDS
from clozemill.model.task_model import Task
from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import distribution
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from clozemill.trainers.inference import writers
from clozemill.trainers.inference.config import PredictConfig
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.batched_inference import BatchedInference
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


class Predictor:
    """Predicts with a fine-tuned model. Raises UserError for a checkpoint that isn't fine-tuned."""

    def __init__(self, config: PredictConfig, found: PretrainedModel) -> None:
        if "task" not in found.index:
            raise UserError(f"{found.name} is not a fine-tuned model: create one with clozemill finetune")
        devices = distribution.make_strategy(config)
        model = pretrained.load_model(found, devices, config.precision)
        self.task = Task.from_dict(found.index["task"])
        if config.threshold is not None:
            if self.task.kind != "multilabel":
                raise UserError(f"--threshold is for multilabel, but {found.name} is for {self.task.kind}: leave it out")
            self.task = replace(self.task, threshold=config.threshold)
        self.kind = TASK_TYPES[self.task.kind]()
        self.encoder = found.text_encoder(self.task.max_seq_length)
        jit = distribution.uses_xla(config, devices)
        per_token = TASK_KINDS[self.task.kind].per_token
        self.forward = BatchedInference(devices, lambda batch: model(batch)["logits"], config.batch_size, jit, per_token)

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return an answer for each example."""
        rows = self.kind.encode(examples, self.task, self.encoder, answers=False)
        return self.kind.answers(examples, rows, self.forward(rows.features), self.task)


def typed(kind: str, text: str, pair: str) -> Example:
    """Return the text of the command line as an example of the task type. Raises UserError if it is empty."""
    text, pair = (given.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for given in (text, pair))
    if not text.strip() or (kind == "spans" and not pair.strip()):
        missing = "--text is empty: give a text" if not text.strip() else "--text-pair is missing: give the context"
        raise UserError(f"{missing} to predict for")
    return Example("--text", text, pair or None, words=tuple(text.split()))


def _layout(config: PredictConfig, found: PretrainedModel, kind: str) -> Layout:
    """Return the layout of the training file with the given options applied."""
    index = found.index
    layout = Layout.from_dict(index["layout"]) if "layout" in index else TASKS[index.get("preset", kind)].layout
    return layout.changed(config.text_column, config.pair_column, "", config.header)


def main(config: PredictConfig) -> int:
    """Write the answers; with --text, print one."""
    require(config, "run")
    if bool(config.text) == bool(config.input):
        raise UserError("--input and --text: give exactly one of them")
    if config.input:
        require(config, "output")
        writers.check(config.output)
    found = pretrained.read(config.run, config.checkpoint)
    predictor = Predictor(config, found)
    if config.text:
        answer = predictor([typed(predictor.task.kind, config.text, config.text_pair)])[0]
        print(json.dumps(answer, ensure_ascii=False, indent=1), flush=True)
        return 0
    layout = _layout(config, found, predictor.task.kind)
    rate = config.allowed(found.index.get("preset", predictor.task.kind))
    examples = predictor.kind.read(config.input, layout, {}, answers=False, max_reject_rate=rate)
    count, empty = _write(config, predictor, examples)
    note = f" (empty texts: {empty:,})" if empty else ""
    print(f"wrote {config.output}: {count:,} answers{note}", flush=True)
    return 0


def _write(config: PredictConfig, predictor: Predictor, examples: Iterator[Example]) -> tuple[int, int]:
    """Write the answers, one chunk of examples at a time. Returns (number of answers, number of empty texts)."""
    count = empty = 0
    bar = tqdm.tqdm(unit=" examples", disable=not config.progress, file=sys.stderr, mininterval=0.5)
    with writers.opened(config.output, predictor.kind.columns(predictor.task)) as sink, bar:
        for chunk in chunks(examples, CHUNK):
            sink.write(predictor(chunk))
            count += len(chunk)
            empty += sum(not (example.text.strip() or example.words) for example in chunk)
            bar.update(len(chunk))
        if not count:
            raise UserError(f"{config.input} has no examples: give a file with one text per line")
    return count, empty
