"""Reads shards into batches with tf.data, in the order of `example_order`, which can be entered at any step.

Each host reads its lanes of every batch: blocks of records, which it enters by the byte offsets in dataset.json. All
arithmetic is in the graph, since the hosts of a TPU slice run no Python. So no reader state is ever saved.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.pipelines.common.hashing import ODD
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.trainers.data import example_order
from clozemill.trainers.data.blocks import Blocks
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.prepared_dataset import PreparedDataset

FOREVER = 1 << 40  # epochs, or batches
_LANE_RECORDS = 32  # of a lane at a time: many times faster than single records
_in_graph = tf.autograph.experimental.do_not_convert  # AutoGraph would take a second to convert what it needn't


def _each(change: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[Any], Any]:
    """Return a function that changes a tensor, or every tensor of a dict."""
    return lambda parts: tf.nest.map_structure(change, parts)


def parse(records: tf.Tensor, contract: PreparedDataset) -> dict[str, tf.Tensor]:
    """Parse serialized records, string [B], into the features of the dataset: int32, weights float32.

    They are [B, S], [B, P] or [B]. Those of packed rows are [B, S], [B, P] or [B, E], with room for the most predictions and
    examples of any row: shapes are static, and a longer feature is an error.
    """
    spec: dict[str, Any] = {}
    for name, (dtype, length) in contract.features.items():
        if contract.packed and length != "max_seq_length":
            spec[name] = tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
        else:
            spec[name] = tf.io.FixedLenFeature([contract.sizes[length]] if length else [], dtype)
    parsed = tf.io.parse_example(records, spec)
    for name, (_, length) in contract.features.items():
        if isinstance(spec[name], tf.io.FixedLenSequenceFeature):  # padded to the longest of the batch
            missing = contract.sizes[length] - tf.shape(parsed[name])[1]
            parsed[name] = tf.ensure_shape(tf.pad(parsed[name], [[0, 0], [0, missing]]), [None, contract.sizes[length]])
    if contract.packed:
        _check_numbers(parsed["example_ids"], parsed["example_weights"])
    return {name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for name, value in parsed.items()}


def _check_numbers(ids_BS: tf.Tensor, weights_BE: tf.Tensor) -> None:
    """Fail unless each row numbers its examples 1, 2, …, in order: attention and positions would mix them up otherwise."""
    steps_BS = ids_BS[:, 1:] - ids_BS[:, :-1]
    in_order = tf.reduce_all((steps_BS == 0) | (steps_BS == 1) | (ids_BS[:, 1:] == 0), axis=1)
    counts_B = tf.math.count_nonzero(weights_BE, axis=1)  # 0 in a filler row
    complete = (tf.reduce_max(ids_BS, axis=1) == counts_B) & (ids_BS[:, 0] == tf.minimum(counts_B, 1))
    tf.debugging.Assert(tf.reduce_all(in_order & complete), ["example_ids are not consecutive"])


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


@dataclass(frozen=True)
class TrainReader:
    """One host's part of the train split as an endless stream of batches, which can be entered at any step.

    Args:
        contract: the dataset.
        seed: seed of the order.
        batch_size: records per batch, across all hosts.
        host, hosts: index and number of the input pipelines; `hosts` divides the batch size.
        first_row: records of the order that earlier phases have read.
        order_batch_size: records per batch of the order, which divides `batch_size` and `first_row`; 0: `batch_size`.
        keyed: add KEYS, which new masks are drawn from: a function of (seed, epoch, record), whatever the batches.
    """

    contract: PreparedDataset
    seed: int
    batch_size: int
    host: int = 0
    hosts: int = 1
    first_row: int = 0
    order_batch_size: int = 0
    keyed: bool = False

    @cached_property
    def blocks(self) -> Blocks:
        """Return the blocks of all copies."""
        return Blocks.of(self.contract, "train", range(self.contract.copies))

    @cached_property
    def order(self) -> ExampleOrder:
        size = self.order_batch_size or self.batch_size
        return ExampleOrder(self.blocks.counts, self.seed, size, self.contract.max_seq_length)

    def _entry(self, step: int) -> int:
        """Return the step of the order at which a step begins."""
        return (self.first_row + step * self.batch_size) // self.order.batch_size

    def shards_between(self, begin: int, end: int) -> Iterator[str]:
        """Yield the shard files that the host reads for steps [begin, end), lane by lane."""
        order, begin, end = self.order, self._entry(begin), self._entry(end)
        for lane, *_ in order.streams(self.host, self.hosts):
            left = (end - begin) * order.width
            for piece in order.pieces(lane, begin):
                if left <= 0:
                    break
                yield self.blocks.path(piece.epoch % self.contract.copies, piece.block)
                left -= len(piece.places)

    def records(self, step: int = 0) -> tf.data.Dataset:
        """Return an endless dataset of the host's serialized records, from a step on: vectors of those of a few batches.

        With `keyed`, of dicts of them and of their keys, int64.
        """
        order, streams = self.order, self.order.streams(self.host, self.hosts)
        entries = [order.enter(lane, self._entry(step)) for lane, *_ in streams]
        rows = np.array([(*one, *entry) for one, entry in zip(streams, entries, strict=True)], np.int64)
        lanes = tf.data.Dataset.from_tensor_slices(rows).interleave(
            _in_graph(self._lane),
            cycle_length=len(rows),
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        widths = rows[:, 2] - rows[:, 1]
        if len(set(widths)) == 1:
            joined = lanes.batch(len(rows))  # [lanes, batches, their part of a batch]
            return joined.map(_in_graph(_each(lambda parts: tf.reshape(tf.transpose(parts, [1, 0, 2]), [-1]))))
        # The host's part of a batch begins or ends within a lane: [[a b] [c] [d e]] -> [[a b] [c -] [d e]] -> [a b c d e].
        used = np.arange(widths.max()) < widths[:, None]

        def in_order(parts: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.boolean_mask(tf.transpose(parts, [1, 0, 2]), used, axis=1), [-1])

        shapes = tf.nest.map_structure(lambda spec: [None, None], lanes.element_spec)
        return lanes.padded_batch(len(rows), shapes).map(_in_graph(_each(in_order)))

    def _lane(self, row: tf.Tensor) -> tf.data.Dataset:
        """Return the records of one of `order.streams`, in matrices that hold its part of some batches."""
        lane, begin, end, first, done = tf.unstack(row)
        epochs, width = tf.data.Dataset.range(first, FOREVER), self.order.width
        records = epochs.flat_map(
            _in_graph(lambda epoch: self._pieces(lane, epoch, tf.where(epoch > first, tf.zeros_like(done), done)))
        )
        parts = records.rebatch(width * -(-_LANE_RECORDS // width))
        return parts.map(_in_graph(_each(lambda part: tf.reshape(part, [-1, width])[:, begin:end])))

    def _pieces(self, lane, epoch, done) -> tf.data.Dataset:
        """Return the records that a lane reads in an epoch, in vectors of some records of a block: ExampleOrder.pieces."""
        copy, (begin, end) = epoch % len(self.order.sizes), self._part(lane, epoch)
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

            return self.blocks.records(copy, block).map(_in_graph(permuted))

        return tf.data.Dataset.from_tensor_slices(pieces).flat_map(_in_graph(records))

    def _keys(self, epoch, numbers) -> tf.Tensor:
        """Return example_order.mask_keys, in a graph, as int64 [N]."""
        start = _mix(_mix(self._purpose(example_order.MASKS) + tf.cast(epoch, tf.uint64) * int(ODD)))
        return tf.bitcast(_mix(start + tf.cast(numbers + 1, tf.uint64) * int(ODD)), tf.int64)

    def _purpose(self, purpose: int) -> tf.Tensor:
        return tf.constant(example_order.purpose(self.seed, purpose)[0])

    def _epoch_start(self, epoch) -> tf.Tensor:
        """Return ExampleOrder.epoch_start, in a graph."""
        starts = tf.constant(np.cumsum(self.order.sizes) - self.order.sizes)
        copies = len(self.order.sizes)
        return epoch // copies * int(self.order.sizes.sum()) + tf.gather(starts, epoch % copies)

    def _part(self, lane, epoch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return ExampleOrder.part, in a graph."""
        size, width = self.order.batch_size, self.order.width

        def before(lane, record):
            return record // size * lane * width + tf.minimum(record % size, lane * width)

        starts = self._epoch_start(epoch), self._epoch_start(epoch + 1)
        begin, end = (before(each, starts[1]) - before(each, starts[0]) for each in (lane, lane + 1))
        return begin, end

    def batches(self, batch_size: int, step: int = 0) -> tf.data.Dataset:
        """Return an endless, prefetched dataset of batches of parsed features, from a step on.

        batch_size: records per element, of which several make the host's part of a batch if it has several replicas.
        """
        batches = self.records(step).rebatch(batch_size, drop_remainder=True)

        def parsed(batch) -> dict[str, tf.Tensor]:
            if not self.keyed:
                return parse(batch, self.contract)
            return parse(batch["records"], self.contract) | {KEYS: tf.bitcast(batch[KEYS], tf.int32)}

        features = batches.map(_in_graph(parsed), tf.data.AUTOTUNE, deterministic=True)
        return with_options(features.prefetch(tf.data.AUTOTUNE))


