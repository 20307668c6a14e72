"""Reads a host's lanes of one dataset in a graph, as `example_order` says: chunks of records, from any step on.

All arithmetic is in the graph, since the hosts of a TPU slice run no Python.
"""

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
from clozemill.trainers.data.lanes import DatasetLanes, Merger
from clozemill.trainers.data.mixing import Arithmetic

FOREVER = 1 << 40  # epochs, or batches
_BUFFER = 1 << 18  # bytes, as in tf.data.TFRecordDataset
in_graph = tf.autograph.experimental.do_not_convert  # AutoGraph would take a second to convert what it needn't


def _mix(values: tf.Tensor) -> tf.Tensor:
    """Return hashing.mix of uint64 values, in a graph."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64))) * tf.constant(factor, tf.uint64)
    return values ^ tf.bitwise.right_shift(values, tf.constant(31, tf.uint64))


@tf.function(input_signature=[tf.TensorSpec([], kind) for kind in (tf.uint64, tf.int64, tf.int64, tf.int64)])
def permutation_in_graph(purpose, epoch, block, count):
    """Return example_order.permutation of the stream of a block: int64 [count]."""
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


def _ranks(values: tf.Tensor) -> tf.Tensor:
    order = tf.argsort(tf.reshape(values, [-1]), stable=True)
    return tf.reshape(tf.math.invert_permutation(order), values.shape)


def graph_arithmetic() -> Arithmetic:
    """Return the arithmetic of one or several graphs."""
    return Arithmetic(_Tables().take, tf.minimum, tf.where, _ranks)


def _copied(rows: tf.Tensor) -> tf.Tensor:
    """Return a copy of a vector: to join slices of others, TensorFlow would log an error for each, and copy them anyway."""
    return tf.gather(rows, tf.range(tf.size(rows)))


def _records_from(path: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """Return the records of a file from a byte offset on: tf.data.TFRecordDataset, which has no such argument."""
    found = tf.raw_ops.TFRecordDatasetV2(
        filenames=path, compression_type="", buffer_size=_BUFFER, byte_offsets=offset, metadata=""
    )
    return tf.data.experimental.from_variant(found, tf.TensorSpec([], tf.string))


@dataclass(frozen=True)
class GraphBlocks:
    """Reads blocks in a graph."""

    blocks: Blocks

    @cached_property
    def _tensors(self) -> dict[str, tf.Tensor]:
        names = ("files", "shards", "offsets", "counts", "last")
        with tf.init_scope():  # captured by the graphs that use them, instead of copied into each
            return {name: tf.constant(getattr(self.blocks, name)) for name in names}

    def sizes(self, copy) -> tf.Tensor:
        """Return the number of records of all blocks of a copy, int64 [blocks]."""
        return self._tensors["counts"][copy]

    def records(self, copy, block) -> tf.data.Dataset:
        """Return a dataset with one element, the records of a block, string [count].

        Reading fails if a shard has more or fewer records than the manifest says: TensorFlow doesn't notice a file that was
        truncated between two records, nor many truncated gzip streams.
        """
        about = self._tensors
        path, count = tf.gather(about["files"], about["shards"][copy, block])[None], about["counts"][copy, block]
        offset = None if self.blocks.compression != "none" else about["offsets"][copy, block][None]
        found = _records_from(path, offset) if offset is not None else tf.data.TFRecordDataset(path, "GZIP")
        found = found.take(tf.where(about["last"][copy, block], tf.constant(-1, tf.int64), count))
        return found.apply(tf.data.experimental.assert_cardinality(count)).batch(count)


@dataclass(frozen=True)
class GraphLanes:
    """One host's lanes of a dataset as an endless stream of chunks, the records of some batches."""

    lanes: DatasetLanes

    @cached_property
    def _blocks(self) -> GraphBlocks:
        return GraphBlocks(self.lanes.blocks)

    @cached_property
    def _on(self) -> Arithmetic:
        return graph_arithmetic()

    def chunks(self, step: int, batches: int) -> tf.data.Dataset:
        """Return an endless dataset of vectors: the serialized records of `batches` batches at a time, lane by lane.

        They include slots of the lanes that are not the host's. With `keyed`, dicts of records and keys, int64.

        step: the batch of the order at which the first chunk begins.
        """
        sizes = self.lanes.chunk_sizes(step, batches)
        entries = np.array([(lane, *self.lanes.order.enter(lane, step)) for lane in self.lanes.lanes], np.int64)
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
        order, blocks = self.lanes.order, self._blocks
        copy, (begin, end) = epoch % len(order.sizes), order.part(lane, epoch, self._on)
        drawn = permutation_in_graph(self._purpose(example_order.BLOCKS), epoch, 0, self.lanes.blocks.counts.shape[1])
        counts = blocks.sizes(copy)
        sizes = tf.gather(counts, drawn)
        starts = tf.cumsum(sizes, exclusive=True)
        low, high = tf.maximum(begin + done - starts, 0), tf.minimum(end - starts, sizes)
        pieces = tuple(tf.boolean_mask(tf.cast(column, tf.int64), low < high) for column in (drawn, low, high))
        firsts = tf.cumsum(counts, exclusive=True)
        purpose = self._purpose(example_order.RECORDS)

        def records(block, low, high) -> tf.data.Dataset:
            def permuted(rows) -> Any:  # after reading: a wrong count in dataset.json must not decide what is allocated
                places = permutation_in_graph(purpose, epoch, block, tf.size(rows, tf.int64))[low:high]
                found = tf.gather(rows, places)
                return {"records": found, KEYS: self._keys(epoch, firsts[block] + places)} if self.lanes.keyed else found

            return blocks.records(copy, block).map(in_graph(permuted))

        return tf.data.Dataset.from_tensor_slices(pieces).flat_map(in_graph(records))

    def _keys(self, epoch, numbers) -> tf.Tensor:
        """Return example_order.mask_keys, in a graph, as int64 [N]."""
        start = _mix(_mix(self._purpose(example_order.MASKS) + tf.cast(epoch, tf.uint64) * int(ODD)))
        return tf.bitcast(_mix(start + tf.cast(numbers + 1, tf.uint64) * int(ODD)), tf.int64)

    def _purpose(self, purpose: int) -> tf.Tensor:
        return tf.constant(example_order.purpose(self.lanes.order.seed, purpose)[0])


def merged(merge: Merger, chunks: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Return a dataset of the host's records from the chunks of each dataset, batch by batch."""
    with tf.init_scope():
        constant = merge.places(tf.constant(0, tf.int64)) if merge.constant else None

    def joined(number: tf.Tensor, parts: Sequence[Any]) -> Any:
        places = tf.reshape(constant if constant is not None else merge.places(number), [-1])
        return tf.nest.map_structure(lambda *each: tf.gather(tf.concat(each, axis=0), places), *parts)

    return tf.data.Dataset.zip((tf.data.Dataset.range(FOREVER), tuple(chunks))).map(in_graph(joined))
