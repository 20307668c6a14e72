"""Measures how fast this machine multiplies matrices, to estimate training time without loading TensorFlow."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from clozemill.pipelines.common import runtime

_SIZE = 1024  # rows and columns: 2.1 GFLOP per product, larger than every cache of a core
_REPEATS = 4


def measured_flops() -> float:
    """Return the float32 FLOP/s of matrix products on all cores, as if no other program ran.

    Measured in the CPU time of one thread, of which other programs take nothing. Several threads would wait for each other in
    a loop: beside two busy programs on two cores, they gave half of the rate.
    """
    matrix = np.ones((_SIZE, _SIZE), np.float32)
    best = 0.0
    with threadpool_limits(1):
        for _ in range(1 + _REPEATS):  # the first one warms up
            began = time.process_time()
            np.matmul(matrix, matrix)
            best = max(best, 2 * _SIZE**3 / max(time.process_time() - began, 1e-9))
    return best * runtime.cores()
