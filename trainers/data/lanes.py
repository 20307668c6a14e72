"""Reads a host's lanes of one dataset in a graph, as `example_order` says: chunks of records, from any step on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.pipelines.common.hashing import ODD
from clozemill.trainers.data import example_order
from clozemill.trainers.data.blocks import Blocks
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.mixing import Arithmetic

FOREVER = 1 << 40  # epochs, or batches
in_graph = tf.autograph.experimental.do_not_convert  # AutoGraph would take a second to convert what it needn't


def _mix(values: tf.Tensor) -> tf.Tensor:
    """Return hashing.mix of uint64 values, in a graph."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64))) * tf.constant(factor, tf.uint64)
    return values ^ tf.bitwise.right_shift(values, tf.constant(31, tf.uint64))


@tf.function(input_signature=[tf.TensorSpec([], kind) for kind in (tf.uint64, tf.int64, tf.int64, tf.int64)])
def permutation(purpose, epoch, block, count):
    """Return example_order.permutation of the stream of a block, in a graph: int64 [count]."""
    epoch, block = tf.cast(epoch, tf.uint64), tf.cast(block, tf.uint64)
    start = _mix(_mix(purpose + epoch * int(ODD)) + block * int(ODD))
    keys = _mix(start + tf.cast(tf.range(1, count + 1), tf.uint64) * int(ODD))
    return tf.cast(tf.argsort(tf.bitcast(keys, tf.int64), stable=True), tf.int64)


class _Tables:
    """Takes entries of numpy's tables in graphs, which capture them instead of containing copies."""

    def __init__(self) -> None:
        self._constants: dict[int, tuple[np.ndarray, tf.Tensor]] = {}  # with the array, so that its id stays its own

    def take(self, table: np.ndarray, places: tf.Tensor) -> tf.Tensor:
        if id(table) not in self._constants:
            with tf.init_scope():
                self._constants[id(table)] = table, tf.constant(table)
        return tf.gather(self._constants[id(table)][1], places)


def graph_arithmetic() -> Arithmetic:
    """Return the arithmetic of one or several graphs."""
    return Arithmetic(_Tables().take, tf.minimum)


def _copied(rows: tf.Tensor) -> tf.Tensor:
    """Return a copy of a vector: to join slices of others, TensorFlow would log an error for each, and copy them anyway."""
    return tf.gather(rows, tf.range(tf.size(rows)))


