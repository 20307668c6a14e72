"""Encoding and decoding of examples, compared with a protocol-buffer writer and TensorFlow; every kind of wrong record."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, PackedColumns
from clozemill.pipelines.shards import tf_example, tfrecord


def make(count: int, length: int, predictions: int, top: int, seed: int = 0, low: int = 0) -> examples_columns.Columns:
    """Columns of random content: ids in [low, top), and labels and masks of 0 and 1."""
    rng = np.random.default_rng(seed)
    return examples_columns.Columns(
        rng.integers(low, top, (count, length), np.int32),
        rng.integers(0, 2, (count, length), np.uint8),
        rng.integers(0, 2, (count, length), np.int32),
        rng.integers(0, length, (count, predictions), np.int32),
        rng.integers(low, top, (count, predictions), np.int32),
        rng.integers(0, 2, (count, predictions)).astype(np.float32),
        rng.integers(0, 2, count, np.int8),
    )


def rows(columns: examples_columns.Columns) -> list[dict[str, list]]:
    """Each example as name -> values."""
    return [{name: np.atleast_1d(getattr(columns, name)[row]).tolist() for name in FEATURES} for row in range(len(columns))]


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def wrap(tag: int, data: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + varint(len(data)) + data


def serialize(example: dict[str, list]) -> bytes:
    """tf.train.Example, field by field: the map's entries sorted by key, the lists packed."""
    entries = b""
    for name in sorted(example):
        if not example[name]:
            value = wrap(2 if name.endswith("_weights") else 3, b"")
        elif name.endswith("_weights"):
            value = wrap(2, wrap(1, struct.pack(f"<{len(example[name])}f", *example[name])))
        else:
            value = wrap(3, wrap(1, b"".join(map(varint, example[name]))))
        entries += wrap(1, wrap(1, name.encode()) + wrap(2, value))
    return wrap(1, entries)


def packed(examples: list[int], predictions: list[int], length: int, top: int) -> PackedColumns:
    """Rows with these numbers of examples and predictions, of random content: ids below `top`."""
    rng, many, masked = np.random.default_rng(top), sum(examples), sum(predictions)
    return PackedColumns(
        *(rng.integers(0, high, (len(examples), length), np.int32) for high in (top, 2, 2, 9)),
        rng.integers(0, length, many),
        rng.integers(0, 2, many, np.int8),
        rng.random(many, np.float32),
        rng.integers(0, length, masked),
        rng.integers(0, top, masked, np.int32),
        rng.random(masked, np.float32),
        np.array(examples, np.int64),
        np.array(predictions, np.int64),
    )


def packed_rows(columns: PackedColumns) -> list[dict[str, list]]:
    """Each row as name -> values."""
    found = []
    for row in range(len(columns)):
        found.append({})
        for name in PACKED_FEATURES:
            values, counts = getattr(columns, name), columns.counts_of(name)
            if counts is not None:
                values = np.split(values, np.cumsum(counts)[:-1])
            found[-1][name] = values[row].tolist()
    return found


def records(columns: examples_columns.Columns | PackedColumns) -> list[bytes]:
    return list(tfrecord.read(tf_example.encode(columns).tobytes()))


SIZES = [(3, 8, 1), (40, 128, 20), (5, 512, 77), (2, 2048, 300)]


@pytest.mark.parametrize("top", [2, 128, 129, 1 << 14, (1 << 14) + 1, 30522, 1 << 20, 1 << 21])
@pytest.mark.parametrize(("count", "length", "predictions"), SIZES)
def test_encode_equals_a_simple_writer(count: int, length: int, predictions: int, top: int):
    """Ids of 1, 2 and 3 bytes, and only of 3 bytes, with lengths of 1 and 2 bytes."""
    for low in (0, top - 1):
        columns = make(count, length, predictions, top, seed=top, low=low)
        assert records(columns) == [serialize(row) for row in rows(columns)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from([0, 1, 127, 128, 16383, 16384, 2**21 - 1]), min_size=9, max_size=9), max_size=5),
    st.sampled_from([np.int32, np.int64, np.uint32]),
)
def test_encode_mixes_sizes_within_and_between_rows(ids: list[list[int]], dtype: type):
    columns = make(len(ids), 9, 3, 2)
    columns.input_ids = np.array(ids, dtype).reshape(len(ids), 9)
    assert records(columns) == [serialize(row) for row in rows(columns)]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.int16, 32767), (np.uint16, 65535)])
