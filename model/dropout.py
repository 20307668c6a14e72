"""Dropout as a function of an explicit seed, so that a training step is a function of its inputs alone.

A seed is a pair of integers, int32 [2]. Each draw folds in its own number (`fold`), so no two draws of a step share a random
stream, and no random state has to be saved to resume a run exactly.
"""

import keras
from keras import ops

from clozemill.model.random_bits import tensorflow_words

SITES = 1024  # maximum number of draws per seed

_LANES, _BITS = 2, 16  # one 32-bit draw decides for two elements: less than half the time of a float per element


class _Seed(keras.random.SeedGenerator):
    """Passes a tensor as seed to keras.random, which accepts integers and generators only; it has no state."""

    def __init__(self, seed) -> None:  # the parent would create a variable
        self.seed = seed

    def next(self, ordered: bool = True):
        return self.seed


def fold(seed, site: int):
    """Return the seed of draw number `site` (below SITES) of a step; None stays None."""
    if seed is None:
        return None
    seed = ops.cast(seed, "int32")
    return ops.stack([seed[0], seed[1] * SITES + site])


def _bits(shape: tuple[int, ...], seed):
    """Return random int32 over (nearly) the full range, the same on every backend."""
    if keras.backend.backend() != "tensorflow":
        return tensorflow_words(shape, ops.cast(seed, "int32"))
    return keras.random.randint(shape, -(2**31), 2**31 - 1, dtype="int32", seed=_Seed(ops.cast(seed, "int32")))


def uniform(shape: tuple[int, ...], seed):
    """Return random numbers from 0 to below 1, float32, the same on every backend. seed: int32 [2]."""
    return ops.cast(ops.right_shift(_bits(shape, seed), 8), "float32") * (1.0 / (1 << 24)) + 0.5


def dropout(x, rate: float, seed):
    """Zero elements with probability `rate`, rounded to 1/65536, and scale up the others. Without a seed, return x unchanged.

    Args:
        x: floats of any shape.
        rate: at least 0 and below 1.
        seed: int32 [2], or None outside of training.
    """
    threshold = round(rate * (1 << _BITS))
    if seed is None or threshold == 0:
        return x
    rows, *others = ops.shape(x)
    words = _bits(((rows + _LANES - 1) // _LANES, *others), seed)
    low = ops.left_shift(words, _BITS)  # its upper half decides for one element, that of `words` for another
    least = (threshold - (1 << (_BITS - 1))) * (1 << _BITS)
    keep = ops.concatenate([words >= least, low >= least], axis=0)
    if not isinstance(rows, int) or rows % _LANES:
        keep = keep[:rows]
    return ops.where(keep, x * (1.0 / (1.0 - threshold / (1 << _BITS))), ops.zeros((), x.dtype))
