"""Pooling and the contrastive loss: literal values, a loop in plain numpy, and what can't change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from clozemill.model.sentence_vectors import contrastive, normalised, pooled


def sums(vectors: np.ndarray, texts: list[int], weights: list[float], temperature: float) -> list[float]:
    found = contrastive(vectors, np.array(texts, "int32"), np.array(weights, "float32"), temperature)
    return [float(value) for value in found]


def reference(vectors: np.ndarray, texts: list[int], weights: list[float], temperature: float) -> list[float]:
    """The same, text by text, in float64."""
    first, second = np.split(vectors.astype("float64"), 2)
    loss = hits = 0.0
    for row, weight in enumerate(weights):
        others = [other for other in range(len(texts)) if weights[other] > 0 and texts[other] != texts[row]]
        own, *rest = (float(first[row] @ second[column]) / temperature for column in (row, *others))
        loss += weight * (math.log(sum(math.exp(value - own) for value in (own, *rest))))
        hits += weight * all(own > value for value in rest)
    return [loss, sum(weights), hits]


def unit_vectors(seed: int, count: int, width: int = 5) -> np.ndarray:
    return ops.convert_to_numpy(normalised(np.random.default_rng(seed).normal(size=(2 * count, width)).astype("float32")))


def test_literal_values() -> None:
    """Two texts at right angles: each finds itself at a similarity of 1 and the other one at 0."""
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], "float32")
    assert sums(vectors, [0, 1], [1, 1], 0.5) == pytest.approx([2 * math.log(1 + math.exp(-2)), 2, 2])
    swapped = vectors[[0, 1, 3, 2]]
    assert sums(swapped, [0, 1], [1, 1], 0.5) == pytest.approx([2 * math.log(1 + math.exp(2)), 2, 0])
    assert sums(swapped, [4, 4], [1, 1], 0.5) == pytest.approx([0, 2, 2])  # the same text twice has no others
    assert sums(swapped, [0, 1], [1, 0], 0.5) == pytest.approx([0, 1, 1])  # and neither has a text beside padding


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from((0.0, 0.5, 1.0))), min_size=2, max_size=6),
    seed=st.integers(0, 99),
    temperature=st.sampled_from((0.05, 1.0)),
)
def test_sums_match_a_loop(rows: list, seed: int, temperature: float) -> None:
    texts, weights = [text for text, _ in rows], [weight for _, weight in rows]
    case = unit_vectors(seed, len(rows)), texts, weights, temperature
    assert sums(*case) == pytest.approx(reference(*case), rel=1e-4, abs=1e-5)


def test_the_order_of_the_texts_changes_nothing() -> None:
    vectors, order = unit_vectors(0, 6), np.array([3, 0, 5, 4, 1, 2])
    texts, weights = np.array([0, 1, 2, 2, 4, 5]), np.array([1.0, 1, 1, 1, 0, 0.5])
    both = np.concatenate([order, order + 6])
    assert sums(vectors[both], texts[order].tolist(), weights[order].tolist(), 0.1) == pytest.approx(
        sums(vectors, texts.tolist(), weights.tolist(), 0.1), rel=1e-5
    )


def test_pooling() -> None:
    """The mean is over tokens, not padding; a vector of zeros stays one."""
    hidden = np.array([[[1, 2], [3, 6], [100, 100]], [[0, 0], [50, 50], [50, 50]]], "float32")
    mask = np.array([[1, 1, 0], [1, 0, 0]], "int32")
    assert ops.convert_to_numpy(pooled(hidden, mask, "mean")).tolist() == [[2, 4], [0, 0]]
    assert ops.convert_to_numpy(pooled(hidden, mask, "cls")).tolist() == [[1, 2], [0, 0]]
    found = ops.convert_to_numpy(normalised(np.array([[3, 4], [0, 0]], "float32")))
    assert found[0] == pytest.approx([0.6, 0.8]) and found[1].tolist() == [0, 0]
