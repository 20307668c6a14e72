"""Loads pretrained models for fine-tuning, prediction and embedding: checkpoints and SavedModels of clozemill export."""

import hashlib
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.weight_names import check_weights
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common import storage
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.diagnosis.recorded_run import SWEEP, best_of_sweep
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.train_state import encoder_config
from clozemill.trainers.training import checkpoint_index, checkpoints

_TRANSFORM = {"masked_lm/transform/kernel", "masked_lm/layer_norm/gamma"}
SAVED_MODEL = "saved_model.pb"


def short_name(path: str) -> str:
    """Return the name of a run or checkpoint without the folders above it, for cards that are published."""
    return re.sub(rf"/{checkpoints.FOLDER}/step-\d+$", "", path.rstrip("/")).rsplit("/", 1)[-1]


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of named arrays."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class PretrainedModel:
    """A loaded model: its checkpoint.json, its weights by path within the model, the bytes of its vocabulary.

    tokenizer: the contents of its tokenizer.json, b"" if it is tokenized by WordPiece.
    """

    name: str
    index: dict[str, Any]
    weights: dict[str, np.ndarray] = field(repr=False)
    vocabulary_bytes: bytes = field(repr=False)
    tokenizer: bytes = field(default=b"", repr=False)

    @property
    def encoder(self) -> EncoderConfig:
        return EncoderConfig(**self.index["encoder"])

    @property
    def trained_length(self) -> int:
        """Return the longest sequence that the model was trained on."""
        return checkpoint_index.trained_length(self.index)

    @property
    def origin(self) -> str:
        """Return the name of this model and of those that it was made from, for cards that are published."""
        older = (self.index.get("imported") or {}).get("from") or self.index.get("base_model")
        return f"{short_name(self.name)}, from {older}" if older else short_name(self.name)

    @property
    def data(self) -> list[dict[str, Any]]:
        """Return the descriptions of the data that it was trained on, if they were recorded."""
        return list(self.index.get("data") or ())

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_bytes(self.vocabulary_bytes, f"{self.name}'s vocabulary")

    @property
    def cased(self) -> bool:
        """Return whether the vocabulary is cased."""
        return checkpoint_index.cased(self.index)

    @property
    def rules(self) -> TextRules:
        """Return how the tokenizer deviates from google-research/bert's."""
        return TextRules.from_dict(self.index["vocabulary"])

    def text_encoder(self, max_seq_length: int) -> TextEncoder:
        """Return the encoder of texts and pairs of up to `max_seq_length` tokens."""
        segments = self.encoder.type_vocab_size
        return TextEncoder(self.vocabulary, self.cased, max_seq_length, self.rules, segments, self.tokenizer)

    def check_length(self, max_seq_length: int) -> None:
        """Raise UserError if texts of a length have more tokens than the model accepts."""
        longest = self.encoder.max_position_embeddings
        if max_seq_length > longest:
            raise UserError(
                f"--max-seq-length is {max_seq_length}, but {self.name} accepts at most {longest} tokens: give no more"
            )

    def note_untrained_positions(self, max_seq_length: int) -> None:
        """Print a note if texts of a length have positions whose embeddings no example has trained."""
        if max_seq_length > self.trained_length and not self.encoder.design.rotary:
            print(
                f"note: {self.name} was trained on at most {self.trained_length} tokens: the embeddings of later positions are "
                f"untrained (--max-seq-length {self.trained_length} truncates texts there)",
                file=sys.stderr,
                flush=True,
            )

    @property
    def encoder_weights(self) -> dict[str, np.ndarray]:
        """Return the weights of the encoder.

        If its design `transforms_tokens` and only a masked-LM head was trained, the pooler is the transform of that head, as in
        transformers' classifiers.
        """
        own = {name: value for name, value in self.weights.items() if name.startswith("encoder/")}
        trained = {"next_sentence/dense/kernel", "replaced_token/transform/kernel"} & self.weights.keys()
        if self.encoder.design.transforms_tokens and not trained:
            for name in _TRANSFORM & self.weights.keys():
                own[f"encoder/pooler/{name.removeprefix('masked_lm/')}"] = self.weights[name]
        return own


def read(path: str, which: str = "best") -> PretrainedModel:
    """Read a run's checkpoint (of a sweep: that of its best run), a checkpoint, or a SavedModel. Raises UserError."""
    path = best_run_of(path)
    if storage.exists(storage.join(path, SAVED_MODEL)):
        return _saved_model(path)
    if storage.exists(storage.join(path, "config.json")) and not storage.listed(storage.join(path, checkpoints.FOLDER)):
        raise UserError(f"{path} is a Hugging Face folder: convert it with clozemill import first")
    one = checkpoints.find(path, which)
    vocabulary = storage.read(storage.join(one.folder, VOCAB), "give another checkpoint")
    weights = checkpoints.weights(one)
    return _checked(PretrainedModel(one.folder, one.index, weights, vocabulary, checkpoints.tokenizer(one)))


def _checked(found: PretrainedModel) -> PretrainedModel:
    """Return the model if its parts are consistent. Raises UserError."""
    try:
        check_weights(encoder_config(found.index), found.weights)
        TextRules.from_dict(found.index["vocabulary"])
        _ = found.cased
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{found.name} can't be used ({error}): give another checkpoint") from None
    if len(found.vocabulary) != found.encoder.vocab_size:
        raise UserError(
            f"{found.name}: {VOCAB} has {len(found.vocabulary):,} tokens, but the model's embedding "
            f"{found.encoder.vocab_size:,}: restore the file, or give another checkpoint"
        )
    return found


def best_run_of(folder: str) -> str:
    """The folder of a sweep's best run; any other folder as it is. Raises UserError."""
    sweep = storage.join(folder, SWEEP)
    return storage.join(folder, _best_run(sweep)) if storage.exists(sweep) else folder


def is_sweep(folder: str) -> bool:
    """Return whether a folder has the result of a sweep."""
    path = storage.join(folder, SWEEP)
    try:
        return storage.exists(path) and bool(_best_run(path))
    except UserError:
        return False


def _best_run(path: str) -> str:
    """Return the folder of the best run named by a sweep.json. Raises UserError."""
    if best := best_of_sweep(storage.read(path, "give one of the sweep's runs")):
        return best
    raise UserError(f"{path} names no best run: run the sweep again to rebuild it, or give one of its runs")


def _saved_model(path: str) -> PretrainedModel:
    """Read a SavedModel. Raises UserError unless clozemill export wrote it, and TensorFlow is installed."""
    try:
        from clozemill.model.conversion import savedmodel
    except ModuleNotFoundError:
        raise UserError(
            f"{path} is a SavedModel, which only TensorFlow reads, and it isn't installed: pip install 'clozemill[train]', or "
            "give the run or checkpoint that was exported"
        ) from None
    try:
        index, weights, tokens, tokenizer = savedmodel.read(path)
    except (ValueError, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a SavedModel of clozemill export ({told}): give one, a run or a checkpoint") from None
    return _checked(PretrainedModel(path, index, weights, ("\n".join(tokens) + "\n").encode(), tokenizer))


def load_model(found: PretrainedModel, engine: Engine, precision: str) -> keras.Model:
    """Build the model with its weights. Raises UserError if the checkpoint describes no model, or its weights don't fit."""
    try:
        with engine.scope():
            return train_state.loaded(found.index, found.weights, precision)
    except ValueError as error:
        raise UserError(f"{found.name} can't be used ({error}): give another checkpoint") from None
