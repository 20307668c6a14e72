"""Predicts the loss of a long run from short ones with complete schedules, as pure functions.

The loss falls with the number of updates S as E + B / S^beta, the form that Kaplan et al. 2020 (arXiv:2001.08361) and Hoffmann
et al. 2022 (arXiv:2203.15556) fitted to language models. Three short runs don't determine the three numbers, so all exponents
that explain them are averaged, which also gives the range of the prediction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOISE = 0.03  # standard deviation of a run's final loss in nats, over seeds (docs/explanation/measurements.md)
_EXPONENTS = np.geomspace(0.1, 1.6, 57)
_TYPICAL, _SPREAD = 0.65, 0.35  # of the exponents: median, and standard deviation of their logarithm
_FLOORS = np.arange(0.0, 8.0, 0.05)  # of the loss, in nats
_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Forecast:
    """A predicted loss in nats, and the range in which it lies four times out of five."""

    estimate: float
    low: float
    high: float


def forecast(steps: Sequence[int], losses: Sequence[float], wanted: float, noise: float = NOISE) -> Forecast:
    """Return the predicted loss after `wanted` steps of a complete schedule.

    Args:
        steps, losses: of runs with complete schedules; at least two, of different lengths.
        wanted: steps of the long run.
        noise: standard deviation of a run's loss.
    """
    x, y = np.log(np.asarray(steps, float)), np.asarray(losses, float)
    if len(x) < 2 or len(set(steps)) < 2:
        raise ValueError("a curve needs runs of at least two lengths")
    exponents, floors = np.meshgrid(_EXPONENTS, _FLOORS[y.min() > _FLOORS], indexing="ij")
    shape = np.exp(-exponents[..., None] * (x - x[0]))  # 1 for the shortest run: its excess over the floor is the factor
    above = y - floors[..., None]
    factors = (shape * above).sum(-1) / (shape**2).sum(-1)
    errors = ((above - factors[..., None] * shape) ** 2).sum(-1) / noise**2
    weights = np.exp(-(errors - errors.min()) / 2 - (np.log(exponents / _TYPICAL) / _SPREAD) ** 2 / 2)
    found = floors + factors * np.exp(-exponents * (math.log(wanted) - x[0]))
    order = np.argsort(found, axis=None)
    shares = np.cumsum(weights.ravel()[order])
    low, middle, high = (float(found.ravel()[order][np.searchsorted(shares, part * shares[-1])]) for part in _QUANTILES)
    return Forecast(middle, min(low, middle - noise), max(high, middle + noise))
