"""`clozemill predict`: a fine-tuned model's answers, for a file of texts or for one typed on the command line.

clozemill predict FT --input texts.tsv --output predictions.jsonl
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import tqdm

from model.tasks import Task
from pipelines.options import require
from pipelines.schema import UserError
from trainers import initial, sinks, state, strategy
from trainers.config_finetune import PredictConfig
from trainers.features import TextEncoder, trimmed
from trainers.forward import Forward
from trainers.initial import Initial
from trainers.kinds import KINDS, Example

T = TypeVar("T")
CHUNK = 1024  # examples that are in memory at once
_MULTIPLE = 32  # tokens: rows are padded to the longest of a chunk, rounded up, so that few shapes are compiled


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Predictor:
    """A fine-tuned model, ready to answer."""

    def __init__(self, config: PredictConfig, found: Initial) -> None:
        if "task" not in found.index:
            raise UserError(f"{found.name} is no fine-tuned model: make one with clozemill finetune")
        self.found, self.task = found, Task.from_dict(found.index["task"])
        self.kind = KINDS[self.task.kind]()
        devices = strategy.make(config)
        with devices.scope():
            model = state.model_for(found.index, config.precision)
            state.assign(model, found.weights)
        self.encoder = TextEncoder(found.vocabulary, found.cased, self.task.max_seq_length)
        jit = strategy.compiles(config, devices)
        self.forward = Forward(devices, lambda batch: model(batch)["logits"], config.batch_size, jit)

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """An answer for each example."""
        rows = self.kind.encode(examples, self.task, self.encoder, answers=False)
        rows.features = trimmed(rows.features, _MULTIPLE)
        return self.kind.answers(examples, rows, self.forward(rows.features), self.task)


def typed(kind: str, text: str, pair: str) -> Example:
    """What was typed on the command line, as an example of its kind."""
    if not text.strip() or (kind == "spans" and not pair.strip()):
        missing = "--text is empty: give a text" if not text.strip() else "--text-pair is missing: give the context"
        raise UserError(f"{missing} to answer for")
    return Example("--text", text, pair or None, words=tuple(text.split()))


def main(config: PredictConfig) -> int:
    """Writes the answers; with --text prints one."""
    require(config, "run")
    if bool(config.text) == bool(config.input):
        raise UserError("give either --input with a file, or --text")
    if config.input:
        require(config, "output")
        sinks.check(config.output)
    found = initial.read(config.run, config.checkpoint)
    predictor = Predictor(config, found)
    if config.text:
        answer = predictor([typed(predictor.task.kind, config.text, config.text_pair)])[0]
        print(json.dumps(answer, ensure_ascii=False, indent=1), flush=True)
        return 0
    layout = config.layout(found.index["preset"])
    if predictor.task.kind == "tags" and not config.label_column:
        layout = layout.changed("", "", layout.text, "auto")
    count = empty = 0
    bar = tqdm.tqdm(unit=" examples", disable=not config.progress, file=sys.stderr, mininterval=0.5)
    with sinks.opened(config.output) as sink, bar:
        for examples in chunks(predictor.kind.read(config.input, layout, {}, answers=False), CHUNK):
            sink.write(predictor(examples))
            count += len(examples)
            empty += sum(not (example.text.strip() or example.words) for example in examples)
            bar.update(len(examples))
        if not count:
            raise UserError(f"{config.input} holds no examples: give a file with a text per line")
    note = f" ({empty:,} texts were empty)" if empty else ""
    print(f"wrote {config.output}: {count:,} answers{note}", flush=True)
    return 0
