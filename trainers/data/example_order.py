"""The order of the train examples: a function of the dataset, the seed and the step, whatever number of hosts reads it.

Epoch e reads copy e mod C of the train split. A copy is cut into blocks of consecutive records of a shard, which can be entered
by their byte offset. The blocks are permuted by (seed, epoch), and so are the records of each block: this is the epoch's
sequence. A batch of B records consists of L lanes of width B / L. In every epoch each lane reads its own contiguous part of the
sequence, so a host that needs some slots of every batch reads a few lanes, and nothing else.

Everything is arithmetic on the counts of the blocks, so the order can be entered at any step. `lanes` does the same
arithmetic in a graph; tests compare the two. Record r of the dataset, counted over the run, is in epoch e if
epoch_start(e) <= r < epoch_start(e + 1). It is row g of the run, counted over all batches, and in lane g mod B // width.

In a mixture, each dataset has an order of its own, with lanes of its own, and gives the rows of its share (`mixing`). Otherwise
g = r.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clozemill.pipelines.common.hashing import ODD, mix
from clozemill.trainers.data.mixing import ALL, NUMPY, Arithmetic, Share

MAX_LANES = 64
ROUNDS = 8  # an epoch has at least this many of the largest blocks per lane: at a lane's ends, two lanes read one block
BUFFERED = 1 << 16  # records of all lanes that are held in memory at most, unless a single block is larger
BUFFERED_TOKENS = 1 << 25  # likewise; a record has some five bytes per token of its maximum length
BLOCKS, RECORDS, MASKS = 1, 2, 3  # what is permuted, or drawn
_ODD = np.array([ODD])  # products of arrays overflow silently


def purpose(seed: int, of: int) -> np.ndarray:
    """Return where the random streams of a purpose begin, uint64 [1]."""
    return mix(np.array([seed], np.uint64) + np.uint64(of) * _ODD)


def stream(seed: int, epoch: int, of: int, block: int = 0) -> np.ndarray:
    """Return the start of a random stream, uint64 [1]: for the blocks of an epoch, or for the records of one of its blocks."""
    return mix(mix(purpose(seed, of) + np.uint64(epoch) * _ODD) + np.uint64(block) * _ODD)


def permutation(count: int, start: np.ndarray) -> np.ndarray:
    """Return a permutation of range(count), int64, from a random stream: the order of SplitMix64's outputs (as int64)."""
    keys = mix(start + np.arange(1, count + 1, dtype=np.uint64) * ODD)
    return np.argsort(keys.view(np.int64), kind="stable")


