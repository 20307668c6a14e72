"""Which dataset each row of a mixture comes from: exact shares, literal sequences; and the orders of the datasets in it."""

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.trainers.data import example_order
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.mixing import ALL, WINDOW, Share, counts_of, shares, turns

WEIGHTS = st.lists(st.integers(1, 1000), min_size=2, max_size=5).map(lambda parts: [part / sum(parts) for part in parts])


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((0.7, 0.3), (7000, 3000)),
        ((0.29, 0.71), (2900, 7100)),  # 0.29 * 10,000 is 2,899.9999999999995
        ((1 / 3, 1 / 3, 1 / 3), (3334, 3333, 3333)),
        ((2 / 3, 1 / 3), (6667, 3333)),
        ((0.0001, 0.9999), (1, 9999)),
        ((0.50004, 0.24998, 0.24998), (5000, 2500, 2500)),
        ((0.3333333, 0.6666667), (3333, 6667)),
    ],
)
def test_literal_counts(weights: tuple[float, ...], counts: tuple[int, ...]) -> None:
    assert counts_of(weights) == counts


@settings(max_examples=50, deadline=None, derandomize=True)
@given(WEIGHTS)
def test_counts_are_the_weights_to_one_row(weights: list[float]) -> None:
    counts = counts_of(weights)
    assert sum(counts) == WINDOW
    assert all(abs(count - weight * WINDOW) < 1 for count, weight in zip(counts, weights, strict=True))


def test_literal_turns() -> None:
    """The sequence is a promise: it must not change between versions."""
    assert turns((7000, 3000)).tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert turns((5000, 5000)).tolist() == [0, 1]
    assert turns((1000, 9000)).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]
    assert turns((5000, 3000, 2000)).tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    assert len(turns((3333, 6667))) == WINDOW


@settings(max_examples=25, deadline=None, derandomize=True)
@given(WEIGHTS, st.integers(0, 10**9))
def test_any_window_has_exact_shares(weights: list[float], begin: int) -> None:
    """Wherever it begins; and every beginning of the sequence is less than one row away from them."""
    counts = counts_of(weights)
    if min(counts) < 1:
        return
    sequence = turns(counts)
    rows = sequence[(begin + np.arange(WINDOW)) % len(sequence)]
    assert np.bincount(rows).tolist() == list(counts)
    for each, count in enumerate(counts):
        so_far = np.cumsum(sequence == each)
        assert np.abs(so_far - np.arange(1, len(sequence) + 1) * count / WINDOW).max() < 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(WEIGHTS, st.integers(0, 10**6))
def test_rows_and_records_of_a_share(weights: list[float], row: int) -> None:
    """Against a count; `row` is the inverse of `before`."""
    counts = counts_of(weights)
    if min(counts) < 1:
        return
    sequence = turns(counts)
    for each, share in enumerate(shares(counts)):
        rounds, left = divmod(row, len(sequence))
        assert share.before(row) == rounds * (sequence == each).sum() + (sequence[:left] == each).sum()
        record = int(share.before(row))
        assert share.before(share.row(record)) == record and share.mine[share.row(record) % share.period]


def test_the_only_dataset_has_all_rows() -> None:
    assert shares((WINDOW,)) == [ALL]
    assert [ALL.before(row) for row in (0, 1, 12345)] == [ALL.row(record) for record in (0, 1, 12345)] == [0, 1, 12345]


SIZES = st.sampled_from([(1, 1), (4, 2), (6, 3), (12, 4), (12, 6), (16, 1), (48, 3), (20, 2)])  # of a batch, and its hosts
COUNTS = st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=1, max_size=3).filter(
    lambda rows: all(sum(row) for row in rows)
)


