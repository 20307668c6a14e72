"""The objects that the Python API loads: a dataset as arrays or as a tf.data.Dataset, and an encoder that takes text."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clozemill.model.inputs import TOKENS
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest, reading, shard_records
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, PackedColumns
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.quality.statistics import STATISTICS
from clozemill.pipelines.shards import tfrecord

if TYPE_CHECKING:  # TensorFlow takes seconds to import, and arrays don't need it
    import tensorflow as tf

BATCH = 32  # texts per call of the encoder


class Dataset:
    """A dataset of `clozemill prepare`.

    Attributes:
        folder: where it is, local or remote.
        manifest: the contents of dataset.json.
        vocabulary: its Vocabulary; `vocabulary.tokens` lists the tokens by id.

    Raises UserError if the folder doesn't contain a complete dataset.

    Example:
        dataset = clozemill.load_dataset("DATASET")
        for batch in dataset.numpy_batches("train", batch_size=32, seed=1):
            batch["input_ids"]  # int64 [32, max_seq_length]
    """

    def __init__(self, folder: str) -> None:
        self.folder = str(folder)
        self.manifest, self.vocabulary = reading.read_contract(self.folder)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(split):,} {split}" for split in ("train", "eval"))
        packed = ", packed" if manifest.is_packed(self.manifest) else ""
        return f"Dataset({self.folder!r}: {counts} examples of {self.manifest['max_seq_length']} tokens{packed})"

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """The contents of statistics.json."""
        return json.loads(filesystem.read_bytes(filesystem.join(self.folder, STATISTICS)))

    def shards(self, split: str, copy: int = 0) -> list[dict[str, Any]]:
        """Return the manifest's entries for the shards of a split, in order. Raises UserError for an unknown split or copy."""
        found = manifest.shards_of(self.manifest, split, copy)
        if not found and (split not in ("train", "eval") or copy):
            raise UserError(
                f"{self.folder} has no split {split!r} with a copy {copy}: choose train or eval, and an existing copy"
            )
        return found

    def count(self, split: str = "train", copy: int = 0) -> int:
        """Return the number of examples of a split."""
        return sum(shard["examples"] for shard in self.shards(split, copy))

    def records(self, split: str = "train", copy: int = 0) -> int:
        """Return the number of records of a split: if its examples are packed, rows; otherwise examples."""
        return sum(manifest.records_of(shard) for shard in self.shards(split, copy))

    def _features(self, shard: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the features of the records of a shard, in batches. Raise UserError for a corrupt record."""
        path, pad_id, first = filesystem.join(self.folder, shard["name"]), self.vocabulary.pad_id, 0
        try:
            for found in shard_records.read_shard_records(filesystem.read_bytes(path), self.manifest):
                if isinstance(found, PackedColumns):
                    shard_records.check_rows(found, self.manifest, pad_id, first)
                    yield found.padded(self.manifest["packing"])
                else:
                    yield vars(found)
                first += len(found)
            if first != (records := manifest.records_of(shard)):
                raise tfrecord.CorruptRecord(f"it has {first:,} records instead of {records:,}")
        except tfrecord.CorruptRecord as error:
            raise UserError(f"{path}: {error}: restore the shard, or run clozemill prepare again") from None

    def numpy_batches(
        self, split: str = "train", batch_size: int = 32, copy: int = 0, seed: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Iterate once over a split in batches of arrays. Needs no TensorFlow, so PyTorch users can train on the shards.

        Args:
            copy: which copy of the train split; each has different masks.
            seed: seed to shuffle the shards, and the examples of each shard; None: keep the order of the files.

        Yields dicts of the seven features: `input_ids`, `input_mask`, `segment_ids` int64 [B, S], `masked_lm_positions`,
        `masked_lm_ids` int64 [B, P], `masked_lm_weights` float32 [B, P], `next_sentence_labels` int64 [B]. The last batch
        may be smaller. One shard is in memory at a time. Raises UserError for a corrupt shard, naming the record.

        In a packed dataset, B counts rows, P is `manifest["packing"]["max_predictions"]`, and N is its `max_examples`. There
        are three more features: `example_ids` int64 [B, S] is 1, 2, … for the examples of a row and 0 at padding;
        `cls_positions` int64 [B, N] is where they begin; `example_weights` float32 [B, N] is 0 beyond the last example. Then
        `next_sentence_labels` is [B, N].
        """
        names = PACKED_FEATURES if manifest.is_packed(self.manifest) else FEATURES
        rng = None if seed is None else np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, copy])))
        shards, rest = self.shards(split, copy), {name: np.empty(0) for name in names}
        for index in range(len(shards)) if rng is None else rng.permutation(len(shards)):
            parts = list(self._features(shards[index]))
            if not parts:
                continue
            one = {name: np.concatenate([part[name] for part in parts]) for name in names}
            if rng is not None:
                order = rng.permutation(len(one["input_ids"]))
                one = {name: values[order] for name, values in one.items()}
            kept = {name: np.concatenate([rest[name], one[name]]) if len(rest[name]) else one[name] for name in names}
            whole = len(kept["input_ids"]) // batch_size * batch_size
            for begin in range(0, whole, batch_size):
                yield {name: values[begin : begin + batch_size] for name, values in kept.items()}
            rest = {name: values[whole:] for name, values in kept.items()}
        if len(rest["input_ids"]):
            yield rest

    def batches(self, split: str = "train", batch_size: int = 32, seed: int = 0) -> "tf.data.Dataset":
        """Return the tf.data.Dataset that `clozemill pretrain` (split train) or `evaluate` (split eval) reads.

        The train split is shuffled by `seed` and endless: it iterates over all copies, then starts over. The eval split is
        followed by endless padding whose `example_weights` (float32 [B], or [B, N] if packed) are 0. Features are those of
        `numpy_batches`.
        """
        from clozemill.trainers.data import graph_reader, input_pipeline, prepared_dataset

        self.shards(split)
        contract = prepared_dataset.read(self.folder)
        if split == "eval":
            return graph_reader.dataset_of(input_pipeline.EvalBatches(contract, batch_size))
        return graph_reader.dataset_of(input_pipeline.TrainReader(contract, seed, batch_size).batches(batch_size))