def mask_keys(seed: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """Return the keys of random masks, int32 [N, 2], from the numbers of records in their copy, int64 [N]."""
    keys = mix(stream(seed, epoch, MASKS) + (numbers + 1).astype(np.uint64) * ODD)
    return keys.astype("<u8").view("<i4").reshape(-1, 2)


def number_of_lanes(batch_size: int, records: int, largest: int, length: int = 1, datasets: int = 1) -> int:
    """Return L: the largest power of two that divides the batch size and suits the number of records and the largest block.

    Args:
        length: maximum number of tokens of a record.
        datasets: number of datasets that share the memory.
    """
    buffered = min(BUFFERED, BUFFERED_TOKENS // length) // datasets
    most = min(MAX_LANES, records // max(ROUNDS * largest, 1), buffered // max(largest, 1))
    lanes = 1
    while batch_size % (2 * lanes) == 0 and 2 * lanes <= most:
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class Piece:
    """Records [begin, end) of an epoch's permutation of a block, for one lane.

    Args:
        count: records of the block.
        seed: of the order.
    """

    epoch: int
    block: int
    begin: int
    end: int
    count: int
    seed: int

    def __len__(self) -> int:
        return self.end - self.begin

    @cached_property
    def places(self) -> np.ndarray:
        """Return the records' places in the block, in the order in which the lane reads them, int64.

        To be used after the block was read: a wrong count in dataset.json must not decide what is allocated.
        """
        return permutation(self.count, stream(self.seed, self.epoch, RECORDS, self.block))[self.begin : self.end]


@dataclass(frozen=True)
class ExampleOrder:
    """The order of the records of a train split.

    Args:
        counts: records of each block, int64 [copies, blocks]; 0 for padding.
        seed: the run's seed.
        batch_size: B, rows per batch across all hosts.
        length: maximum number of tokens of a record.
        share: the rows that come from the dataset.
        earlier: records that phases in which the dataset has another share have read before row 0. The order then has a single
            lane, so that it continues with the next record; None if there is no such phase.
        datasets: number of datasets that are read at once.
    """

    counts: np.ndarray
    seed: int
    batch_size: int
    length: int = 1
    share: Share = ALL
    earlier: int | None = None
    datasets: int = 1

    @cached_property
    def sizes(self) -> np.ndarray:
        """Return the records of each copy, int64 [copies]."""
        return self.counts.sum(axis=1)

    @cached_property
    def _starts(self) -> np.ndarray:
        """Return the records before each copy, int64 [copies]."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def lanes(self) -> int:
        """Return L."""
        if self.earlier is not None:
            return 1
        largest = int(self.counts.max(initial=0))
        return number_of_lanes(self.batch_size, int(self.sizes.min()), largest, self.length, self.datasets)

    @property
    def width(self) -> int:
        """Return the rows of a lane in each batch."""
        return self.batch_size // self.lanes

    @property
    def round(self) -> int:
        """Return the number of batches after which the places of the dataset's rows in a batch repeat."""
        return self.share.period // math.gcd(self.share.period, self.batch_size)

    @cached_property
    def _in_batches(self) -> np.ndarray:
        """Return how many of the dataset's records in the first t batches of a round are in the lanes before each, and L.

        int64 [(round + 1) * (lanes + 1)]: entry t * (lanes + 1) + lane.
        """
        firsts = np.arange(self.round)[:, None] * self.batch_size
        each = self.share.before(firsts + np.arange(self.lanes + 1) * self.width) - self.share.before(firsts)
        return np.concatenate([np.zeros((1, self.lanes + 1), np.int64), np.cumsum(each, axis=0)]).reshape(-1)

    def epoch_start(self, epoch: Any, on: Arithmetic = NUMPY) -> Any:
        """Return the number of records before an epoch."""
        copies = len(self.sizes)
        return epoch // copies * int(self.sizes.sum()) + on.take(self._starts, epoch % copies)

    def epoch_of(self, record: int) -> int:
        """Return the epoch of record number `record` of the dataset."""
        rounds, left = divmod(record, int(self.sizes.sum()))
        return int(rounds) * len(self.sizes) + int(np.searchsorted(np.cumsum(self.sizes), left, side="right"))

    def before(self, lane: Any, record: Any, on: Arithmetic = NUMPY) -> Any:
        """Return how many of the dataset's first `record` records are in the lanes before `lane`."""
        return lane * record if self.lanes == 1 else self._before_row(lane, self.share.row(record, on), on)

    def _before_row(self, lane: Any, row: Any, on: Arithmetic = NUMPY) -> Any:
        """Return how many of the dataset's records in the run's first `row` rows are in the lanes before `lane`."""
        batch, entries = row // self.batch_size, self.lanes + 1
        first = batch * self.batch_size
        whole = batch // self.round * on.take(self._in_batches, self.round * entries + lane)
        whole += on.take(self._in_batches, batch % self.round * entries + lane)
        return whole + self.share.before(on.minimum(row, first + lane * self.width), on) - self.share.before(first, on)

    def done(self, lane: int, step: Any) -> Any:
        """Return how many records of the dataset a lane has read before a step; also for an array of steps."""
        row = step * self.batch_size
        return self._before_row(lane + 1, row) - self._before_row(lane, row) + (self.earlier or 0)

    def part(self, lane: Any, epoch: Any, on: Arithmetic = NUMPY) -> tuple[Any, Any]:
        """Return the part [begin, end) of an epoch's sequence that a lane reads."""
        starts = self.epoch_start(epoch, on), self.epoch_start(epoch + 1, on)
        begin, end = (self.before(each, starts[1], on) - self.before(each, starts[0], on) for each in (lane, lane + 1))
        return begin, end

    def _up_to(self, lane: int, epoch: int) -> int:
        """Return how many records a lane reads before an epoch."""
        start = self.epoch_start(epoch)
        return int(self.before(lane + 1, start) - self.before(lane, start))

    def enter(self, lane: int, step: int) -> tuple[int, int]:
        """Return (epoch, records of the lane's part of it that are done) where a lane goes on at a step."""
        done, rows = int(self.done(lane, step)), (step * self.batch_size, (step + self.round + 1) * self.batch_size)
        first, last = (self.epoch_of(int(self.share.before(row)) + (self.earlier or 0)) for row in rows)
        # The lane's next record is in one of these epochs: the first one by the end of which the lane has read more.
        epoch = first + bisect_right(range(first, last + 1), done, key=lambda each: self._up_to(lane, each + 1))
        return epoch, done - self._up_to(lane, epoch)

    def streams(self, host: int, hosts: int) -> list[tuple[int, int, int]]:
        """Return (lane, begin, end) of the parts of lanes that make a host's slots of each batch; each lane once.

        The batch size must be a multiple of `hosts`. Slots of a lane outside of [begin, end) are read and dropped. Lanes that
        no row of the dataset ever comes to are left out.
        """
        share, width = self.batch_size // hosts, self.width
        first, after = host * share, (host + 1) * share
        used = np.diff(self._in_batches[-self.lanes - 1 :]) > 0
        lanes = [lane for lane in range(first // width, -(-after // width)) if used[lane]]
        return [(lane, max(first - lane * width, 0), min(after - lane * width, width)) for lane in lanes]

    def pieces(self, lane: int, step: int = 0) -> Iterator[Piece]:
        """Yield what a lane reads from a step on, without end."""
        epoch, done = self.enter(lane, step)
        while True:
            begin, end = self.part(lane, epoch)
            order = permutation(self.counts.shape[1], stream(self.seed, epoch, BLOCKS))
            sizes = self.counts[epoch % len(self.counts)][order]
            ends = np.cumsum(sizes)
            for at in np.flatnonzero(np.maximum(begin + done, ends - sizes) < np.minimum(end, ends)):
                start, count = int(ends[at] - sizes[at]), int(sizes[at])
                low, high = max(int(begin) + done - start, 0), min(int(end) - start, count)
                yield Piece(epoch, int(order[at]), low, high, count, self.seed)
            epoch, done = epoch + 1, 0
