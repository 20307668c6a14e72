"""`clozemill embed`: write encoder layers as features, one row per token with its word, or one row per text.

clozemill embed RUN --input texts.tsv --layers=-1,-2,-3,-4 --pool cls --output features.parquet
clozemill embed RUN --text "A bridge by the river." --pool mean
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tqdm
from keras import ops

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines.batched_inference import BatchedInference
from clozemill.trainers.engines.engine import make_engine
from clozemill.trainers.finetuning.config import layers_of
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.classification import Classify
from clozemill.trainers.inference import writers
from clozemill.trainers.inference.config import EmbedConfig
from clozemill.trainers.inference.predict import as_unicode, chunks
from clozemill.trainers.training import pretrained
from clozemill.trainers.training.pretrained import PretrainedModel, load_model

CHUNK, FLOATS = 1024, 1 << 26  # texts in memory at once, and values of their tokens (256 MB)


class Embedder:
    """Turns texts into features with an encoder."""

    def __init__(self, config: EmbedConfig, found: PretrainedModel) -> None:
        self.config, self.vocabulary = config, found.vocabulary
        self.layers = layers_of(config.layers, found.encoder, found.name)
        if config.max_seq_length > found.encoder.max_position_embeddings:
            longest = found.encoder.max_position_embeddings
            raise UserError(
                f"--max-seq-length {config.max_seq_length} is too long: {found.name} accepts at most {longest} tokens"
            )
        self.texts = found.text_encoder(config.max_seq_length)
        engine = make_engine(config)
        model = load_model(found, engine, config.precision)
        self.encoder = model.encoder
        self.cut = 0  # number of truncated texts
        self.forward = BatchedInference(engine, model, self._features, config.batch_size, per_token=config.pool == "none")

    def _features(self, batch: dict) -> Any:
        """Return float32 [B, S, layers x H], or [B, layers x H] if pooled; the mean is over all tokens except padding."""
        outputs = self.encoder(batch["input_ids"], batch["input_mask"], batch["segment_ids"])["all_layers"]
        found = ops.cast(ops.concatenate([outputs[layer] for layer in self.layers], axis=-1), "float32")
        if self.config.pool == "cls":
            return found[:, 0]
        if self.config.pool == "mean":
            mask = ops.cast(batch["input_mask"], "float32")[:, :, None]
            return ops.sum(found * mask, axis=1) / ops.sum(mask, axis=1)
        return found

    @property
    def at_once(self) -> int:
        """Return the number of texts to process at once; more texts mean less padding."""
        tokens = self.config.max_seq_length if self.config.pool == "none" else 1
        return max(1, min(CHUNK, FLOATS // (tokens * self.width)))

    @property
    def width(self) -> int:
        """Return the number of values per token, or per text."""
        return len(self.layers) * self.encoder.config.hidden_size

    @property
    def description(self) -> str:
        """Return the length of a vector, and the layers that are joined in it."""
        joined = f"layers {', '.join(map(str, self.layers))} joined" if len(self.layers) > 1 else f"layer {self.layers[0]}"
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
            self.config.max_seq_length - 2,
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
    layout = Layout().changed(config.text_column, "", "", config.header)
    examples = Classify().read(config.input, layout, {}, answers=False, max_reject_rate=config.max_reject_rate or 0.0)
    for number, example in enumerate(examples):
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
    told = {"were empty": empty, f"were truncated to {config.max_seq_length} tokens": embedder.cut}
    notes = "".join(f"; {number:,} {what}" for what, number in told.items() if number)
    print(f"wrote {config.output}: {written:,} rows of {count:,} texts{notes}; {embedder.description}", flush=True)
    return 0
