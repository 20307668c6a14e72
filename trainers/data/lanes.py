"""A host's lanes of its datasets, in chunks of some batches, and how the chunks make batches: whatever reads the records.

This is the part of the order that all readers share. `numpy_reader` and `graph_lanes` read the lanes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clozemill.trainers.data import example_order
from clozemill.trainers.data.blocks import Blocks
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.mixing import NUMPY, Arithmetic


@dataclass(frozen=True)
class DatasetLanes:
    """One host's lanes of a dataset.

    Args:
        blocks: of all copies of its train split.
        order: of its records.
        host, hosts: index and number of the input pipelines.
        keyed: add KEYS, from which masks are drawn.
    """

    blocks: Blocks
    order: ExampleOrder
    host: int
    hosts: int
    keyed: bool = False

    @cached_property
    def lanes(self) -> list[int]:
        """Return the lanes that make the host's slots of each batch; none if no row of the dataset comes to these."""
        return [lane for lane, *_ in self.order.streams(self.host, self.hosts)]

    def shards_between(self, begin: int, end: int) -> list[str]:
        """Return the shard files that batches [begin, end) of the order come from, lane by lane."""
        found = []
        for lane in self.lanes:
            left = int(self.order.done(lane, end) - self.order.done(lane, begin))
            pieces = self.order.pieces(lane, begin)
            while left > 0:
                piece = next(pieces)
                found.append(self.blocks.path(piece.epoch % len(self.order.sizes), piece.block))
                left -= len(piece)
        return found

    def chunk_sizes(self, step: int, batches: int) -> np.ndarray:
        """Return how many records of each lane are in the chunks of `batches` batches from a step on.

        They include slots of the lanes that are not the host's. int64 [lanes, C]: the sizes of C chunks, which repeat.
        """
        order = self.order
        edges = step + batches * np.arange(order.round // np.gcd(order.round, batches) + 1)
        return np.array([np.diff(order.done(lane, edges)) for lane in self.lanes], np.int64)


@dataclass(frozen=True)
class Merger:
    """Puts the chunks of a host's datasets into the order of the batches.

    Args:
        readers: the datasets that the host reads.
        turns: the dataset of each row of a period, as an index of `readers`; len(readers) for others.
        step: the batch of the order at which the first chunk begins.
        batches: batches of a chunk.
        on: where the arithmetic is done.
    """

    readers: Sequence[DatasetLanes]
    turns: np.ndarray
    step: int
    batches: int
    on: Arithmetic = NUMPY

    @property
    def constant(self) -> bool:
        """Return whether `places` are the same for all chunks."""
        return not self.batches * self.readers[0].order.batch_size % len(self.turns)

    @cached_property
    def _slots(self) -> np.ndarray:
        """Return the slots of a batch that chunks contain: chunks contain whole lanes. int64 [slots]."""
        return np.flatnonzero((self._lane_of < example_order.MAX_LANES).any(axis=0))

    @cached_property
    def _lane_of(self) -> np.ndarray:
        """Return the lane of each slot of a batch, by dataset, MAX_LANES if none is read: int64 [readers + 1, batch size]."""
        found = np.full((len(self.readers) + 1, self.readers[0].order.batch_size), example_order.MAX_LANES)
        for row, reader in zip(found, self.readers, strict=False):
            for lane in reader.lanes:
                row[lane * reader.order.width : (lane + 1) * reader.order.width] = lane
        return found

    @cached_property
    def _lanes(self) -> np.ndarray:
        """Return `_lane_of` at `_slots`, as a vector."""
        return self._lane_of[:, self._slots].reshape(-1)

    @cached_property
    def _mine(self) -> slice:
        """Return which of the slots are the host's."""
        reader, slots = self.readers[0], self._slots
        share = reader.order.batch_size // reader.hosts
        return slice(*np.searchsorted(slots, [reader.host * share, (reader.host + 1) * share]).tolist())

    def places(self, number: Any) -> Any:
        """Return where the host's records of chunk `number` are in its parts, joined by dataset and lane.

        int64 [batches, slots of the host]. The rows of all slots are sorted by dataset and lane, as they come, then the host's
        chosen.
        """
        on, slots, unread = self.on, self._slots, example_order.MAX_LANES
        size = self.readers[0].order.batch_size
        rows = (self.step + number * self.batches + np.arange(self.batches)[:, None]) * size + slots
        readers = on.take(self.turns, rows % len(self.turns))
        lane = on.take(self._lanes, readers * len(slots) + np.arange(len(slots)))
        keys = on.where(lane < unread, readers * unread + lane, (len(self.readers) + 1) * unread)
        return on.ranks(keys)[:, self._mine]
