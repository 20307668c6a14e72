"""Measures how fast this machine multiplies matrices, to estimate training time without loading TensorFlow."""

import time

import numpy as np

_SIZE = 1024  # rows and columns: 2.1 GFLOP per product, larger than every cache of a core
_REPEATS = 4


def measured_flops() -> float:
    """Return the float32 FLOP/s of matrix products on all cores: the best of several, since other programs slow it down."""
    matrix = np.ones((_SIZE, _SIZE), np.float32)
    best = 0.0
    for _ in range(1 + _REPEATS):  # the first also starts the threads
        began = time.perf_counter()
        np.matmul(matrix, matrix)
        best = max(best, 2 * _SIZE**3 / (time.perf_counter() - began))
    return best
