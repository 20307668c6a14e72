"""Reads batches with numpy, without TensorFlow: the same values as `graph_reader`.

A thread reads and parses ahead, for a few batches at a time. Others fetch blocks of records, which come from remote storage
with some delay. What waits in memory are a block or two of each lane, as serialized records, and a few parsed batches.
"""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatch
from itertools import chain
from typing import Any

import numpy as np

from clozemill.model.masking import KEYS
from clozemill.trainers.data import example_order
from clozemill.trainers.data.example_order import Piece
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainBatches, TrainReader
from clozemill.trainers.data.lanes import DatasetLanes
from clozemill.trainers.data.read_ahead import read_ahead
from clozemill.trainers.data.record_parser import filler_rows, parse_records
from clozemill.trainers.data.row_reader import RowBatches

_PARSED_ROWS, _PARSED_TOKENS = 1 << 10, 1 << 17  # parsed at once, so that the cost of a call hardly matters
_BATCHES_AHEAD = 2
_FETCHES = 8  # at the same time
Batch = dict[str, np.ndarray]
Rows = tuple[list[bytes], np.ndarray]  # records and keys of their masks, int32 [N, 2] or [N, 0]


@singledispatch
def batches_of(batches: Any) -> Iterator[Batch]:
    """Return the batches of a description (TrainBatches, EvalBatches, RowBatches), without end; or of any iterable of them."""
    return iter(batches)


@contextmanager
def _fetching() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(_FETCHES, "fetch")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Lane:
    """The records of a lane, block after block. The next block is fetched when half of a block is read."""

    part: DatasetLanes
    pieces: Iterator[Piece]
    pool: ThreadPoolExecutor
    rows: Rows = field(default_factory=lambda: ([], np.zeros((0, 2), np.int32)))
    at: int = 0  # the next record of `rows`
    ahead: Future[Rows] | None = None

    def _fetched(self, piece: Piece) -> Rows:
        blocks, order = self.part.blocks, self.part.order
        copy = piece.epoch % len(order.sizes)
        records = blocks.read(copy, piece.block)
        keys = np.zeros((len(piece), 0), np.int32)
        if self.part.keyed:
            first = int(blocks.counts[copy, : piece.block].sum())
            keys = example_order.mask_keys(order.seed, piece.epoch, first + piece.places)
        return [records[place] for place in piece.places.tolist()], keys

    def fetch(self) -> Future[Rows]:
        """Return the next block, which is fetched unless it is already."""
        self.ahead = self.ahead or self.pool.submit(self._fetched, next(self.pieces))
        return self.ahead

    def take(self, count: int) -> list[Rows]:
        """Return the next records, in one or several parts."""
        found = []
        while count:
            records, keys = self.rows
            if self.at == len(records):
                (self.rows, self.at), self.ahead = (self.fetch().result(), 0), None
                continue
            end = min(self.at + count, len(records))
            found.append((records[self.at : end], keys[self.at : end]))
            count, self.at = count - (end - self.at), end
            if 2 * end >= len(records):
                self.fetch()
        return found


def train_records(reader: TrainReader, step: int = 0, least: int = 32) -> Generator[Rows]:
    """Yield a host's serialized records from a step on, without end: those of a few batches at a time.

    least: number of records at a time, unless those of a batch are more.
    """
    share = reader.parts[0].order.batch_size // reader.hosts
    merge = reader.merger(step, -(-least // share))
    with _fetching() as pool:
        lanes = [[_Lane(part, part.order.pieces(lane, merge.step), pool) for lane in part.lanes] for part in merge.readers]
        for lane in chain(*lanes):
            lane.fetch()
        every = [part.chunk_sizes(merge.step, merge.batches).T.tolist() for part in merge.readers]
        constant, number = merge.places(0).reshape(-1) if merge.constant else None, 0
        while True:
            sizes = (chunks[number % len(chunks)] for chunks in every)
            parts = [lane.take(size) for row in zip(lanes, sizes, strict=True) for lane, size in zip(*row, strict=True)]
            records = list(chain.from_iterable(rows for part in parts for rows, _ in part))
            keys = np.concatenate([rows for part in parts for _, rows in part])
            places = merge.places(number).reshape(-1) if constant is None else constant
            yield [records[place] for place in places.tolist()], keys[places]
            number += 1


def _rebatched(batches: Iterable[Batch], size: int) -> Generator[Batch]:
    """Yield the rows of batches of any size in batches of `size`; at the end, fewer rows are dropped."""
    left: Batch = {}
    for batch in batches:
        joined = {name: np.concatenate([left[name], values]) for name, values in batch.items()} if left else batch
        count = len(next(iter(joined.values())))
        for begin in range(0, count - size + 1, size):
            yield {name: values[begin : begin + size] for name, values in joined.items()}
        kept = count % size
        left = {name: values[count - kept :] for name, values in joined.items()} if kept else {}


def _parsed_rows(length: int) -> int:
    """Return how many rows of some maximum length are parsed at once, unless a batch has more."""
    return max(min(_PARSED_ROWS, _PARSED_TOKENS // length), 1)


@batches_of.register
def _train(batches: TrainBatches) -> Iterator[Batch]:
    reader, contract = batches.reader, batches.reader.mixture.contract

    def parsed() -> Iterator[Batch]:
        for records, keys in train_records(reader, batches.step, _parsed_rows(contract.max_seq_length)):
            yield parse_records(records, contract) | ({KEYS: keys} if reader.keyed else {})

    return read_ahead(_rebatched(parsed(), batches.size), _BATCHES_AHEAD)


def _eval_rows(batches: EvalBatches) -> Iterator[list[bytes]]:
    """Yield a host's part of the eval split: consecutive records in the order of the shards, those of a block at a time."""
    blocks, pieces = batches.pieces()
    with _fetching() as pool:
        ahead = [pool.submit(blocks.read, 0, block) for block, *_ in pieces[:1].tolist()]
        for number, (_, low, high) in enumerate(pieces.tolist(), 1):
            ahead += [pool.submit(blocks.read, 0, block) for block, *_ in pieces[number : number + 1].tolist()]
            yield ahead.pop(0).result()[low:high]


@batches_of.register
def _eval(batches: EvalBatches) -> Iterator[Batch]:
    contract = batches.contract
    most = _parsed_rows(contract.max_seq_length)

    def weighted(rows: Batch, weight: float) -> Batch:
        """Return rows with weights. A packed row has those of its examples, and a filler row no example."""
        return {"example_weights": np.full(len(rows["input_ids"]), weight, np.float32)} | rows

    def parsed() -> Iterator[Batch]:
        for records in _eval_rows(batches):
            for begin in range(0, len(records), most):
                yield weighted(parse_records(records[begin : begin + most], contract), 1)
        while True:
            yield weighted(filler_rows(batches.size, contract), 0)

    return read_ahead(_rebatched(parsed(), batches.size), _BATCHES_AHEAD)


@batches_of.register
def _rows(batches: RowBatches) -> Iterator[Batch]:
    features: dict[str, Any] = batches.reader.features
    whole = features["input_mask"].shape[1]
    for rows, length in batches.parts():
        found = {name: value[rows] for name, value in features.items()}
        yield {name: value[:, :length] if value.shape[1:2] == (whole,) else value for name, value in found.items()}
