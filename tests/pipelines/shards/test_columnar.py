"""Many examples at once, as arrays: what `tf_example.decode` returns, or None for records in any other form."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns, PackedColumns
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shards.columnar import decode_examples, decode_rows
from tests.pipelines.shards.test_tf_example import (
    PACKED,
    SIZES,
    broken_records,
    make,
    packed,
    packed_rows,
    records,
    rows,
    serialize,
    varint,
    wrap,
)

PACKING = {"max_examples": 40, "max_predictions": 200}


def assert_equal(found: Columns | PackedColumns | None, expected: Columns | PackedColumns) -> None:
    """Check that arrays have these values, in 32 bits. Floats are compared by their bits, since they may be NaN."""
    assert found is not None
    for name, values in vars(expected).items():
        own = getattr(found, name)
        assert own.dtype.itemsize == 4 or name in ("examples", "predictions")
        assert own.shape == values.shape and np.asarray(own, values.dtype).tobytes() == values.tobytes(), name


@pytest.mark.parametrize("top", [2, 128, 129, 1 << 14, (1 << 14) + 1, 30522, 1 << 21])
@pytest.mark.parametrize(("count", "length", "predictions"), SIZES)
def test_examples_are_what_protocol_buffers_read(count: int, length: int, predictions: int, top: int) -> None:
    """Ids of 1, 2 and 3 bytes, and only of 3 bytes, with lengths of 1 and 2 bytes."""
    for low in (0, top - 1):
        found = records(make(count, length, predictions, top, seed=top, low=low))
        assert_equal(decode_examples(found, length, predictions), tf_example.decode(found, length, predictions))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from([0, 1, 127, 128, 16383, 16384, 2**21 - 1]), min_size=9, max_size=9), min_size=1))
def test_sizes_mixed_within_and_between_rows(ids: list[list[int]]) -> None:
    columns = make(len(ids), 9, 3, 2)
    columns.input_ids = np.array(ids, np.int64)
    assert_equal(decode_examples(records(columns), 9, 3), tf_example.decode(records(columns), 9, 3))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=8), st.sampled_from([100, 1 << 21]))
def test_packed_rows_are_what_protocol_buffers_read(counts: list[tuple[int, int]], top: int) -> None:
    found = records(packed(*map(list, zip(*counts, strict=True)), 200, top))
    assert_equal(decode_rows(found, 200, PACKING), tf_example.decode_packed(found, 200, PACKING))


@pytest.mark.parametrize("case", broken_records())
def test_wrong_records_are_left_to_protocol_buffers(case: str) -> None:
    good, (record, _) = records(make(2, 8, 2, 50)), broken_records()[case]
    assert decode_examples(good, 8, 2) is not None
    for group in ([record], [*good, record], [record, *good]):
        assert decode_examples(group, 8, 2) is None


def test_other_forms_of_an_example_are_left_to_protocol_buffers() -> None:
    """Features in another order, numbers that aren't packed, ids of more than 21 bits, a list without values."""
    (row,) = rows(make(1, 8, 2, 50))
    entries = [serialize({name: row[name]})[2:] for name in FEATURES]
    apart = b"".join(b"\x08" + varint(number) for number in row["input_ids"])
    loose = wrap(1, wrap(1, b"input_ids") + wrap(2, wrap(3, apart)))
    others = [each for name, each in zip(FEATURES, entries, strict=True) if name != "input_ids"]
    for record in (
        wrap(1, b"".join(entries)),
        wrap(1, b"".join([loose, *others])),
        serialize(row | {"input_ids": [1 << 21] * 8}),
    ):
        assert len(tf_example.decode([record], 8, 2)) == 1 and decode_examples([record], 8, 2) is None
    assert decode_examples([], 8, 2) is None
    without = records(packed(*PACKED, 8, 50))  # one of these rows has no predictions
    assert len(tf_example.decode_packed(without, 8, PACKING)) == 5 and decode_rows(without, 8, PACKING) is None


@pytest.mark.parametrize(
    "change",
    [{"example_ids": [1] * 7}, {"next_sentence_labels": [0, 1, 1]}, {"masked_lm_weights": [1.0]}, {"cls_positions": [0] * 5}],
)
def test_rows_of_wrong_lengths(change: dict[str, list]) -> None:
    (row,) = packed_rows(packed([2], [3], 8, 50))
    sizes = {"max_examples": 4, "max_predictions": 3}
    assert decode_rows([serialize(row)], 8, sizes) is not None
    assert decode_rows([serialize(row), serialize(row | change)], 8, sizes) is None


def test_packed_rows_with_more_than_the_dataset_allows() -> None:
    (row,) = packed_rows(packed([5], [3], 8, 50))
    assert decode_rows([serialize(row)], 8, {"max_examples": 4, "max_predictions": 3}) is None


def decoded(record: bytes) -> Columns | None:
    """Return a record as protocol buffers read it, None if they can't."""
    try:
        return tf_example.decode([record], 8, 2)
    except tfrecord.CorruptRecord:
        return None


def test_every_flipped_bit_and_every_truncation() -> None:
    """Never a wrong value: nothing, or what protocol buffers read."""
    good, other = records(make(2, 8, 2, 20000))
    damaged = [good[:size] for size in range(len(good))] + [good + b"\0", good + other]
    for bit in range(8 * len(good)):
        damaged.append(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
    agreed = 0
    for record in damaged:
        found, expected = decode_examples([other, record], 8, 2), decoded(record)
        if found is not None:
            assert expected is not None, record
            assert_equal(found.take(slice(1, 2)), expected)
            agreed += 1
    assert agreed > 100  # a changed id, for example


def test_floats_keep_their_bits() -> None:
    (row,) = rows(make(1, 8, 2, 50))
    row["masked_lm_weights"] = [struct.unpack("<f", b"\x01\0\xc0\x7f")[0], -0.0]
    found = decode_examples([serialize(row)], 8, 2)
    assert found is not None and found.masked_lm_weights.view(np.uint32).tolist() == [[0x7FC00001, 0x80000000]]


def test_all_features_are_read() -> None:
    found = decode_examples(records(make(3, 8, 2, 50)), 8, 2)
    assert found is not None and vars(found).keys() == FEATURES.keys()
    in_rows = decode_rows(records(packed([2], [3], 8, 50)), 8, PACKING)
    assert in_rows is not None and vars(in_rows).keys() == PACKED_FEATURES.keys() | {"examples", "predictions"}
