"""Embeddings against numpy."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from clozemill.model import embeddings
from clozemill.model.embeddings import Embeddings
from tests.model.small import MODERN, NO_DROPOUT, SMALL, apart, scatter


def expected(layer: Embeddings, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    words, positions, kinds, gamma, beta = (np.asarray(weight.numpy(), "float64") for weight in layer.weights)
    summed = words[ids] + positions[: ids.shape[1]] + kinds[segments]
    centred = summed - summed.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12) * gamma + beta


@pytest.mark.parametrize("length", [1, 7, 12])
def test_matches_numpy(length: int) -> None:
    layer, rng = scatter(Embeddings(SMALL)), np.random.default_rng(1)
    ids, segments = rng.integers(0, 50, (3, length)), rng.integers(0, 2, (3, length))
    assert apart(layer(ids, segments), expected(layer, ids, segments)) < 1e-5


def test_names_and_shapes() -> None:
    layer = scatter(Embeddings(SMALL))
    assert {weight.path.split("/", 1)[1]: tuple(weight.shape) for weight in layer.weights} == {
        "word_embeddings": (50, 16),
        "position_embeddings": (12, 16),
        "segment_embeddings": (2, 16),
        "layer_norm/gamma": (16,),
        "layer_norm/beta": (16,),
    }


def test_initial_values() -> None:
    """Normal, cut at two deviations of 0.02: that has a deviation of 0.0176."""
    layer = Embeddings(replace(SMALL, vocab_size=5000))
    layer.build()
    words, _, _, gamma, beta = (weight.numpy() for weight in layer.weights)
    assert 0.0395 < abs(words).max() <= 0.04
    assert abs(words.std() - 0.0176) < 0.0002 and abs(words.mean()) < 0.0003
    assert (gamma == 1).all() and (beta == 0).all()


def test_rows_are_summed_in_float32_with_any_precision() -> None:
    """The sum is rounded to bfloat16 once: it differs from that of rounded rows."""
    layer, ids = scatter(Embeddings(SMALL, dtype="mixed_bfloat16")), np.arange(48).reshape(4, 12)
    words, positions, kinds = (weight.numpy() for weight in layer.weights[:3])
    parts = words[ids], positions, kinds[1]
    one, other, three = (ops.cast(part, "bfloat16") for part in parts)
    summed = ops.cast(sum(parts), "bfloat16")
    plain, found, expected, rounded = (
        ops.cast(value, "float32") for value in (summed, layer(ids, ids * 0 + 1), layer.norm(summed), one + other + three)
    )
    assert words.dtype == np.float32 and apart(rounded, plain) > 0.001
    assert apart(found, expected) == 0


def test_words_alone_are_looked_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the gradient of a frequent word is a sum in float32; test_backends.py measures it where it makes a difference."""
    looked, take, ids = [], ops.take, np.arange(48).reshape(4, 12)
    monkeypatch.setattr(embeddings.ops, "take", lambda *args, **options: looked.append(take(*args, **options)) or looked[-1])
    scatter(Embeddings(MODERN, dtype="mixed_bfloat16"))(ids, ids * 0)
    assert [keras.backend.standardize_dtype(rows.dtype) for rows in looked] == ["float32"]


def test_dropout_with_a_seed() -> None:
    layer, ids = scatter(Embeddings(replace(SMALL, hidden_dropout_prob=0.5))), np.full((4, 12), 7)
    plain, dropped = (ops.convert_to_numpy(layer(ids, ids * 0, seed=seed)) for seed in (None, np.array([1, 2], "int32")))
    assert 0.4 < (dropped == 0).mean() < 0.6
    np.testing.assert_allclose(dropped[dropped != 0], 2 * plain[dropped != 0], rtol=1e-6)
    without = scatter(Embeddings(replace(SMALL, **NO_DROPOUT)))
    assert apart(without(ids, ids * 0, seed=np.array([1, 2], "int32")), plain) == 0