@dataclass(frozen=True)
class DatasetLanes:
    """One host's lanes of a dataset as an endless stream of chunks, the records of some batches.

    Args:
        blocks: of all copies of its train split.
        order: of its records.
        host, hosts: index and number of the input pipelines.
        keyed: add KEYS, from which masks are drawn.
    """

    blocks: Blocks
    order: ExampleOrder
    host: int
    hosts: int
    keyed: bool = False

    @cached_property
    def lanes(self) -> list[int]:
        """Return the lanes that make the host's slots of each batch; none if no row of the dataset comes to these."""
        return [lane for lane, *_ in self.order.streams(self.host, self.hosts)]

    @cached_property
    def _graph(self) -> Arithmetic:
        return graph_arithmetic()

    def shards_between(self, begin: int, end: int) -> list[str]:
        """Return the shard files that batches [begin, end) of the order come from, lane by lane."""
        found = []
        for lane in self.lanes:
            left = int(self.order.done(lane, end) - self.order.done(lane, begin))
            pieces = self.order.pieces(lane, begin)
            while left > 0:
                piece = next(pieces)
                found.append(self.blocks.path(piece.epoch % len(self.order.sizes), piece.block))
                left -= len(piece.places)
        return found

    def chunks(self, step: int, batches: int) -> tf.data.Dataset:
        """Return an endless dataset of vectors: the serialized records of `batches` batches at a time, lane by lane.

        They include slots of the lanes that are not the host's. With `keyed`, dicts of records and keys, int64.

        step: the batch of the order at which the first chunk begins.
        """
        order = self.order
        edges = step + batches * np.arange(order.round // np.gcd(order.round, batches) + 1)
        sizes = np.array([np.diff(order.done(lane, edges)) for lane in self.lanes], np.int64)  # [lanes, chunks of a round]
        entries = np.array([(lane, *order.enter(lane, step)) for lane in self.lanes], np.int64)
        lanes = tf.data.Dataset.from_tensor_slices((entries, sizes)).interleave(
            in_graph(self._lane),
            cycle_length=len(entries),
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return lanes.rebatch(sizes.sum(axis=0))

    def _lane(self, entry: tf.Tensor, sizes: tf.Tensor) -> tf.data.Dataset:
        """Return the records of a lane in vectors of these sizes, which repeat. entry: (lane, epoch, records of it done)."""
        lane, first, done = tf.unstack(entry)
        epochs = tf.data.Dataset.range(first, FOREVER)
        records = epochs.flat_map(
            in_graph(lambda epoch: self._pieces(lane, epoch, tf.where(epoch > first, tf.zeros_like(done), done)))
        )
        return records.rebatch(sizes).map(in_graph(lambda rows: tf.nest.map_structure(_copied, rows)))

    def _pieces(self, lane, epoch, done) -> tf.data.Dataset:
        """Return the records that a lane reads in an epoch, in vectors of some records of a block: ExampleOrder.pieces."""
        copy, (begin, end) = epoch % len(self.order.sizes), self.order.part(lane, epoch, self._graph)
        order = permutation(self._purpose(example_order.BLOCKS), epoch, 0, self.blocks.counts.shape[1])
        counts = self.blocks.sizes(copy)
        sizes = tf.gather(counts, order)
        starts = tf.cumsum(sizes, exclusive=True)
        low, high = tf.maximum(begin + done - starts, 0), tf.minimum(end - starts, sizes)
        pieces = tuple(tf.boolean_mask(tf.cast(column, tf.int64), low < high) for column in (order, low, high))
        firsts = tf.cumsum(counts, exclusive=True)

        def records(block, low, high) -> tf.data.Dataset:
            def permuted(rows) -> Any:  # after reading: a wrong count in dataset.json must not decide what is allocated
                places = permutation(self._purpose(example_order.RECORDS), epoch, block, tf.size(rows, tf.int64))[low:high]
                found = tf.gather(rows, places)
                return {"records": found, KEYS: self._keys(epoch, firsts[block] + places)} if self.keyed else found

            return self.blocks.records(copy, block).map(in_graph(permuted))

        return tf.data.Dataset.from_tensor_slices(pieces).flat_map(in_graph(records))

    def _keys(self, epoch, numbers) -> tf.Tensor:
        """Return example_order.mask_keys, in a graph, as int64 [N]."""
        start = _mix(_mix(self._purpose(example_order.MASKS) + tf.cast(epoch, tf.uint64) * int(ODD)))
        return tf.bitcast(_mix(start + tf.cast(numbers + 1, tf.uint64) * int(ODD)), tf.int64)

    def _purpose(self, purpose: int) -> tf.Tensor:
        return tf.constant(example_order.purpose(self.order.seed, purpose)[0])


@dataclass(frozen=True)
class Merger:
    """Puts the chunks of a host's datasets into the order of the batches, in a graph.

    Args:
        readers: the datasets that the host reads.
        turns: the dataset of each row of a period, as an index of `readers`; len(readers) for others.
        step: the batch of the order at which the first chunk begins.
        batches: batches of a chunk.
    """

    readers: Sequence[DatasetLanes]
    turns: np.ndarray
    step: int
    batches: int

    def __call__(self, number: tf.Tensor, chunks: Sequence[Any]) -> Any:
        """Return the host's records of chunk `number`, batch by batch; chunks: of each reader."""
        places = self._constant if self._constant is not None else self._places(number)
        return tf.nest.map_structure(lambda *parts: tf.gather(tf.concat(parts, axis=0), places), *chunks)

    @cached_property
    def _constant(self) -> tf.Tensor | None:
        """Return the places of every chunk, if they are the same."""
        size = self.readers[0].order.batch_size
        if self.batches * size % len(self.turns):
            return None
        with tf.init_scope():
            return self._places(tf.constant(0, tf.int64))

    def _places(self, number: tf.Tensor) -> tf.Tensor:
        """Return where in the joined chunks the host's records are, int64 [batches * its slots].

        Chunks contain whole lanes: the rows of all slots are sorted by dataset and lane, as they come, then the host's chosen.
        """
        size, (host, hosts) = self.readers[0].order.batch_size, (self.readers[0].host, self.readers[0].hosts)
        lanes = np.zeros((len(self.readers) + 1, size), np.int64)  # of each slot, by dataset
        lanes[:] = unread = example_order.MAX_LANES
        for row, reader in zip(lanes, self.readers, strict=False):
            width = reader.order.width
            for lane in reader.lanes:
                row[lane * width : (lane + 1) * width] = lane
        slots = np.flatnonzero((lanes < unread).any(axis=0))
        rows = (self.step + number * self.batches + np.arange(self.batches)[:, None]) * size + slots
        readers = tf.gather(self.turns, rows % len(self.turns))
        lane = tf.gather(lanes[:, slots].reshape(-1), readers * len(slots) + np.arange(len(slots)))
        keys = tf.where(lane < unread, readers * unread + lane, len(lanes) * unread)
        come = tf.math.invert_permutation(tf.argsort(tf.reshape(keys, [-1]), stable=True))
        mine = (slots >= host * size // hosts) & (slots < (host + 1) * size // hosts)
        return tf.reshape(tf.boolean_mask(tf.reshape(come, [self.batches, len(slots)]), mine, axis=1), [-1])
