"""The order of the train examples: a function of the dataset, the seed and the step, whatever number of hosts reads it.

Epoch e reads copy e mod C of the train split. A copy is cut into blocks of consecutive records of a shard, which can be entered
by their byte offset. The blocks are permuted by (seed, epoch), and so are the records of each block: this is the epoch's
sequence. A batch of B records consists of L lanes of width B / L. In every epoch each lane reads its own contiguous part of the
sequence, so a host that needs some slots of every batch reads a few lanes, and nothing else.

Everything is arithmetic on the counts of the blocks, so the order can be entered at any step. `input_pipeline` does the same
arithmetic in a graph; tests compare the two. Record g of the run, counted over all batches, is in epoch e if
epoch_start(e) <= g < epoch_start(e + 1), and in lane g mod B // width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.common.hashing import ODD, mix

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


def number_of_lanes(batch_size: int, records: int, largest: int, length: int = 1) -> int:
    """Return L: the largest power of two that divides the batch size and suits the number of records and the largest block.

    length: maximum number of tokens of a record.
    """
    buffered = min(BUFFERED, BUFFERED_TOKENS // length)
    most = min(MAX_LANES, records // max(ROUNDS * largest, 1), buffered // max(largest, 1))
    lanes = 1
    while batch_size % (2 * lanes) == 0 and 2 * lanes <= most:
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class Piece:
    """Records `places` of a block, in this order, for one lane in an epoch."""

    epoch: int
    block: int
    places: np.ndarray


@dataclass(frozen=True)
class ExampleOrder:
    """The order of the records of a train split.

    Args:
        counts: records of each block, int64 [copies, blocks]; 0 for padding.
        seed: the run's seed.
        batch_size: B, records per batch across all hosts.
        length: maximum number of tokens of a record.
    """

    counts: np.ndarray
    seed: int
    batch_size: int
    length: int = 1

    @cached_property
    def sizes(self) -> np.ndarray:
        """Return the records of each copy, int64 [copies]."""
        return self.counts.sum(axis=1)

    @cached_property
    def lanes(self) -> int:
        """Return L."""
        return number_of_lanes(self.batch_size, int(self.sizes.min()), int(self.counts.max(initial=0)), self.length)

    @property
    def width(self) -> int:
        """Return the records of a lane in each batch."""
        return self.batch_size // self.lanes

    def epoch_start(self, epoch: int) -> int:
        """Return the number of records before an epoch."""
        rounds, copy = divmod(epoch, len(self.sizes))
        return rounds * int(self.sizes.sum()) + int(self.sizes[:copy].sum())

    def epoch_of(self, record: int) -> int:
        """Return the epoch of record number `record` of the run."""
        rounds, left = divmod(record, int(self.sizes.sum()))
        return rounds * len(self.sizes) + int(np.searchsorted(np.cumsum(self.sizes), left, side="right"))

    def before(self, lane: int, record: int) -> int:
        """Return how many of the run's first `record` records are in the lanes before `lane`."""
        batches, left = divmod(record, self.batch_size)
        return batches * lane * self.width + min(left, lane * self.width)

    def part(self, lane: int, epoch: int) -> tuple[int, int]:
        """Return the part [begin, end) of an epoch's sequence that a lane reads."""
        starts = self.epoch_start(epoch), self.epoch_start(epoch + 1)
        begin, end = (self.before(each, starts[1]) - self.before(each, starts[0]) for each in (lane, lane + 1))
        return begin, end

    def enter(self, lane: int, step: int) -> tuple[int, int]:
        """Return (epoch, records of the lane's part of it that are done) where a lane goes on at a step."""
        epoch = self.epoch_of(step * self.batch_size + lane * self.width)
        start = self.epoch_start(epoch)
        return epoch, step * self.width - (self.before(lane + 1, start) - self.before(lane, start))

    def streams(self, host: int, hosts: int) -> list[tuple[int, int, int]]:
        """Return (lane, begin, end) of the parts of lanes that make a host's slots of each batch; each lane once.

        The batch size must be a multiple of `hosts`. Slots of a lane outside of [begin, end) are read and dropped.
        """
        share, width = self.batch_size // hosts, self.width
        first, after = host * share, (host + 1) * share
        lanes = range(first // width, -(-after // width))
        return [(lane, max(first - lane * width, 0), min(after - lane * width, width)) for lane in lanes]

    def pieces(self, lane: int, step: int = 0) -> Iterator[Piece]:
        """Yield what a lane reads from a step on, without end."""
        epoch, done = self.enter(lane, step)
        while True:
            begin, end = self.part(lane, epoch)
            order = permutation(self.counts.shape[1], stream(self.seed, epoch, BLOCKS))
            sizes = self.counts[epoch % len(self.counts)][order]
            ends = np.cumsum(sizes)
            for at in np.flatnonzero((ends > begin + done) & (ends - sizes < end) & (sizes > 0)):
                start, block = int(ends[at] - sizes[at]), int(order[at])
                places = permutation(int(sizes[at]), stream(self.seed, epoch, RECORDS, block))
                yield Piece(epoch, block, places[max(begin + done - start, 0) : end - start])
            epoch, done = epoch + 1, 0
