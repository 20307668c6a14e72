"""Reads batches with tf.data. All arithmetic is in the graph, since the hosts of a TPU slice run no Python."""

from functools import singledispatch
from typing import Any

import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.trainers.data.graph_lanes import FOREVER, GraphBlocks, GraphLanes, graph_arithmetic, in_graph, merged
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainBatches, TrainReader
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.data.row_reader import RowBatches

_LANE_RECORDS = 32  # of a lane at a time: many times faster than single records


@singledispatch
def dataset_of(batches: Any) -> tf.data.Dataset:
    """Return a description of batches (TrainBatches, EvalBatches, RowBatches) as an endless, prefetched dataset of them."""
    raise TypeError(f"{type(batches).__name__} doesn't describe batches")


@dataset_of.register
def _given(batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches


def parse(records: tf.Tensor, contract: PreparedDataset) -> dict[str, tf.Tensor]:
    """Parse serialized records, string [B], into the features of the dataset, as of EvalBatches.

    Shapes are static, and a longer feature is an error.
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


def train_records(reader: TrainReader, step: int = 0) -> tf.data.Dataset:
    """Return an endless dataset of a host's serialized records, from a step on: vectors of those of a few batches.

    With `keyed`, of dicts of them and of their keys, int64.
    """
    batches = -(-_LANE_RECORDS // min(part.order.width for part in reader.read_parts))
    merge = reader.merger(step, batches, graph_arithmetic())
    return merged(merge, [GraphLanes(part).chunks(merge.step, merge.batches) for part in merge.readers])


@dataset_of.register
def _train(batches: TrainBatches) -> tf.data.Dataset:
    reader, contract = batches.reader, batches.reader.mixture.contract
    records = train_records(reader, batches.step).rebatch(batches.size, drop_remainder=True)

    def parsed(batch) -> dict[str, tf.Tensor]:
        if not reader.keyed:
            return parse(batch, contract)
        return parse(batch["records"], contract) | {KEYS: tf.bitcast(batch[KEYS], tf.int32)}

    features = records.map(in_graph(parsed), tf.data.AUTOTUNE, deterministic=True)
    return _with_options(features.prefetch(tf.data.AUTOTUNE))


def _eval_records(batches: EvalBatches) -> tf.data.Dataset:
    """Return a host's part of the eval split: consecutive records in the order of the shards."""
    blocks, pieces = batches.pieces()
    reader, copy = GraphBlocks(blocks), tf.constant(0, tf.int64)

    def records(block, low, high) -> tf.data.Dataset:
        return reader.records(copy, block).map(in_graph(lambda rows: rows[low:high]))

    return tf.data.Dataset.from_tensor_slices(tuple(pieces.T)).flat_map(in_graph(records)).unbatch()


def _filler(contract: PreparedDataset) -> bytes:
    """Return a row that only fills up a batch."""
    example = tf.train.Example()
    for name, (dtype, length) in contract.features.items():
        feature = example.features.feature[name]
        values = feature.float_list.value if dtype == "float32" else feature.int64_list.value
        values.extend([0] * contract.sizes[length])
    example.features.feature["input_mask"].int64_list.value[0] = 1
    return example.SerializeToString()


@dataset_of.register
def _eval(batches: EvalBatches) -> tf.data.Dataset:
    contract = batches.contract
    weighted = _eval_records(batches).map(lambda record: (record, 1.0))
    fillers = tf.data.Dataset.from_tensors((_filler(contract), 0.0)).repeat()
    rows = weighted.concatenate(fillers).batch(batches.size, drop_remainder=True)
    # A packed row has the weights of its examples, and a filler row no example.
    parsed = rows.map(lambda batch, weights: {"example_weights": weights} | parse(batch, contract), tf.data.AUTOTUNE)
    return _with_options(parsed.prefetch(tf.data.AUTOTUNE))


def _shuffled_within(places: tf.Tensor, seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Return index_shuffle.shuffled(count, *seed) at `places`, one seed per place, int64 [3]."""
    return tf.raw_ops.RandomIndexShuffle(index=places, seed=seeds, max_index=tf.constant(count - 1, tf.int64))


@dataset_of.register
def _rows(batches: RowBatches) -> tf.data.Dataset:
    reader, size = batches.reader, batches.size
    columns = {name: tf.constant(value) for name, value in reader.features.items()}
    count, whole = reader.features["input_mask"].shape

    def gathered(rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        found = {name: tf.gather(value, rows) for name, value in columns.items()}
        return {name: value[:, :length] if value.shape[1:2] == [whole] else value for name, value in found.items()}

    def drawn(numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        epochs, within = numbers // count, numbers % count
        seeds = tf.stack([tf.zeros_like(epochs) + reader.seed, epochs, tf.zeros_like(epochs)], axis=1)
        return gathered(_shuffled_within(within, seeds, count), whole)

    if reader.static is None:
        numbers = tf.data.Dataset.range(batches.begin, FOREVER).batch(size, drop_remainder=True)
        found = numbers.map(lambda numbers: drawn(tf.ensure_shape(numbers, [size]) * reader.hosts + reader.host))
    else:
        spec = tf.TensorSpec([size], tf.int64), tf.TensorSpec([], tf.int64)
        found = tf.data.Dataset.from_generator(batches.parts, output_signature=spec).map(gathered)
    return _with_options(found.prefetch(tf.data.AUTOTUNE))


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Make a dataset deterministic and infinite, and keep a strategy from sharding it again.

    Otherwise several workers would ask each other before each step whether data is left, with batches of unknown size.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