def eval_rows(contract: PreparedDataset, hosts: int = 1, limit: int = 0) -> list[int]:
    """Return the number of rows of the eval split that each host reads.

    limit: maximum number of examples over all hosts, 0 for all; of packed rows, as many as hold so many examples on average.
    """
    size = sum(map(records_of, contract.shards("eval")))
    size = min(size, -(-limit * size // max(contract.eval_examples, 1)) or size)
    return [(host + 1) * size // hosts - host * size // hosts for host in range(hosts)]


def eval_steps(contract: PreparedDataset, batch_size: int, hosts: int = 1, limit: int = 0) -> int:
    """Return the number of batches of `batch_size` rows, across all hosts, that cover the eval split."""
    return max(-(-count // (batch_size // hosts)) for count in eval_rows(contract, hosts, limit))


def _eval_records(contract: PreparedDataset, host: int, hosts: int, limit: int) -> tf.data.Dataset:
    """Return a host's part of the eval split: consecutive records in the order of the shards."""
    blocks, counts = Blocks.of(contract, "eval", range(1)), eval_rows(contract, hosts, limit)
    ends = np.cumsum(blocks.counts[0])
    starts, begin = ends - blocks.counts[0], sum(counts[:host])
    low, high = np.maximum(begin - starts, 0), np.minimum(begin + counts[host] - starts, blocks.counts[0])
    (touched,) = np.nonzero(low < high)
    pieces = tf.data.Dataset.from_tensor_slices((touched, low[touched], high[touched]))
    copy = tf.constant(0, tf.int64)

    def records(block, low, high) -> tf.data.Dataset:
        return blocks.records(copy, block).map(_in_graph(lambda rows: rows[low:high]))

    return pieces.flat_map(_in_graph(records)).unbatch()


def _filler(contract: PreparedDataset) -> bytes:
    """Return a row that only fills up a batch: padding with a single token, so that attention has a key."""
    example = tf.train.Example()
    for name, (dtype, length) in contract.features.items():
        feature = example.features.feature[name]
        values = feature.float_list.value if dtype == "float32" else feature.int64_list.value
        values.extend([0] * contract.sizes[length])
    example.features.feature["input_mask"].int64_list.value[0] = 1
    return example.SerializeToString()


def eval_batches(contract: PreparedDataset, batch_size: int, host: int = 0, hosts: int = 1, limit: int = 0) -> tf.data.Dataset:
    """Return a host's part of the eval split in batches of one size: every example once, then endless filler rows.

    `example_weights`, float32 [B] or, of packed rows, [B, E], is 1 for an example and 0 for others. `limit` is as in
    `eval_rows`.
    """
    records = _eval_records(contract, host, hosts, limit)
    weighted = records.map(lambda record: (record, 1.0))
    fillers = tf.data.Dataset.from_tensors((_filler(contract), 0.0)).repeat()
    batches = weighted.concatenate(fillers).batch(batch_size, drop_remainder=True)
    # A packed row has the weights of its examples, and a filler row no example.
    parsed = batches.map(lambda batch, weights: {"example_weights": weights} | parse(batch, contract), tf.data.AUTOTUNE)
    return with_options(parsed.prefetch(tf.data.AUTOTUNE))


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Make a dataset deterministic and infinite, and keep a strategy from sharding it again.

    Otherwise several workers would ask each other before each step whether data is left, with batches of unknown size.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
