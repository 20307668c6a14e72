"""A small encoder's checkpoint and toy tasks that it learns in seconds, for tests of fine-tuning and of what comes after."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS
from clozemill.trainers.engines import train_state
from clozemill.trainers.training import checkpoints

WORDS = ("good", "bad", "bread", "mill", "river", "old", "is", "the", "a", "key", "which", "word", "##s", ".", "?")
VOCABULARY = "".join(f"{token}\n" for token in (*WORDS[:3], *SPECIAL_TOKENS, *WORDS[3:])).encode()  # ids of [PAD] ...: 3 to 7
ENCODER = EncoderConfig(
    vocab_size=len(WORDS) + len(SPECIAL_TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=32, initializer_range=0.1,
)  # fmt: skip


def checkpoint(folder: Path, seed: int = 1, encoder: EncoderConfig = ENCODER, vocabulary: bytes = VOCABULARY) -> Path:
    """A checkpoint of random weights."""
    model = PretrainingModel(encoder)
    model.build()
    train_state.initialize(model, seed, encoder.initializer_range)
    told = {"sha256": hashlib.sha256(vocabulary).hexdigest(), "size": vocabulary.count(b"\n"), "cased": False}
    about = {"step": 0, "encoder": encoder.to_dict(), "objective": "mlm+nsp", "vocabulary": told}
    checkpoints.write(str(folder), {"weights": train_state.TrainState(model).weights()}, vocabulary, about)
    return folder


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label): a text is as good or bad as the one such word in it."""
    stream, rows = np.random.default_rng(seed), []
    for number in range(count):
        label = ("bad", "good")[number % 2]
        words = [
            str(word) for word in stream.choice(("the", "old", "mill", "river", "is", "a", "bread"), stream.integers(2, 9))
        ]
        words.insert(int(stream.integers(0, len(words) + 1)), label)
        rows.append((" ".join(words), label))
    return rows


def table(path: Path, rows: Sequence[Sequence[object]], *header: str) -> Path:
    """A TSV."""
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ([header] if header else []) + list(rows)), "utf-8")
    return path


def classification(folder: Path, train: int = 64, dev: int = 20) -> tuple[Path, Path]:
    """Two files of the toy task."""
    one = table(folder / "train.tsv", sentences(train), "text", "label")
    return one, table(folder / "dev.tsv", sentences(dev, seed=1), "text", "label")