def test_encode_accepts_small_integer_types(dtype: type, top: int):
    columns = make(20, 16, 4, 2)
    columns.input_ids = np.random.default_rng(1).integers(0, top, (20, 16), dtype, endpoint=True)
    columns.input_ids[0, 0] = top
    assert records(columns) == [serialize(row) for row in rows(columns)]


# Rows without predictions, with one, and with so many that lengths have two bytes.
PACKED = ([1, 3, 2, 1, 40], [1, 0, 150, 77, 200])


@pytest.mark.parametrize("top", [2, 129, 30522, 1 << 21])
@pytest.mark.parametrize("length", [8, 300])
def test_encode_of_packed_rows_equals_a_simple_writer(top: int, length: int):
    columns = packed(*PACKED, length, top)
    assert records(columns) == [serialize(row) for row in packed_rows(columns)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8), st.sampled_from([100, 1 << 21]))
def test_packed_rows_are_decoded_to_what_was_encoded(counts: list[tuple[int, int]], top: int):
    columns = packed(*map(list, zip(*counts, strict=True)), 200, top)
    back = tf_example.decode_packed(records(columns), 200, {"max_examples": 5, "max_predictions": 5})
    for name, (dtype, _) in PACKED_FEATURES.items():
        assert getattr(back, name).dtype == dtype and np.array_equal(getattr(back, name), getattr(columns, name))
    assert np.array_equal(back.examples, columns.examples) and np.array_equal(back.predictions, columns.predictions)


def test_packed_rows_are_read_in_batches():
    columns = packed(*PACKED, 8, 50)
    data, packing = tf_example.encode(columns).tobytes(), {"max_examples": 40, "max_predictions": 200}
    parts = list(tf_example.read_packed(data, "none", 8, packing, batch=2))
    assert [part.examples.tolist() for part in parts] == [[1, 3], [2, 1], [40]]
    assert np.array_equal(np.concatenate([part.masked_lm_ids for part in parts]), columns.masked_lm_ids)
    nothing = tf_example.decode_packed([], 8, packing)
    assert nothing.input_ids.shape == (0, 8) and nothing.cls_positions.shape == nothing.examples.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"example_ids": [1] * 7}, "example_ids has 7 int64 values, not 8"),
        ({"next_sentence_labels": [0, 1, 1]}, "next_sentence_labels has 3 int64 values, not 2"),
        ({"masked_lm_weights": [1.0]}, "masked_lm_weights has 1 float32 values, not 3"),
        ({"cls_positions": [0] * 5}, "cls_positions has 5 int64 values, more than max_examples, 4"),
        ({"more": [1]}, "its features are .*'more'"),
    ],
)
def test_decode_names_the_wrong_row(change: dict[str, list], message: str):
    row = packed_rows(packed([2], [3], 8, 50))[0]
    with pytest.raises(ValueError, match=f"^record 8: {message}"):
        tf_example.decode_packed([serialize(row), serialize(row | change)], 8, {"max_examples": 4, "max_predictions": 3}, 7)


def test_encode_of_nothing():
    data = tf_example.encode(make(0, 8, 2, 5))
    assert (data.dtype, data.shape) == (np.uint8, (0,))


def test_decode_returns_what_was_encoded():
    columns = make(50, 32, 5, 40000)
    back = tf_example.decode(records(columns), 32, 5)
    for name, (dtype, _) in FEATURES.items():
        assert getattr(back, name).dtype == dtype
        assert np.array_equal(getattr(back, name), getattr(columns, name))
    assert back.next_sentence_labels.shape == (50,)


