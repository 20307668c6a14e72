"""Batches rows in memory by similar length, in an order that depends only on (seed, step).

The cost of a batch depends on its longest row. So the examples of an epoch are shuffled, sorted by length within pools, and
the batches of all pools are shuffled again. Every epoch holds each row once. A run can be entered at any step without
reading what came before. Every host has all rows, and takes its part of each batch; the batch length is the same on all.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from clozemill.trainers.data.index_shuffle import shuffled
from clozemill.trainers.data.lengths import padded_length

POOL = 64  # batches sorted together: a larger pool means less padding, but less random batches


class LengthOrder:
    """The order of rows in an endless stream of batches of similar length.

    Args:
        lengths: lengths of the rows, int [N].
        batch_size: rows per batch, across all hosts.
        seed: seed of the order.
        by_length: sort by length; otherwise the rows are only shuffled.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, by_length: bool = True) -> None:
        self.lengths, self.batch_size, self.seed, self.by_length = lengths, batch_size, seed, by_length
        self._epoch = lru_cache(4)(self._epoch_order)  # a batch may span the end of one epoch and the start of the next

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, int64 [N], aligned to the batches of the stream."""
        size, count = self.batch_size, len(self.lengths)
        drawn = shuffled(count, self.seed, epoch, 0)
        if not self.by_length:
            return drawn
        begun = -epoch * count % size  # rows that complete the last batch of the epoch before
        full = max(0, count - begun) // size
        body = drawn[begun : begun + full * size]
        pools = (body[at : at + POOL * size] for at in range(0, len(body), POOL * size))
        sorted_rows = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = np.concatenate([body[:0], *sorted_rows]).reshape(full, size)[shuffled(full, self.seed, epoch, 1)]
        return np.concatenate([drawn[:begun], batches.reshape(-1), drawn[begun + full * size :]])

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at some places of the stream, int64."""
        epochs, within = np.divmod(places, len(self.lengths))
        found = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            found[chosen] = self._epoch(int(epoch))[within[chosen]]
        return found

    def batch(self, number: int) -> np.ndarray:
        """Return the rows of a batch."""
        return self.rows(np.arange(number * self.batch_size, (number + 1) * self.batch_size))


@dataclass(frozen=True)
class RowReader:
    """One host's part of the rows, as an endless, seekable stream of batches.

    Args:
        features: the rows, arrays [N, S, ...] or [N, ...].
        seed: seed of the order.
        name: the file, for messages.
        batch_size: rows per batch, across all hosts.
        static: lengths that batches are padded to, or None for S only.
        host, hosts: index and number of the input pipelines.
    """

    features: dict[str, np.ndarray]
    seed: int
    name: str
    batch_size: int
    static: np.ndarray | None = None
    host: int = 0
    hosts: int = 1

    def shards_between(self, begin: int, end: int) -> list[str]:
        """Return the file: all rows come from one."""
        return [self.name]

    @cached_property
    def order(self) -> LengthOrder:
        return LengthOrder(self.features["input_mask"].sum(axis=1), self.batch_size, self.seed, self.static is not None)

    def length(self, batch: int) -> int:
        """Return the length that a batch is padded to, on all hosts."""
        longest = self.features["input_mask"].shape[1]
        return longest if self.static is None else padded_length(self.order.lengths[self.order.batch(batch)], self.static)

    def batches(self, size: int, step: int = 0) -> "RowBatches":
        """Return an endless stream of batches of `size` rows of features, from a step on."""
        return RowBatches(self, size, step)


@dataclass(frozen=True)
class RowBatches:
    """A host's batches of `size` rows in memory from a step on, without end.

    Columns [size, S, ...] are cut to the length of the batch. Without `static`, rows aren't sorted and all shapes are static;
    `graph_reader` then computes the order in the graph, since the hosts of a TPU slice run no Python.
    """

    reader: RowReader
    size: int
    step: int = 0

    @property
    def begin(self) -> int:
        """Return the host's first row, of all of its rows."""
        return self.step * self.reader.batch_size // self.reader.hosts

    def parts(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield (rows, padded length) of each batch."""
        reader = self.reader
        for first in itertools.count(self.begin, self.size):
            places = (first + np.arange(self.size)) * reader.hosts + reader.host
            yield reader.order.rows(places), reader.length(int(places[0]) // reader.batch_size)
