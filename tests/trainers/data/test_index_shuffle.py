"""The permutation of rows that TensorFlow's RandomIndexShuffle draws, computed without it."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.trainers.data.index_shuffle import shuffled
from tests.slow import mostly_slow

# At the ends of block sizes of 16, 18 and 20 bits: TensorFlow's isn't a permutation of 2 ** 16 + 1 rows, nor of 2 ** 18 + 1.
COUNTS = (1, 2, 3, 4, 5, 17, 1000, 65535, 65536, 65537, 65538, (1 << 18) - 1, (1 << 18) + 1, 300_000)


def drawn(count: int, seed: tuple[int, ...]) -> np.ndarray:
    places = tf.range(count, dtype=tf.int64)
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=tf.constant(seed, tf.int64), max_index=tf.constant(count - 1, tf.int64)
    ).numpy()


@pytest.mark.parametrize("count", mostly_slow(COUNTS, *COUNTS[:11]))
def test_equals_tensorflow(count: int) -> None:
    for seed in ((0, 0, 0), (7, 3, 1), ((1 << 40) + 7, 2, 0), ((1 << 63) - 1, 1 << 33, 1)):
        found = shuffled(count, *seed)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, drawn(count, seed))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 3000), st.tuples(*[st.integers(0, (1 << 63) - 1)] * 3))
def test_is_tensorflow_s_permutation_for_any_seed(count: int, seed: tuple[int, ...]) -> None:
    found = shuffled(count, *seed)
    np.testing.assert_array_equal(found, drawn(count, seed))
    assert sorted(found.tolist()) == list(range(count))


def test_literal_order() -> None:
    """So that a run of an earlier version is resumed with the same rows."""
    assert not len(shuffled(0, 5, 1, 0)) and shuffled(10, 5, 1, 0).tolist() == [3, 0, 6, 4, 9, 7, 8, 1, 5, 2]
