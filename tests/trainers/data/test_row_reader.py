"""Batches of similar length: every row once per epoch, in an order that can be entered at any step by any host."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.trainers.data.lengths import padded_length, static_lengths
from clozemill.trainers.data.row_reader import POOL, LengthOrder, RowReader
from tests.trainers.readers import READINGS, Reading, on_both

WIDE = 64


def rows(count: int, seed: int = 0, width: int = WIDE) -> dict[str, np.ndarray]:
    """Return rows whose first id is their number, with lengths typical of sentences."""
    lengths = np.clip(np.random.default_rng(seed).lognormal(2.5, 0.5, count).astype(int), 2, width)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int32)
    ids = np.where(mask, 1 + np.arange(count, dtype=np.int32)[:, None], 0)
    return {"input_ids": ids, "input_mask": mask, "weights": np.arange(count, dtype=np.float32)}


@on_both
@pytest.mark.parametrize("static", [None, static_lengths(WIDE, False)], ids=["one length", "similar lengths"])
def test_every_epoch_is_a_permutation_and_reading_can_start_anywhere(static: np.ndarray | None, reading: Reading) -> None:
    def numbers(reader: RowReader, size: int, batches: int, step: int = 0) -> list[list[int]]:
        """Return the rows of some batches."""
        return [(batch["input_ids"][:, 0] - 1).tolist() for batch in reading.first(reader.batches(size, step), batches)]

    features = rows(10)
    one = RowReader(features, 5, "x", 4, static)
    order = list(itertools.chain(*numbers(one, 4, 8)))
    epochs = [tuple(order[begin : begin + 10]) for begin in (0, 10, 20)]
    assert len(set(epochs)) == 3 and all(sorted(epoch) == list(range(10)) for epoch in epochs)
    for step in (1, 2, 5):  # the third batch contains the end of one epoch and the start of the next
        assert list(itertools.chain(*numbers(one, 4, 2, step))) == order[4 * step : 4 * step + 8]
    hosts = [numbers(RowReader(features, 5, "x", 4, static, host, 2), 2, 8) for host in (0, 1)]
    assert [row for pair in zip(*(itertools.chain(*found) for found in hosts), strict=True) for row in pair] == order
    assert order != list(itertools.chain(*numbers(RowReader(features, 6, "x", 4, static), 4, 8)))
    per_device = numbers(one, 2, 16)  # the rows of a batch, split over two devices
    assert list(itertools.chain(*per_device)) == order


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_every_row_occurs_once_per_epoch(count: int, size: int, seed: int, epoch: int) -> None:
    order = LengthOrder(np.arange(count) % 7, size, seed)
    found = order.rows(np.arange(epoch * count, (epoch + 1) * count))
    assert sorted(found.tolist()) == list(range(count))
    batch = (epoch * count) // size
    assert (order.batch(batch) == order.rows(np.arange(batch * size, (batch + 1) * size))).all()


@on_both
def test_batches_are_trimmed_to_their_padded_length(reading: Reading) -> None:
    """Each to a static length that fits, equal on all hosts, without losing values; at most a third of the padding is left."""
    features, static = rows(1000), static_lengths(WIDE, False)
    readers = [RowReader(features, 1, "x", 32, static, host, 2) for host in (0, 1)]
    used = total = fixed = 0
    for number, parts in enumerate(zip(*(reading.first(reader.batches(16), 31) for reader in readers), strict=True)):
        length = readers[0].length(number)
        for part in parts:
            ids, mask = part["input_ids"], part["input_mask"]
            assert ids.shape == mask.shape == (16, length) and length in static and part["weights"].shape == (16,)
            expected = features["input_mask"][ids[:, 0] - 1]
            assert (mask == expected[:, :length]).all() and mask.sum() == expected.sum()
            used, total, fixed = used + mask.sum(), total + mask.size, fixed + len(mask) * WIDE
    assert total - used < 0.15 * (fixed - used)


@pytest.mark.parametrize("static", [None, static_lengths(WIDE, False)], ids=["one length", "similar lengths"])
def test_both_readers_return_the_same_batches(static: np.ndarray | None) -> None:
    """Across the ends of epochs, bit for bit, with the same types."""
    reader = RowReader(rows(50), 3, "x", 16, static, 1, 2)
    graph, numpy = (each.first(reader.batches(8, 2), 12) for each in READINGS.values())
    for one, other in zip(graph, numpy, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert other[name].dtype == values.dtype
            np.testing.assert_array_equal(other[name], values)


def test_batches_of_an_epoch_are_not_sorted() -> None:
    features = rows(32 * POOL * 2)
    order = LengthOrder(features["input_mask"].sum(axis=1), 32, 0)
    means = np.array([order.lengths[order.batch(number)].mean() for number in range(2 * POOL)])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.35 and means.std() > 3


@pytest.mark.parametrize(
    ("longest", "compiled", "lengths"),
    [
        (30, False, [4, 8, 12, 16, 20, 24, 28, 30]),
        (80, False, [*range(4, 64, 4), 64, 72, 80]),
        (128, True, [16, 24, 32, 48, 64, 96, 128]),
        (100, True, [16, 24, 32, 48, 64, 96, 100]),
        (8, True, [8]),
        (2, False, [2]),
    ],
)
def test_literal_static_lengths(longest: int, compiled: bool, lengths: list[int]) -> None:
    assert static_lengths(longest, compiled).tolist() == lengths


def test_the_shortest_length_that_fits_a_batch() -> None:
    static = np.array([4, 8, 30])
    found = [padded_length(np.array(lengths, int), static) for lengths in ([], [0], [3, 4], [5], [8, 1], [9], [30])]
    assert found == [4, 4, 4, 8, 8, 30, 30]
