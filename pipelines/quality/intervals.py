"""Five-sigma intervals for sums of random draws."""

import math

SIGMAS = 5.0  # a correct dataset fails a test of proportions once in two million


def bound(variance: float) -> float:
    """Return how far a count may be from its expectation, given the variance of its sum of independent draws."""
    return SIGMAS * math.sqrt(variance) + 1
