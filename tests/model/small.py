"""Shared by the tests in this folder: small models with random weights, random examples, other backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.losses import sums

SMALL = EncoderConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, max_position_embeddings=12
)
MODERN = EncoderConfig(  # with a local layer before and after a global one; a window of 2 positions on each side
    vocab_size=50, hidden_size=16, num_hidden_layers=5, num_attention_heads=4, intermediate_size=24, max_position_embeddings=40,
    architecture="modernbert", type_vocab_size=0, hidden_act="gelu_erf", hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5, local_attention=4, global_attn_every_n_layers=2,
)  # fmt: skip
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TOKENS = ("input_ids", "input_mask", "segment_ids")


def scatter(model: keras.Model, seed: int = 0) -> keras.Model:
    """Build a model if necessary, and set weights so that no value is 0, 1 or tiny, identical on every backend."""
    if not model.built:
        model.build()
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(1.0 if weight.path.endswith("gamma") else 0.0, 0.25, weight.shape).astype("float32"))
    return model


def features(seed: int = 0, rows: int = 4, length: int = 10, predictions: int = 3, vocab: int = 50) -> dict[str, np.ndarray]:
    """Return examples as in shards: row 0 is full, the others are padded, and row 1 has one prediction."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(predictions + 2, length, rows)
    sizes[0] = length
    counts = rng.integers(1, predictions + 1, rows)
    counts[:2] = predictions, 1
    mask = np.arange(length) < sizes[:, None]
    used = np.arange(predictions) < counts[:, None]
    positions = np.array([np.sort(rng.permutation(size - 1)[:predictions]) + 1 for size in sizes])
    found = {
        "input_ids": rng.integers(5, vocab, (rows, length)) * mask,
        "input_mask": mask,
        "segment_ids": (np.arange(length) > sizes[:, None] // 2) & mask,
        "masked_lm_positions": positions * used,
        "masked_lm_ids": rng.integers(5, vocab, (rows, predictions)) * used,
        "masked_lm_weights": used,
        "next_sentence_labels": rng.integers(0, 2, (rows, 1)),
    }
    return {name: values.astype("float32" if "weights" in name else "int32") for name, values in found.items()}


def packed(examples: dict[str, np.ndarray], rows: list[list[int]], length: int, most: int, predictions: int) -> dict:
    """Return the same examples in rows of a packed dataset: those numbered rows[0] in the first, and so on.

    most, predictions: number of examples and masked positions that there is room for in a row.
    """
    shape = (len(rows), length)
    found = {name: np.zeros(shape, "int32") for name in (*TOKENS, "example_ids")}
    found |= {name: np.zeros((len(rows), most), "int32") for name in ("cls_positions", "next_sentence_labels")}
    found |= {name: np.zeros((len(rows), predictions), "int32") for name in ("masked_lm_positions", "masked_lm_ids")}
    found |= {name: np.zeros((len(rows), size), "float32") for name, size in
              (("example_weights", most), ("masked_lm_weights", predictions))}  # fmt: skip
    for row, numbers in enumerate(rows):
        begin = done = 0
        for index, number in enumerate(numbers):
            end = begin + examples["input_mask"][number].sum()
            used = int(examples["masked_lm_weights"][number].sum())
            for name in TOKENS:
                found[name][row, begin:end] = examples[name][number, : end - begin]
            found["example_ids"][row, begin:end] = index + 1
            found["cls_positions"][row, index] = begin
            found["next_sentence_labels"][row, index] = examples["next_sentence_labels"][number, 0]
            found["example_weights"][row, index] = 1
            for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
                found[name][row, done : done + used] = examples[name][number, :used]
            found["masked_lm_positions"][row, done : done + used] += begin
            begin, done = end, done + used
    return found


def mean_loss(outputs: dict, targets: dict):
    """Return the mean loss of masked tokens, plus those of next sentences and of replaced tokens if there are any."""
    found = sums(outputs, targets)
    loss = found["masked_lm_loss"] / found["masked_lm_weight"]
    if "next_sentence_logits" in outputs:
        loss = loss + found["next_sentence_loss"] / found["next_sentence_weight"]
    if "replaced_logits" in outputs:
        loss = loss + found["replaced_loss"] / found["replaced_weight"]
    return loss


def apart(one, other) -> float:
    """Return the largest difference between two arrays, or two lists or dicts of arrays."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max(apart(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return max(apart(first, second) for first, second in zip(one, other, strict=True))
    one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
    assert one.shape == other.shape
    difference = np.abs(one.astype("float64") - other).max()
    return float(difference) if np.isfinite(difference) else np.inf


def run(backend: str, code: str, *arguments: str) -> str:
    """Return the output of a new interpreter with another Keras backend."""
    hurry = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # a third of JAX's compilation time
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": hurry}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
