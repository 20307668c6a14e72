"""Blocks of consecutive records of the shards, which are entered by their byte offset."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.shards import tfrecord
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS
from clozemill.trainers.common import storage
from clozemill.trainers.data.prepared_dataset import PreparedDataset


def _cut(contract: PreparedDataset, shard: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return (byte offset, end, records) of each block of a shard. A shard without an index is one block."""
    count, end = records_of(shard), shard["bytes"] + 1  # one byte more, so that a file that is too long is noticed
    if not contract.index or not count:
        return [(0, end, count)] * bool(count)
    offsets = (0, *contract.index[shard["name"]], end)
    sizes = (min(BLOCK_RECORDS, count - first) for first in range(0, count, BLOCK_RECORDS))
    return list(zip(offsets[:-1], offsets[1:], sizes, strict=True))


@dataclass(frozen=True)
class Blocks:
    """The blocks of some copies of a split, padded with empty ones: arrays [copies, blocks].

    Attributes:
        files: paths of the shards.
        shards: index of each block's shard in `files`, int64.
        offsets: byte offset of its first record, int64.
        ends: byte offset of the next block, or a place behind the end of the file, int64.
        counts: its number of records, int64.
        last: whether it is the last of its shard.
        compression: of the shards, as in dataset.json.
    """

    files: tuple[str, ...]
    shards: np.ndarray
    offsets: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    last: np.ndarray
    compression: str

    @classmethod
    def of(cls, contract: PreparedDataset, split: str, copies: Iterable[int]) -> "Blocks":
        """Return the blocks of a dataset, in the order of the shards."""
        files: list[str] = []
        rows: list[list[tuple]] = []
        for copy in copies:
            rows.append([])
            for shard in contract.shards(split, copy):
                found = _cut(contract, shard)
                rows[-1] += [(len(files), *block, at == len(found)) for at, block in enumerate(found, 1)]
                files.append(contract.path(shard))
        table = np.zeros((len(rows), max(map(len, rows), default=0), 5), np.int64)
        for row, blocks in zip(table, rows, strict=True):
            row[: len(blocks)] = np.array(blocks, np.int64).reshape(-1, 5)
        shards, offsets, ends, counts, last = np.moveaxis(table, 2, 0)
        return cls(tuple(files), shards, offsets, ends, counts, last.astype(bool), contract.compression)

    def path(self, copy: int, block: int) -> str:
        """Return the shard's file of a block."""
        return self.files[self.shards[copy, block]]

    def read(self, copy: int, block: int) -> list[bytes]:
        """Return the serialized records of a block; no other bytes of an indexed shard are read.

        Raises tfrecord.CorruptRecord if it is missing, damaged, or has more or fewer records than the manifest says; UserError
        if storage doesn't answer.
        """
        path, count = self.path(copy, block), int(self.counts[copy, block])
        with storage.translate_errors(path, "read"):
            try:
                data = storage.read_range(path, int(self.offsets[copy, block]), int(self.ends[copy, block]))
            except FileNotFoundError:
                raise tfrecord.CorruptRecord(f"{path} doesn't exist") from None
        found = list(islice(tfrecord.read(data, self.compression), count + 1))
        if len(found) != count:
            raise tfrecord.CorruptRecord(
                f"{path}: a block of {count} records has {'more' if len(found) > count else len(found)}"
            )
        return found
