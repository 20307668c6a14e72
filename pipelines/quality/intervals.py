"""Five-sigma intervals for sums of random draws."""

import math

SIGMAS = 5.0  # a sound dataset fails a test of proportions once in two million


def bound(variance: float) -> float:
    """How far a count may lie from its expectation, given the variance of its sum of independent draws."""
    return SIGMAS * math.sqrt(variance) + 1
