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
import tensorflow as tf

from clozemill.trainers.data.input_pipeline import with_options
from clozemill.trainers.data.lanes import FOREVER
from clozemill.trainers.data.lengths import padded_length

POOL = 64  # batches sorted together: a larger pool means less padding, but less random batches


def _shuffled_within(places: tf.Tensor, seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Return the elements at `places` of a permutation of range(count), one permutation per seed, int64 [3]."""
    # Like tf.random.experimental.index_shuffle, which takes one seed of two words for all places.
    return tf.raw_ops.RandomIndexShuffle(index=places, seed=seeds, max_index=tf.constant(count - 1, tf.int64))


def _shuffled(count: int, *seed: int) -> np.ndarray:
    """Return a permutation of range(count), int64, that depends only on three words of seed."""
    places = tf.range(count, dtype=tf.int64)
    return _shuffled_within(places, tf.constant(seed, tf.int64), count).numpy() if count else np.zeros(0, np.int64)


class LengthOrder:
    """The order of rows in an endless stream of batches of similar length.

    Args:
        lengths: lengths of the rows, int [N].
        batch_size: rows per batch, across all hosts.
        seed: seed of the order.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self._epoch = lru_cache(4)(self._epoch_order)  # a batch may span the end of one epoch and the start of the next

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, int64 [N], aligned to the batches of the stream."""
        size, count = self.batch_size, len(self.lengths)
        drawn = _shuffled(count, self.seed, epoch, 0)
        begun = -epoch * count % size  # rows that complete the last batch of the epoch before
        full = max(0, count - begun) // size
        body = drawn[begun : begun + full * size]
        pools = (body[at : at + POOL * size] for at in range(0, len(body), POOL * size))
        sorted_rows = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = np.concatenate([body[:0], *sorted_rows]).reshape(full, size)[_shuffled(full, self.seed, epoch, 1)]
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
        return LengthOrder(self.features["input_mask"].sum(axis=1), self.batch_size, self.seed)

    def length(self, batch: int) -> int:
        """Return the length that a batch is padded to, on all hosts."""
        longest = self.features["input_mask"].shape[1]
        return longest if self.static is None else padded_length(self.order.lengths[self.order.batch(batch)], self.static)

    def _parts(self, size: int, begin: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield (rows, padded length) of each batch of this host, from its example number `begin` on."""
        for first in itertools.count(begin, size):
            places = (first + np.arange(size)) * self.hosts + self.host
            yield self.order.rows(places), self.length(int(places[0]) // self.batch_size)

    def batches(self, size: int, step: int = 0) -> tf.data.Dataset:
        """Return an endless dataset of batches of `size` rows of features, from a step on.

        Columns [size, S, ...] are cut to the length of the batch. Without `static`, rows aren't sorted and all shapes are
        static; the order is then computed in the graph, since the hosts of a TPU slice run no Python.
        """
        begin = step * self.batch_size // self.hosts
        columns = {name: tf.constant(value) for name, value in self.features.items()}
        count, whole = self.features["input_mask"].shape

        def gathered(rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            found = {name: tf.gather(value, rows) for name, value in columns.items()}
            return {name: value[:, :length] if value.shape[1:2] == [whole] else value for name, value in found.items()}

        def drawn(numbers: tf.Tensor) -> dict[str, tf.Tensor]:
            epochs, within = numbers // count, numbers % count
            seeds = tf.stack([tf.zeros_like(epochs) + self.seed, epochs, tf.zeros_like(epochs)], axis=1)
            return gathered(_shuffled_within(within, seeds, count), whole)

        if self.static is None:
            numbers = tf.data.Dataset.range(begin, FOREVER).batch(size, drop_remainder=True)
            batches = numbers.map(lambda numbers: drawn(tf.ensure_shape(numbers, [size]) * self.hosts + self.host))
        else:
            spec = tf.TensorSpec([size], tf.int64), tf.TensorSpec([], tf.int64)
            batches = tf.data.Dataset.from_generator(lambda: self._parts(size, begin), output_signature=spec).map(gathered)
        return with_options(batches.prefetch(tf.data.AUTOTUNE))
