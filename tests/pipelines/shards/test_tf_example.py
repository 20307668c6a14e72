"""Encoding and decoding of examples, compared with a protocol-buffer writer and TensorFlow; every kind of wrong record."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples.columns import FEATURES
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
        if name == "masked_lm_weights":
            value = wrap(2, wrap(1, struct.pack(f"<{len(example[name])}f", *example[name])))
        else:
            value = wrap(3, wrap(1, b"".join(map(varint, example[name]))))
        entries += wrap(1, wrap(1, name.encode()) + wrap(2, value))
    return wrap(1, entries)


def records(columns: examples_columns.Columns) -> list[bytes]:
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
    for (count, length, predictions), top in zip(SIZES, (100, 30522, 1 << 21, 1 << 20), strict=True):
        columns = make(count, length, predictions, top)
        expected = []
        for row in rows(columns):
            feature = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
                if name == "masked_lm_weights"
                else tf.train.Feature(int64_list=tf.train.Int64List(value=values))
                for name, values in row.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            expected.append(example.SerializeToString(deterministic=True))
        assert records(columns) == expected


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
