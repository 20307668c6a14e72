"""Which dataset each row of a mixture comes from: a periodic sequence with exact shares, as even as possible.

Weights are rounded to numbers of rows in WINDOW. The sequence repeats with a period that divides WINDOW, so any WINDOW rows in
succession, wherever they begin, have exactly these numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

WINDOW = 10_000  # rows


@dataclass(frozen=True)
class Arithmetic:
    """Where arithmetic on tables is done: in numpy, or in a graph.

    Args:
        take: returns the entries of a vector at some places.
        minimum: returns the smaller values.
        where: returns values of the first array where a condition holds, else of the second.
        ranks: returns the place of each value of a matrix in the sorted order of all, of equal ones in their order.
    """

    take: Callable[[np.ndarray, Any], Any]
    minimum: Callable[[Any, Any], Any]
    where: Callable[[Any, Any, Any], Any]
    ranks: Callable[[Any], Any]


def _ranks(values: np.ndarray) -> np.ndarray:
    order = np.argsort(values, axis=None, kind="stable")
    return np.argsort(order, kind="stable").reshape(values.shape)


NUMPY = Arithmetic(lambda table, places: table[places], np.minimum, np.where, _ranks)


def counts_of(weights: Sequence[float]) -> tuple[int, ...]:
    """Return how many of WINDOW rows each dataset has: weights, which sum to 1, rounded by their largest remainders."""
    exact = [round(weight * WINDOW, 6) for weight in weights]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda each: (counts[each] - exact[each], each))
    for each in by_remainder[: WINDOW - sum(counts)]:
        counts[each] += 1
    return tuple(counts)


@lru_cache
def turns(counts: tuple[int, ...]) -> np.ndarray:
    """Return the number of the dataset of each row of a period, int64 [period].

    Row k of a dataset with the share s may come from place floor(k / s) on, and has to come before place ceil((k + 1) / s). Of
    the datasets that may come, that which has to come soonest does: so all of them are on time (earliest deadline first), and
    the number of rows of a dataset in any beginning of the sequence is less than 1 away from its share.
    """
    divisor = math.gcd(*counts)
    wanted = [count // divisor for count in counts]
    period, done, found = sum(wanted), [0] * len(wanted), []
    for place in range(period):
        ready = [each for each, count in enumerate(wanted) if done[each] * period // count <= place]
        chosen = min(ready, key=lambda each: -(-(done[each] + 1) * period // wanted[each]))
        done[chosen] += 1
        found.append(chosen)
    return np.array(found, np.int64)


@dataclass(frozen=True, eq=False)
class Share:
    """The rows of a run that come from one dataset.

    Args:
        mine: of each row of a period, whether it does, bool [period].
    """

    mine: np.ndarray

    @property
    def period(self) -> int:
        return len(self.mine)

    @cached_property
    def places(self) -> np.ndarray:
        """Return the dataset's rows in a period, int64 [count]."""
        return np.flatnonzero(self.mine)

    @cached_property
    def _before(self) -> np.ndarray:
        """Return how many of its rows come before each row of a period, int64 [period]."""
        return np.cumsum(self.mine, dtype=np.int64) - self.mine

    def before(self, row: Any, on: Arithmetic = NUMPY) -> Any:
        """Return how many of the run's first `row` rows come from the dataset."""
        return row // self.period * len(self.places) + on.take(self._before, row % self.period)

    def row(self, record: Any, on: Arithmetic = NUMPY) -> Any:
        """Return which row of the run is number `record` of the dataset."""
        return record // len(self.places) * self.period + on.take(self.places, record % len(self.places))


ALL = Share(np.ones(1, bool))  # the only dataset


def shares(counts: tuple[int, ...]) -> list[Share]:
    """Return the share of each dataset of a mixture."""
    return [Share(turns(counts) == each) for each in range(len(counts))] if len(counts) > 1 else [ALL]
