"""Reads shards into batches with tf.data, in an order that depends only on (seed, epoch) and can be entered at any example.

Epoch k reads copy k mod dupe_factor of the train split. Its shards are permuted by (seed, epoch) and cut into windows of
`cycle_length` shards. Within a window, the shards are interleaved and shuffled through a buffer seeded by (seed, epoch,
window). To enter at example i, complete windows are skipped by arithmetic on the counts in dataset.json, and at most one
window is read and discarded. So no reader state is ever saved. With R hosts, host r reads every R-th group, without overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.pipelines.dataset.manifest import records_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset

_COMPRESSION = {"none": "", "gzip": "GZIP"}
FOREVER = 1 << 40  # epochs, or batches
# Odd, so that no two windows share a random stream, and neighbouring seeds don't for a long time.
_STRIDE = 0x9E3779B97F4A7C15 - (1 << 64)


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


def _shard(paths: tf.Tensor, count: tf.Tensor | int, contract: PreparedDataset) -> tf.data.Dataset:
    """Return the records of one or more shards in order; reading fails if there are more or fewer than `count`.

    TensorFlow doesn't notice a file that was truncated between two records, nor many truncated gzip streams.
    """
    records = tf.data.TFRecordDataset(paths, _COMPRESSION[contract.compression])
    return records.apply(tf.data.experimental.assert_cardinality(count))


@dataclass(frozen=True)
class TrainReader:
    """One host's part of the train split as an endless, seekable stream of batches.

    Args:
        contract: the dataset.
        seed: seed of the order.
        cycle_length: shards per window.
        shuffle_buffer: examples in the shuffle buffer.
        host, hosts: index and number of the input pipelines.
    """

    contract: PreparedDataset
    seed: int
    cycle_length: int = 8
    shuffle_buffer: int = 10_000
    host: int = 0
    hosts: int = 1

    @cached_property
    def counts(self) -> np.ndarray:
        """Return the number of records of this host's shards, int64 [copies, groups]."""
        copies = range(self.contract.copies)
        return np.array([[records_of(shard) for shard in self._shards(copy)] for copy in copies], np.int64)

    def _shards(self, copy: int) -> list[dict]:
        return self.contract.shards("train", copy)[self.host :: self.hosts]

    @cached_property
    def _paths(self) -> np.ndarray:
        """Return the paths of the shards, [copies, groups]."""
        return np.array([[self.contract.path(s) for s in self._shards(copy)] for copy in range(self.contract.copies)])

    def windows(self, epoch) -> tf.Tensor:
        """Return the groups in each window of an epoch, int32 [windows, cycle_length]; the last window is padded with -1."""
        groups = self.counts.shape[1]
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(epoch, tf.int64)])
        order = tf.random.experimental.index_shuffle(tf.range(groups), seed, groups - 1)
        return tf.reshape(tf.pad(order, [[0, -groups % self.cycle_length]], constant_values=-1), [-1, self.cycle_length])

    def seek(self, example: int) -> tuple[int, int, int]:
        """Return the position of the host's example number `example`: (epoch, window, examples to skip in the window)."""
        per_copy = self.counts.sum(axis=1)
        rounds, left = divmod(example, int(per_copy.sum()))
        epoch = rounds * len(per_copy)
        while left >= per_copy[epoch % len(per_copy)]:
            left -= int(per_copy[epoch % len(per_copy)])
            epoch += 1
        for window, sizes in enumerate(self._window_sizes(epoch)):
            if left < sizes:
                return epoch, window, left
            left -= sizes
        raise AssertionError("the windows of an epoch hold all its examples")

    def _window_sizes(self, epoch: int) -> list[int]:
        counts = np.append(self.counts[epoch % len(self.counts)], 0)  # index -1: padding, no shard
        return [int(counts[row].sum()) for row in self.windows(epoch).numpy()]

    def shards_between(self, begin: int, end: int) -> Iterator[str]:
        """Return the shard files of the windows that examples [begin, end) of this host come from."""
        (epoch, window, _), last = self.seek(begin), self.seek(max(begin, end - 1))[:2]
        while (epoch, window) <= last:
            rows = self.windows(epoch).numpy()
            yield from (str(self._paths[epoch % len(self._paths), group]) for group in rows[window] if group >= 0)
            epoch, window = (epoch, window + 1) if window + 1 < len(rows) else (epoch + 1, 0)

    def records(self, begin: int = 0) -> tf.data.Dataset:
        """Return an endless dataset of serialized examples, from the host's example number `begin` on."""
        epoch, window, skip = self.seek(begin)
        first = self._windows(epoch, tf.range(window, self.windows(epoch).shape[0], dtype=tf.int64)).skip(skip)
        rest = tf.data.Dataset.range(epoch + 1, FOREVER).flat_map(lambda number: self._windows(number))
        return first.concatenate(rest)

    def _windows(self, epoch, chosen=None) -> tf.data.Dataset:
        """Return the records of an epoch, or of some of its windows."""
        rows = self.windows(epoch)
        chosen = tf.range(rows.shape[0], dtype=tf.int64) if chosen is None else chosen
        return tf.data.Dataset.from_tensor_slices(chosen).flat_map(lambda window: self._window(epoch, window, rows))

    def _window(self, epoch, window, rows) -> tf.data.Dataset:
        groups = tf.gather(rows, window)
        groups = tf.boolean_mask(groups, groups >= 0)
        copy = tf.cast(epoch, tf.int64) % len(self._paths)
        paths, counts = (tf.gather(tf.gather(tf.constant(of), copy), groups) for of in (self._paths, self.counts))
        shards = tf.data.Dataset.from_tensor_slices((paths, counts))
        records = shards.interleave(
            lambda path, count: _shard(path, count, self.contract),
            cycle_length=self.cycle_length,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        number = tf.cast(epoch, tf.int64) * rows.shape[0] + window
        stream = number * _STRIDE + tf.constant(self.seed, tf.int64)  # overflow is fine: any 64 bits are a seed
        return records.shuffle(self.shuffle_buffer, seed=stream, reshuffle_each_iteration=False)

    def batches(self, batch_size: int, begin: int = 0) -> tf.data.Dataset:
        """Return an endless, prefetched dataset of batches of parsed features, from the host's example number `begin` on."""
        batches = self.records(begin).batch(batch_size, drop_remainder=True)
        parsed = batches.map(lambda batch: parse(batch, self.contract), tf.data.AUTOTUNE, deterministic=True)
        return with_options(parsed.prefetch(tf.data.AUTOTUNE))


def eval_rows(contract: PreparedDataset, hosts: int = 1, limit: int = 0) -> list[int]:
    """Return the number of rows of the eval split that each host reads.

    limit: maximum number of examples over all hosts, 0 for all; of packed rows, as many as hold so many examples on average.
    """
    sizes = [sum(map(records_of, contract.shards("eval")[host::hosts])) for host in range(hosts)]
    limit = -(-limit * sum(sizes) // max(contract.eval_examples, 1))
    return [min(size, limit // hosts + (host < limit % hosts)) if limit else size for host, size in enumerate(sizes)]


def eval_steps(contract: PreparedDataset, batch_size: int, hosts: int = 1, limit: int = 0) -> int:
    """Return the number of batches of `batch_size` rows, across all hosts, that cover the eval split."""
    return max(-(-count // (batch_size // hosts)) for count in eval_rows(contract, hosts, limit))


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
    shards = contract.shards("eval")[host::hosts]
    paths = tf.constant([contract.path(shard) for shard in shards], tf.string)
    records = _shard(paths, sum(map(records_of, shards)), contract)
    weighted = records.take(eval_rows(contract, hosts, limit)[host]).map(lambda record: (record, 1.0))
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