@pytest.fixture(autouse=True)
def small_blocks_have_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny datasets of these tests have several lanes."""
    monkeypatch.setattr(example_order, "ROUNDS", 1)


def orders_of(datasets: list[list[list[int]]], mixed: tuple[int, ...], seed: int, size: int) -> list[ExampleOrder]:
    """Return the order of each dataset of a mixture. mixed: its counts."""
    several = zip(datasets, shares(mixed), strict=True)
    return [ExampleOrder(np.array(counts), seed, size, 1, share, datasets=len(datasets)) for counts, share in several]


def batches(orders: list[ExampleOrder], sequence: np.ndarray, step: int, steps: int, hosts: int) -> list[list[tuple]]:
    """Return the (dataset, copy, block, place) of every row of some batches, as several hosts read them."""
    size, found = orders[0].batch_size, [[] for _ in range(steps)]
    for host in range(hosts):
        lanes = {}
        for each, order in enumerate(orders):
            for lane, *_ in order.streams(host, hosts):
                pieces = order.pieces(lane, step)
                lanes[each, lane] = ((each, piece.epoch, piece.block, int(place)) for piece in pieces for place in piece.places)
        for number in range(steps):
            for slot in range(size):
                each = int(sequence[((step + number) * size + slot) % len(sequence)])
                mine = host * size // hosts <= slot < (host + 1) * size // hosts
                read = lanes.get((each, slot // orders[each].width))
                row = next(read) if read else None
                found[number] += [row] if mine else []
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.tuples(COUNTS, COUNTS), st.sampled_from([(7, 3), (1, 1), (1, 99), (5, 11)]), st.integers(0, 2**63 - 1), SIZES)
def test_every_epoch_of_each_dataset_has_every_record_once(
    datasets: tuple[list, list], parts: tuple[int, int], seed: int, sizes: tuple[int, int]
) -> None:
    """Record r of a dataset, counted over its rows of the run, is in epoch e if epoch_start(e) <= r < epoch_start(e + 1)."""
    size, hosts = sizes
    mixed = counts_of([part / sum(parts) for part in parts])
    orders, sequence = orders_of(list(datasets), mixed, seed, size), turns(mixed)
    read = list(chain(*batches(orders, sequence, 0, -(-300 // size), hosts)))
    assert [row[0] for row in read] == [int(sequence[row % len(sequence)]) for row in range(len(read))]
    for each, order in enumerate(orders):
        rows, counts = [row for row in read if row[0] == each], datasets[each]
        for epoch in range(9):
            begin, end = int(order.epoch_start(epoch)), int(order.epoch_start(epoch + 1))
            blocks = enumerate(counts[epoch % len(counts)])
            expected = [(each, epoch, block, place) for block, count in blocks for place in range(count)]
            if end <= len(rows):
                assert sorted(rows[begin:end]) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(COUNTS, COUNTS), st.sampled_from([(7, 3), (1, 1), (1, 99), (5, 11)]), st.integers(0, 2**63 - 1), SIZES,
    st.integers(0, 40),
)  # fmt: skip
def test_hosts_and_entries_do_not_change_a_batch(
    datasets: tuple[list, list], parts: tuple[int, int], seed: int, sizes: tuple[int, int], step: int
) -> None:
    size, hosts = sizes
    mixed = counts_of([part / sum(parts) for part in parts])
    orders, sequence = orders_of(list(datasets), mixed, seed, size), turns(mixed)
    whole = batches(orders, sequence, 0, step + 3, 1)
    assert batches(orders, sequence, step, 3, hosts) == whole[step:]
    assert all(len(batch) == size and None not in batch for batch in whole)


def test_a_late_entry_is_found_by_bisection() -> None:
    """At step 10**12, in the epoch that the counts say; the lane of a rare dataset that has the rows of one slot."""
    orders = orders_of([[[50] * 64], [[2] * 64]], (9999, 1), 3, 5000)
    entries = [order.enter(lane, 10**12) for order in orders for lane, *_ in order.streams(0, 1)]
    assert entries[0][0] == 5000 * 10**12 * 9999 // 10000 // 3200
    assert [lane for lane, *_ in orders[1].streams(0, 1)] == [7]  # row 9,999 of each period of two batches
    assert entries[-1] == (10**12 // 2 // 128, 10**12 // 2 % 128)


def test_hosts_read_few_lanes() -> None:
    """With 64 hosts, each reads a lane of its own of both datasets, and together they read every block once."""
    orders = orders_of([[[256] * 640], [[256] * 640]], (7000, 3000), 3, 320)
    for order in orders:
        assert order.lanes == 64 and order.streams(63, 64) == [(63, 0, 5)]
        parts = [order.part(lane, 0) for lane in range(64)]
        assert [begin for begin, _ in parts] == [0, *(int(end) for _, end in parts[:-1])]
        assert parts[-1][1] == 640 * 256


def test_a_share_that_changes_continues_with_the_next_record() -> None:
    """One lane from the first phase on: what is read then begins where the earlier phase ended."""
    counts, (share, _), (other, _) = np.array([[9, 9, 9]]), shares((7000, 3000)), shares((1000, 9000))
    first = ExampleOrder(counts, 5, 10, 1, share, 0)
    assert (first.lanes, first.done(0, 2)) == (1, 14)
    second = ExampleOrder(counts, 5, 10, 1, other, 14)
    assert second.enter(0, 0) == (0, 14) and second.enter(0, 20) == (1, 7)
    whole = list(chain(*([(piece.block, int(place)) for place in piece.places] for piece in islice(first.pieces(0), 3))))
    rest = list(chain(*([(piece.block, int(place)) for place in piece.places] for piece in islice(second.pieces(0), 2))))
    assert whole[14 : 14 + len(rest)] == rest and len(set(whole)) == 27


def test_shares_compare_by_identity() -> None:
    """Arrays have no single truth value; nothing compares shares by content."""
    assert Share(np.ones(1, bool)) != ALL
