"""Random spans of texts: literal places, a loop in plain Python, and what every span has."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from clozemill.model.dropout import uniform
from clozemill.model.text_crops import LEAST, LONGEST, cropped, mean_span, span_places

CLS, SEP = 101, 102
SEED = np.array([3, 5], "int32")


def rows(tokens: list[int], length: int) -> dict[str, np.ndarray]:
    """Texts whose tokens are numbered from 1, [B, length]."""
    ids = np.zeros((len(tokens), length), "int32")
    for row, count in enumerate(tokens):
        ids[row, : count + 2] = [CLS, *range(1, count + 1), SEP]
    return {"input_ids": ids, "input_mask": (ids > 0).astype("int32"), "segment_ids": np.zeros_like(ids)}


def places(tokens: list[int], draws: list[tuple[float, float]]) -> list[tuple[int, int]]:
    begins, sizes = span_places(np.array(tokens), np.array(draws, "float32").T)
    return list(zip(begins.numpy().tolist(), sizes.numpy().tolist(), strict=True))


def test_literal_places() -> None:
    """Of 100 tokens, spans have 10 to 30, and begin at 0 to 90 or 70. Of 20, they have 8; of 5 or none, all."""
    nearly = 1 - 2**-24
    assert places([100] * 4, [(0, 0), (0, nearly), (nearly, nearly), (0.5, 0.5)]) == [(0, 10), (90, 10), (70, 30), (40, 20)]
    assert places([20, 20, 5, 5, 0], [(0, nearly), (nearly, 0), (0, 0.9), (nearly, 0), (0.5, 0.5)]) == [
        (12, 8), (0, 8), (0, 5), (0, 5), (0, 0),
    ]  # fmt: skip


def test_a_literal_span() -> None:
    """A text of 8 tokens keeps all of them; one of 10 loses two; both keep their special tokens."""
    found = {name: ops.convert_to_numpy(value) for name, value in cropped(rows([8, 10, 2], 20), SEED).items()}
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(found, (3, 10))
    assert found["input_ids"][0].tolist() == [CLS, 1, 2, 3, 4, 5, 6, 7, 8, SEP]
    begin = int(found["input_ids"][1, 1])
    assert 1 <= begin <= 3 and found["input_ids"][1].tolist() == [CLS, *range(begin, begin + 8), SEP]
    assert found["input_ids"][2, :4].tolist() == [CLS, 1, 2, SEP]
    assert found["input_mask"].sum(axis=1).tolist() == [10, 10, 4]


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 120), min_size=1, max_size=5),
    padding=st.integers(0, 9),
    seed=st.integers(-(2**31), 2**31 - 1),
)
def test_every_span_is_of_its_text(tokens: list[int], padding: int, seed: int) -> None:
    given_rows, own = rows(tokens, max(tokens) + 2 + padding), np.array([seed, 1], "int32")
    found = {name: ops.convert_to_numpy(value) for name, value in cropped(given_rows, own).items()}
    begins, sizes = (ops.convert_to_numpy(each) for each in span_places(np.array(tokens), uniform((2, len(tokens)), own)))
    for row, count in enumerate(tokens):
        size, begin = int(sizes[row]), int(begins[row])
        assert 0 <= begin <= count - size
        assert min(count, LEAST) <= size <= max(min(count, LEAST), LONGEST / 100 * count + 0.5)
        assert found["input_mask"][row].tolist() == [1] * (size + 2) + [0] * (found["input_mask"].shape[1] - size - 2)
        assert found["input_ids"][row, : size + 2].tolist() == [CLS, *range(begin + 1, begin + size + 1), SEP]


def test_draws_are_uniform_and_differ_between_rows() -> None:
    drawn = ops.convert_to_numpy(uniform((100, 100), SEED))
    assert drawn.min() >= 0 and drawn.max() < 1 and drawn.dtype == np.float32
    shares = np.histogram(drawn, 10, (0, 1))[0] / drawn.size
    assert np.abs(shares - 0.1).max() < 4.5 * (0.09 / drawn.size) ** 0.5
    found = cropped(rows([100] * 400, 102), SEED)
    begins = ops.convert_to_numpy(found["input_ids"][:, 1])
    sizes = ops.convert_to_numpy(ops.sum(found["input_mask"], axis=1)) - 2
    assert len({*zip(begins.tolist(), sizes.tolist(), strict=True)}) > 300 and sizes.min() >= 10 and sizes.max() <= 30
    assert sizes.mean() + 2 == pytest.approx(mean_span(102), abs=4.5 * 6 / 20) and mean_span(6) == 6 and mean_span(20) == 10


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="shapes of other backends are static")
def test_an_unknown_length_makes_no_difference() -> None:
    spec = {name: tf.TensorSpec([3, None], tf.int32) for name in rows([1], 3)}
    traced = tf.function(lambda inputs: cropped(inputs, tf.constant(SEED)), input_signature=[spec])
    for length in (102, 70, 12):
        given_rows = rows([length - 2, length // 2, 1], length)
        one, other = traced({name: tf.constant(value) for name, value in given_rows.items()}), cropped(given_rows, SEED)
        assert all((one[name].numpy() == ops.convert_to_numpy(value)).all() for name, value in other.items())