def test_decode_of_nothing_has_the_shapes():
    empty = tf_example.decode([], 8, 2)
    shapes = [getattr(empty, name).shape for name in FEATURES]
    assert shapes == [(0, 8)] * 3 + [(0, 2)] * 3 + [(0,)]


def broken_records() -> dict[str, tuple[bytes, str]]:
    """Return a wrong record and the error of decode."""
    row = rows(make(1, 8, 2, 50))[0]
    lacking = {name: values for name, values in row.items() if name != "segment_ids"}
    value = wrap(1, wrap(1, b"input_ids") + wrap(2, wrap(2, wrap(1, bytes(32)))))  # floats; the last of two entries counts
    inner = serialize(row)[len(wrap(1, serialize(row))) - len(serialize(row)) :]
    return {
        "rubbish": (b"\xff\xff", "not a tf.train.Example"),
        "nothing": (b"", "its features are"),
        "feature missing": (serialize(lacking), "its features are"),
        "feature too many": (serialize(row | {"more": [1]}), "its features are"),
        "too short": (serialize(row | {"input_ids": row["input_ids"][:-1]}), "input_ids has 7 int64 values, not 8"),
        "too long": (serialize(row | {"masked_lm_ids": [1, 2, 3]}), "masked_lm_ids has 3 int64 values, not 2"),
        "two labels": (serialize(row | {"next_sentence_labels": [0, 1]}), "next_sentence_labels has 2 int64 values, not 1"),
        "another type": (wrap(1, inner + value), "input_ids has 0 int64 values, not 8"),
    }


@pytest.mark.parametrize("case", broken_records())
def test_decode_names_the_wrong_record(case: str):
    record, message = broken_records()[case]
    good = records(make(1, 8, 2, 50))
    with pytest.raises(ValueError, match=f"^record 1: {message}"):
        tf_example.decode([*good, record], 8, 2)


def test_encode_equals_tensorflow():
    tf = pytest.importorskip("tensorflow")

    def serialized(row: dict[str, list]) -> bytes:
        feature = {
            name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
            if name.endswith("_weights")
            else tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            for name, values in row.items()
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        return example.SerializeToString(deterministic=True)

    for (count, length, predictions), top in zip(SIZES, (100, 30522, 1 << 21, 1 << 20), strict=True):
        columns, in_rows = make(count, length, predictions, top), packed(*PACKED, length, top)
        assert records(columns) == [serialized(row) for row in rows(columns)]
        assert records(in_rows) == [serialized(row) for row in packed_rows(in_rows)]


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_tensorflow_parses_a_shard_with_the_reference_specification(tmp_path, compression: str):
    """With the specification in google-research/bert's input function."""
    tf = pytest.importorskip("tensorflow")
    columns, path = make(30, 128, 20, 30522), tmp_path / "shard.tfrecord"
    data = tf_example.encode(columns).tobytes()
    if compression:
        data = gzip.compress(data)
    path.write_bytes(data)
    specification = {
        "input_ids": tf.io.FixedLenFeature([128], tf.int64),
        "input_mask": tf.io.FixedLenFeature([128], tf.int64),
        "segment_ids": tf.io.FixedLenFeature([128], tf.int64),
        "masked_lm_positions": tf.io.FixedLenFeature([20], tf.int64),
        "masked_lm_ids": tf.io.FixedLenFeature([20], tf.int64),
        "masked_lm_weights": tf.io.FixedLenFeature([20], tf.float32),
        "next_sentence_labels": tf.io.FixedLenFeature([1], tf.int64),
    }
    dataset = tf.data.TFRecordDataset(str(path), compression_type=compression).batch(30)
    parsed = tf.io.parse_example(next(iter(dataset)), specification)
    for name in FEATURES:
        expected = getattr(columns, name).reshape(30, -1)
        assert np.array_equal(parsed[name].numpy(), expected), name