class Encoder:
    """An encoder with its tokenizer: text in, arrays out.

    Attributes:
        model: the Keras model; call it with `input_ids`, `input_mask`, `segment_ids`.
        vocabulary: its Vocabulary.
        max_seq_length: the longest input in tokens, including [CLS] and [SEP]. Longer texts are truncated.

    Example:
        encoder = clozemill.load_encoder("RUN")
        encoder(["The mill stands by the river."])["pooled_output"]  # float32 [1, hidden_size]
    """

    def __init__(self, run: str, checkpoint: str = "best", max_seq_length: int = 0, precision: str = "float32") -> None:
        from clozemill.trainers.engines import tensorflow_engine
        from clozemill.trainers.engines.batched_inference import BatchedInference
        from clozemill.trainers.training import pretrained

        found = pretrained.read(str(run), checkpoint)
        longest = found.encoder.max_position_embeddings
        if not 0 <= max_seq_length <= longest:
            raise UserError(f"max_seq_length is {max_seq_length}, and {found.name} takes {longest} tokens: give no more")
        self.max_seq_length = max_seq_length or min(longest, found.trained_length or longest)
        engine = tensorflow_engine.default()
        model = pretrained.load_model(found, engine, precision)
        self.model = model.encoder
        self.vocabulary, self._texts = found.vocabulary, found.text_encoder(self.max_seq_length)
        self._forward = BatchedInference(engine, model, self._outputs, BATCH, per_token=("sequence_output",))

    def _outputs(self, batch: dict) -> dict[str, "tf.Tensor"]:
        from keras import ops

        outputs = self.model(*(batch[name] for name in TOKENS))
        return {name: ops.cast(outputs[name], "float32") for name in ("sequence_output", "pooled_output")}

    def tokenize(self, texts: Sequence[str], pairs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Return `input_ids`, `input_mask`, `segment_ids`, int32 [B, max_seq_length], of texts or of pairs of texts."""
        if isinstance(texts, str) or (len(pairs) and len(pairs) != len(texts)):
            raise UserError("texts must be a list of texts, and pairs, if given, a list of the same length")
        return self._texts.pairs(list(texts), list(pairs))

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Encode texts, or pairs of texts.

        Returns `sequence_output` float32 [B, S, H], where S is the length of the longest text, arbitrary at padding;
        `pooled_output` float32 [B, H]; and the three inputs, int32 [B, S].
        """
        inputs = self.tokenize(texts, pairs)
        length = max(1, int(inputs["input_mask"].sum(axis=1).max(initial=1)))
        inputs = {name: inputs[name][:, :length] for name in TOKENS}
        if len(texts):
            return self._forward(inputs) | inputs
        width = self.model.config.hidden_size
        empty = {"sequence_output": np.empty((0, length, width), np.float32), "pooled_output": np.empty((0, width), np.float32)}
        return empty | inputs
