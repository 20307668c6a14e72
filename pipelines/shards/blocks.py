"""Blocks of consecutive records of a shard, and the byte offsets by which a reader enters them."""

import struct

import numpy as np

from clozemill.pipelines.shards import tfrecord

BLOCK_RECORDS = 256  # of each block but the last of a shard


class BlockOffsets:
    """Collects the byte offsets of the blocks of a shard while it is written."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self._records = self._bytes = 0

    def add(self, sizes: np.ndarray) -> None:
        """Add records by their sizes in bytes, with their frames, int64 [R]."""
        first, ends = self._records, self._bytes + np.cumsum(sizes)
        self._records, self._bytes = first + len(sizes), int(ends[-1]) if len(ends) else self._bytes
        begins = np.arange(-(-max(first, 1) // BLOCK_RECORDS) * BLOCK_RECORDS, self._records, BLOCK_RECORDS) - first
        self.offsets += (ends[begins] - sizes[begins]).tolist()


def offsets_of(data: bytes) -> list[int]:
    """Return the byte offsets of the blocks of a sound shard, from the lengths of its records."""
    at, records, found = 0, 0, []
    while at < len(data):
        if records and records % BLOCK_RECORDS == 0:
            found.append(at)
        at += tfrecord.HEADER + struct.unpack_from("<Q", data, at)[0] + tfrecord.FOOTER
        records += 1
    return found
