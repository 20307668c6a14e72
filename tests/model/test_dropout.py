"""Rates within 4.5 sigma, and dependence on the seed."""

from itertools import combinations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from clozemill.model.dropout import SITES, dropout, fold

Z = 4.5
SEED = np.array([3, 5], "int32")


def kept(shape: tuple[int, ...], rate: float, seed, dtype: str = "float32") -> np.ndarray:
    """Return where ones are kept."""
    return ops.convert_to_numpy(ops.cast(dropout(ops.ones(shape, dtype), rate, seed), "float32")) != 0


def correlated(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's r in standard deviations of r for independent draws."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) * one.size**0.5


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_rate_and_the_mean(rate: float) -> None:
    x = np.random.default_rng(1).uniform(1.0, 3.0, (64, 50, 100)).astype("float32")
    y = ops.convert_to_numpy(dropout(ops.convert_to_tensor(x), rate, SEED))
    exact = round(rate * 65536) / 65536
    assert abs((y == 0).mean() - exact) < Z * (exact * (1 - exact) / x.size) ** 0.5
    np.testing.assert_allclose(y[y != 0], x[y != 0] / (1 - exact), rtol=1e-6)
    assert abs(y.mean() - x.mean()) < Z * 2.1 * (exact / (1 - exact) / x.size) ** 0.5  # 2.1: the root of x's mean square


def test_the_rate_is_correct_in_every_row_and_column() -> None:
    """Rows of both halves, with 65,536 draws each, so the standard deviation of a share is 0.0012."""
    dropped = ~kept((256, 256, 16), 0.1, SEED)
    assert abs(dropped.reshape(256, -1).mean(axis=1) - 0.1).max() < Z * (0.09 / 4096) ** 0.5
    assert abs(dropped.mean(axis=(0, 2)) - 0.1).max() < Z * (0.09 / 4096) ** 0.5


def test_without_rate_or_seed_input_is_unchanged() -> None:
    x = ops.ones((3, 4))
    assert dropout(x, 0.0, SEED) is x
    assert dropout(x, 1e-9, SEED) is x  # below one in 65,536
    assert dropout(x, 0.5, None) is x
    assert fold(None, 7) is None


def test_fold_values() -> None:
    assert SITES == 1024
    assert ops.convert_to_numpy(fold(SEED, 0)).tolist() == [3, 5120]
    assert ops.convert_to_numpy(fold(SEED, 7)).tolist() == [3, 5127]
    assert keras.backend.standardize_dtype(fold(np.array([3, 5], "int64"), 1).dtype) == "int32"


def test_all_draws_of_two_steps_have_different_seeds() -> None:
    seeds = [fold(np.array([run, step]), site) for run in (0, 1) for step in (0, 1, 2) for site in (0, 1, 72, SITES - 1)]
    assert len({tuple(ops.convert_to_numpy(seed)) for seed in seeds}) == 24


def test_equal_seeds_give_equal_masks() -> None:
    assert (kept((8, 500), 0.5, SEED) == kept((8, 500), 0.5, SEED)).all()
    assert (kept((8, 500), 0.5, SEED) == kept((8, 500), 0.5, tf.constant(SEED))).all()


def test_seeds_and_sites_are_independent() -> None:
    """Different runs, steps and sites, including adjacent ones: no pair is correlated."""
    seeds = [fold(np.array([run, step]), site) for run in (0, 1) for step in (0, 1) for site in (0, 1, 2)]
    masks = [kept((8, 2500), 0.5, seed) for seed in seeds]
    scores = [abs(correlated(*pair)) for pair in combinations(masks, 2)]
    assert len(scores) == 66 and max(scores) < Z


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_halves_of_a_batch_are_independent(rate: float) -> None:
    """They come from the two halves of the same random words."""
    mask = kept((64, 4000), rate, SEED)
    assert abs(correlated(mask[:32], mask[32:])) < Z
    assert abs(correlated(mask[:-1], mask[1:])) < Z
    assert abs(correlated(mask[:, :-1], mask[:, 1:])) < Z


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_any_number_of_rows(rows: int) -> None:
    mask = kept((rows, 20000), 0.25, SEED)
    assert mask.shape == (rows, 20000)
    assert abs(mask.mean(axis=1) - 0.75).max() < Z * (0.1875 / 20000) ** 0.5
    assert len({row.tobytes() for row in mask}) == rows


@pytest.mark.parametrize("rows", [4, 5, None])
def test_in_a_graph(rows: int | None) -> None:
    """The same values as in eager mode, also for an unknown number of rows."""
    traced = tf.function(lambda x, seed: dropout(x, 0.3, seed))
    traced = traced.get_concrete_function(tf.TensorSpec([rows, 300]), tf.TensorSpec([2], "int32"))
    x = tf.ones((rows or 7, 300))
    assert (traced(x, tf.constant(SEED)).numpy() == dropout(x, 0.3, SEED).numpy()).all()


def test_in_bfloat16() -> None:
    """The same elements as in float32, scaled in bfloat16, which has eight bits."""
    y = dropout(ops.ones((8, 500), "bfloat16"), 0.1, SEED)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert (kept((8, 500), 0.1, SEED, "bfloat16") == kept((8, 500), 0.1, SEED)).all()
    assert set(ops.convert_to_numpy(ops.cast(y, "float32")).ravel().tolist()) == {0.0, 1.109375}


def test_dropped_elements_are_zero_even_if_not_finite() -> None:
    y = ops.convert_to_numpy(dropout(ops.full((4, 500), np.inf), 0.5, SEED))
    assert not np.isnan(y).any() and (y == 0).any()


def test_gradients_are_zero_where_values_are_dropped() -> None:
    x = tf.ones((6, 50))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = dropout(x, 0.4, SEED)
    assert (tape.gradient(y, x).numpy() == y.numpy()).all()
