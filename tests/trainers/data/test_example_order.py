"""The order of the train examples by itself: complete epochs, any number of hosts, any step to enter at."""

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.trainers.data import example_order
from clozemill.trainers.data.example_order import BLOCKS, RECORDS, ExampleOrder, number_of_lanes, permutation, stream

COUNTS = st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=1, max_size=3).filter(
    lambda rows: all(sum(row) for row in rows)
)
SIZES = st.sampled_from([(1, 1), (4, 2), (6, 3), (12, 4), (12, 6), (16, 1), (48, 3)])  # of a batch, and its hosts


def batches(order: ExampleOrder, step: int, steps: int, hosts: int) -> list[list[tuple]]:
    """Return the (copy, block, place) of every record of some batches, as several hosts read them."""
    found: list[list[tuple]] = [[] for _ in range(steps)]
    for host in range(hosts):
        for lane, begin, end in order.streams(host, hosts):
            records = chain.from_iterable(
                ((piece.epoch, piece.block, int(place)) for place in piece.places) for piece in order.pieces(lane, step)
            )
            mine = list(islice(records, steps * order.width))
            for number in range(steps):
                found[number] += mine[number * order.width :][begin:end]
    return found


@pytest.fixture(autouse=True)
def small_blocks_have_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny datasets of these tests have several lanes."""
    monkeypatch.setattr(example_order, "ROUNDS", 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(COUNTS, st.integers(0, 2**63 - 1), SIZES)
def test_every_epoch_has_every_record_once(counts: list[list[int]], seed: int, sizes: tuple[int, int]) -> None:
    """For four epochs, whatever the batch size: epoch e is records [epoch_start(e), epoch_start(e + 1)) of the run."""
    size, hosts = sizes
    order = ExampleOrder(np.array(counts), seed, size)
    read = list(chain(*batches(order, 0, -(-order.epoch_start(4) // size), hosts)))
    for epoch in range(4):
        begin, end = order.epoch_start(epoch), order.epoch_start(epoch + 1)
        expected = [(epoch, block, place) for block, count in enumerate(counts[epoch % len(counts)]) for place in range(count)]
        assert sorted(read[begin:end]) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(COUNTS, st.integers(0, 2**63 - 1), SIZES, st.integers(0, 40))
def test_hosts_and_entries_do_not_change_a_batch(counts: list[list[int]], seed: int, sizes: tuple[int, int], step: int) -> None:
    size, hosts = sizes
    order = ExampleOrder(np.array(counts), seed, size)
    whole = batches(order, 0, step + 3, 1)
    assert batches(order, step, 3, hosts) == whole[step:]
    assert all(len(batch) == size for batch in whole)


def test_sixty_four_hosts() -> None:
    """Each reads a lane of its own; together they read every block once, and the same records as one host."""
    order = ExampleOrder(np.full((1, 640), 256), 3, 128)
    assert order.lanes == 64 and order.streams(63, 64) == [(63, 0, 2)]
    one = batches(order, 11, 2, 1)
    assert batches(order, 11, 2, 64) == one and len(set(chain(*one))) == 256
    read = [piece.block for lane in range(64) for piece in islice(order.pieces(lane), 10)]
    assert sorted(read) == list(range(640))


@pytest.mark.parametrize(
    ("batch_size", "hosts", "host", "expected"),
    [
        (8, 1, 0, [(0, 0, 2), (1, 0, 2), (2, 0, 2), (3, 0, 2)]),
        (8, 2, 1, [(2, 0, 2), (3, 0, 2)]),
        (8, 8, 5, [(2, 1, 2)]),  # half of a lane: the other half is read and dropped
        (12, 3, 1, [(1, 1, 3), (2, 0, 2)]),  # no lane is read twice
        (12, 2, 1, [(2, 0, 3), (3, 0, 3)]),
    ],
)
def test_literal_streams(batch_size: int, hosts: int, host: int, expected: list[tuple]) -> None:
    order = ExampleOrder(np.full((1, 4), 9), 0, batch_size)
    assert order.lanes == 4 and order.streams(host, hosts) == expected


def test_literal_numbers_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_order, "ROUNDS", 8)
    assert number_of_lanes(256, 10**6, 256) == 64
    assert number_of_lanes(48, 10**6, 256) == 16
    assert number_of_lanes(33, 10**6, 256) == 1
    assert number_of_lanes(256, 20_000, 256) == 8  # 9.8 blocks for a lane
    assert number_of_lanes(256, 400, 256) == 1
    assert number_of_lanes(256, 10**8, 50_000) == 1  # whole shards: they must fit into memory
    assert number_of_lanes(256, 0, 0) == 1
    assert number_of_lanes(256, 10**6, 256, 2048) == 64
    assert number_of_lanes(256, 10**6, 256, 8192) == 16  # 4,096 records of 40 kB: 170 MB
    assert number_of_lanes(256, 10**6, 256, 65536) == 2


def test_literal_permutations() -> None:
    """The order is a promise: it must not change between versions."""
    assert permutation(8, stream(7, 0, BLOCKS)).tolist() == [2, 3, 6, 7, 5, 4, 1, 0]
    assert permutation(8, stream(7, 1, RECORDS, 3)).tolist() == [0, 6, 1, 3, 5, 2, 7, 4]
    assert int(stream((1 << 63) - 1, 1 << 35, RECORDS, 1 << 40)[0]) == 5541298911780599150


def test_permutations_are_uniform() -> None:
    """Each of five places is first about equally often: 200 of 1,000 epochs each, standard deviation 13."""
    firsts = np.bincount([permutation(5, stream(1, epoch, BLOCKS))[0] for epoch in range(1000)], minlength=5)
    assert abs(firsts - 200).max() < 4 * 13


def test_seeds_epochs_and_blocks_have_orders_of_their_own() -> None:
    """Adjacent seeds, distant seeds, and seeds with equal lower halves; three blocks of nine records in two epochs."""
    counts = np.full((1, 3), 9)
    seeds = (0, 1, 2, 7, 7 + (1 << 32), 1 << 40, (1 << 63) - 1)
    orders = [tuple(chain(*batches(ExampleOrder(counts, seed, 9), 0, 3, 1))) for seed in seeds]
    assert len(set(orders)) == len(seeds) and len({tuple(sorted(order)) for order in orders}) == 1
    found = [tuple(piece.places.tolist()) for piece in islice(ExampleOrder(counts, 7, 9).pieces(0), 6)]
    assert len(set(found)) == 6 and all(sorted(places) == list(range(9)) for places in found)
