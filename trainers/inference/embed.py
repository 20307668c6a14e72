"""`clozemill embed`: write encoder layers as features, one row per token with its word, or one row per text.

clozemill embed RUN --input texts.tsv --layers=-1,-2,-3,-4 --pool cls --output features.parquet
clozemill embed RUN --text "A bridge by the river." --pool mean
clozemill embed EMBEDDER --text "A bridge by the river."
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import tqdm
from keras import ops

from clozemill.model.sentence_vectors import pooled
from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.finetuning.config import LAST_FOUR, layers_of
from clozemill.trainers.finetuning.tasks.classification import read_texts
from clozemill.trainers.inference import writers
from clozemill.trainers.inference.config import EmbedConfig
from clozemill.trainers.inference.predict import as_unicode, chunks
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import PretrainedModel, load_model

SENTENCE = "sentence"  # --pool
LENGTH = 128  # tokens, by default
CHUNK, FLOATS = 1024, 1 << 26  # texts in memory at once, and values of their tokens (256 MB)


def _completed(config: EmbedConfig, found: PretrainedModel) -> EmbedConfig:
    """Return the options, those that were left open chosen by the model. Raises UserError if they don't suit it."""
    task = Task.from_dict(found.index["task"]) if "task" in found.index else None
    embeds = task is not None and task.kind == "embed"
    pool = config.pool or (SENTENCE if embeds and not config.layers else "none")
    if pool != SENTENCE:
        return replace(config, pool=pool, layers=config.layers or LAST_FOUR)
    if task is None or not embeds:
        raise UserError(f"--pool sentence: {found.name} is not a model of contrast: train it with clozemill contrast first")
    if config.layers:
        raise UserError("--layers can't be combined with --pool sentence, which is of the last layer: leave out one of them")
    return replace(config, pool=pool, layers="-1", max_seq_length=config.max_seq_length or task.max_seq_length)


class Embedder:
    """Turns texts into features with an encoder."""

    def __init__(self, config: EmbedConfig, found: PretrainedModel) -> None:
        config = _completed(config, found)
        self.config, self.vocabulary = config, found.vocabulary
        self.layers = layers_of(config.layers, found.encoder, found.name)
        self.length = config.max_seq_length or LENGTH
        found.check_length(self.length)
        found.note_untrained_positions(self.length)
        self.texts = found.text_encoder(self.length)
        engine = make_engine(config)
        model = load_model(found, engine, config.precision)
        self.model, self.encoder = model, model.encoder
        self.cut = 0  # number of truncated texts
        self.forward = BatchedInference(engine, model, self._features, config.batch_size, per_token=config.pool == "none")

    def _features(self, batch: dict) -> Any:
        """Return float32 [B, S, layers x H], or [B, layers x H] if pooled; the mean is over all tokens except padding."""
        if self.config.pool == SENTENCE:
            return self.model(batch)["logits"]
        outputs = self.encoder(batch["input_ids"], batch["input_mask"], batch["segment_ids"])["all_layers"]
        found = ops.cast(ops.concatenate([outputs[layer] for layer in self.layers], axis=-1), "float32")
        return found if self.config.pool == "none" else pooled(found, batch["input_mask"], self.config.pool)

    @property
    def at_once(self) -> int:
        """Return the number of texts to process at once; more texts mean less padding."""
        tokens = self.length if self.config.pool == "none" else 1
        return max(1, min(CHUNK, FLOATS // (tokens * self.width)))

    @property
    def width(self) -> int:
        """Return the number of values per token, or per text."""
        return len(self.layers) * self.encoder.config.hidden_size

    @property
    def description(self) -> str:
        """Return the length of a vector, and the layers that are joined in it."""
        if self.config.pool == SENTENCE:
            return f"sentence vectors of {self.width:,} values"
        embeddings = -self.encoder.config.num_hidden_layers - 1
        names = ["0 (the embeddings)" if layer == embeddings else str(layer) for layer in self.layers]
        joined = f"layers {', '.join(names)} joined" if len(names) > 1 else f"layer {names[0]}"
        return f"vectors of {self.width:,} values ({joined})"

    def columns(self) -> pa.Schema:
        """Return the schema of the records."""
        texts = [("text", pa.string())]
        if self.config.pool == "none":
            texts = [("token", pa.string()), ("word_number", pa.int64()), ("word", pa.string())]
            texts += [("start", pa.int64()), ("end", pa.int64())]
        return pa.schema([("row", pa.int64()), *texts, ("features", pa.list_(pa.float32(), self.width))])

    def records(self, rows: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
        """Yield features of numbered texts: one record per text, or one per token without special tokens."""
        room, tokenized = (
            self.length - 2,
            self.texts.with_offsets([self.texts.beginning(text) for _, text in rows]),
        )
        features = self.texts.pack([(ids[:room], None) for ids, _, _ in tokenized])
        self.cut += sum(len(ids) > room for ids, _, _ in tokenized)
        for (number, text), (ids, starts, ends), values in zip(rows, tokenized, self.forward(features), strict=True):
            if self.config.pool != "none":
                yield {"row": number, "text": text, "features": values}
                continue
            words = np.cumsum(np.diff(starts, prepend=-1) != 0) - 1
            for place in range(min(len(ids), room)):
                begin, end = int(starts[place]), int(ends[place])
                yield {
                    "row": number,
                    "token": self.vocabulary.tokens[ids[place]],
                    "word_number": int(words[place]),
                    "word": text[begin:end],
                    "start": begin,
                    "end": end,
                    "features": values[1 + place],
                }


def _texts(config: EmbedConfig) -> Iterator[tuple[int, str]]:
    if config.text:
        yield 0, as_unicode(config.text)
        return
    for number, example in enumerate(read_texts(config.input, config)):
        yield number, example.text


def main(config: EmbedConfig) -> int:
    """Write the features, one chunk of texts at a time."""
    if config.output:
        writers.check(config.output, config.overwrite, (".parquet",))
    embedder = Embedder(config, pretrained.read(config.run, config.checkpoint))
    if config.text and not config.output:
        for record in embedder.records([(0, as_unicode(config.text))]):
            print(json.dumps(record | {"features": record["features"].tolist()}, ensure_ascii=False), flush=True)
        return 0
    count = written = empty = 0
    bar = tqdm.tqdm(unit=" texts", disable=None if config.progress else True, file=sys.stderr, mininterval=0.5)
    with writers.opened(config.output, embedder.columns(), config.overwrite) as sink, bar:
        for rows in chunks(_texts(config), embedder.at_once):
            records = list(embedder.records(rows))
            sink.write(records)
            count, written = count + len(rows), written + len(records)
            empty += sum(not text.strip() for _, text in rows)
            bar.update(len(rows))
        if not count:
            raise UserError(f"{config.input} has no texts: give a file with one text per line")
    told = {"were empty": empty, f"were truncated to {embedder.length} tokens": embedder.cut}
    notes = "".join(f"; {number:,} {what}" for what, number in told.items() if number)
    print(f"wrote {config.output}: {written:,} rows of {count:,} texts{notes}; {embedder.description}", flush=True)
    return 0
