"""Reads shards into batches with tf.data, in the order of `example_order`, which can be entered at any step.

Each host reads its lanes of every batch: blocks of records, which it enters by the byte offsets in dataset.json. All
arithmetic is in the graph, since the hosts of a TPU slice run no Python. So no reader state is ever saved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.trainers.data import mixing
from clozemill.trainers.data.blocks import Blocks
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.lanes import FOREVER, DatasetLanes, Merger, in_graph
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.prepared_dataset import PreparedDataset

_LANE_RECORDS = 32  # of a lane at a time: many times faster than single records


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


@dataclass(frozen=True)
class TrainReader:
    """One host's part of the train split as an endless stream of batches, which can be entered at any step.

    Args:
        data: the dataset, or a mixture of several.
        seed: seed of the order.
        batch_size: rows per batch, across all hosts.
        host, hosts: index and number of the input pipelines; `hosts` divides the batch size.
        first_row: rows of the order that earlier phases have read.
        order_batch_size: rows per batch of the order, which divides `batch_size` and `first_row`; 0: `batch_size`.
        keyed: add KEYS, which new masks are drawn from: a function of (seed, epoch, record), whatever the batches.
        earlier: records of each dataset that phases with another share of it have read, as in ExampleOrder; (): none.
    """

    data: PreparedDataset | Mixture
    seed: int
    batch_size: int
    host: int = 0
    hosts: int = 1
    first_row: int = 0
    order_batch_size: int = 0
    keyed: bool = False
    earlier: tuple[int | None, ...] = ()

    @cached_property
    def mixture(self) -> Mixture:
        return self.data if isinstance(self.data, Mixture) else Mixture((self.data,))

    @cached_property
    def parts(self) -> list[DatasetLanes]:
        """Return the reader of each dataset."""
        found, count = [], len(self.mixture.datasets)
        earlier = self.earlier or (None,) * count
        size, length = self.order_batch_size or self.batch_size, self.mixture.contract.max_seq_length
        for dataset, share, before in zip(self.mixture.datasets, mixing.shares(self.mixture.counts), earlier, strict=True):
            blocks = Blocks.of(dataset, "train", range(dataset.copies))
            order = ExampleOrder(blocks.counts, self.seed, size, length, share, before, count)
            found.append(DatasetLanes(blocks, order, self.host, self.hosts, self.keyed))
        return found

    def _entry(self, step: int) -> int:
        """Return the step of the order at which a step begins."""
        return (self.first_row + step * self.batch_size) // self.parts[0].order.batch_size

    def shards_between(self, begin: int, end: int) -> Iterator[str]:
        """Yield the shard files that the host reads for steps [begin, end), dataset by dataset and lane by lane."""
        for part in self.parts:
            yield from part.shards_between(self._entry(begin), self._entry(end))

    def records(self, step: int = 0) -> tf.data.Dataset:
        """Return an endless dataset of the host's serialized records, from a step on: vectors of those of a few batches.

        With `keyed`, of dicts of them and of their keys, int64.
        """
        used = np.array([bool(part.lanes) for part in self.parts])
        read = [part for part in self.parts if part.lanes]
        entry, batches = self._entry(step), -(-_LANE_RECORDS // min(part.order.width for part in read))
        turns = np.where(used, np.cumsum(used) - 1, len(read))[mixing.turns(self.mixture.counts)]
        merge = Merger(read, turns, entry, batches)
        chunks = tuple(part.chunks(entry, batches) for part in read)
        numbered = tf.data.Dataset.zip((tf.data.Dataset.range(FOREVER), chunks))
        return numbered.map(in_graph(merge))

    def batches(self, batch_size: int, step: int = 0) -> tf.data.Dataset:
        """Return an endless, prefetched dataset of batches of parsed features, from a step on.

        batch_size: records per element, of which several make the host's part of a batch if it has several replicas.
        """
        batches, contract = self.records(step).rebatch(batch_size, drop_remainder=True), self.mixture.contract

        def parsed(batch) -> dict[str, tf.Tensor]:
            if not self.keyed:
                return parse(batch, contract)
            return parse(batch["records"], contract) | {KEYS: tf.bitcast(batch[KEYS], tf.int32)}

        features = batches.map(in_graph(parsed), tf.data.AUTOTUNE, deterministic=True)
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
        return blocks.records(copy, block).map(in_graph(lambda rows: rows[low:high]))

    return pieces.flat_map(in_graph(records)).unbatch()


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
