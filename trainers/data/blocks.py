"""Blocks of consecutive records of the shards, which are entered by their byte offset."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS
from clozemill.trainers.data.prepared_dataset import PreparedDataset

_BUFFER = 1 << 18  # bytes, as in tf.data.TFRecordDataset


def _records_from(path: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """Return the records of a file from a byte offset on: tf.data.TFRecordDataset, which has no such argument."""
    found = tf.raw_ops.TFRecordDatasetV2(
        filenames=path, compression_type="", buffer_size=_BUFFER, byte_offsets=offset, metadata=""
    )
    return tf.data.experimental.from_variant(found, tf.TensorSpec([], tf.string))


def _cut(contract: PreparedDataset, shard: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (byte offset, records) of each block of a shard. A shard without an index is one block."""
    count = records_of(shard)
    if not contract.index or not count:
        return [(0, count)] * bool(count)
    offsets = (0, *contract.index[shard["name"]])
    return [(offset, min(BLOCK_RECORDS, count - at * BLOCK_RECORDS)) for at, offset in enumerate(offsets)]


@dataclass(frozen=True)
class Blocks:
    """The blocks of some copies of a split, padded with empty ones: arrays [copies, blocks].

    Attributes:
        files: paths of the shards.
        shards: index of each block's shard in `files`, int64.
        offsets: byte offset of its first record, int64.
        counts: its number of records, int64.
        last: whether it is the last of its shard.
        compression: of the shards, as in dataset.json.
    """

    files: tuple[str, ...]
    shards: np.ndarray
    offsets: np.ndarray
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
        table = np.zeros((len(rows), max(map(len, rows), default=0), 4), np.int64)
        for row, blocks in zip(table, rows, strict=True):
            row[: len(blocks)] = np.array(blocks, np.int64).reshape(-1, 4)
        shards, offsets, counts, last = np.moveaxis(table, 2, 0)
        return cls(tuple(files), shards, offsets, counts, last.astype(bool), contract.compression)

    def path(self, copy: int, block: int) -> str:
        """Return the shard's file of a block."""
        return self.files[self.shards[copy, block]]

    @cached_property
    def _tensors(self) -> dict[str, tf.Tensor]:
        with tf.init_scope():  # captured by the graphs that use them, instead of copied into each
            return {name: tf.constant(getattr(self, name)) for name in ("files", "shards", "offsets", "counts", "last")}

    def sizes(self, copy) -> tf.Tensor:
        """Return the number of records of all blocks of a copy, int64 [blocks], in a graph."""
        return self._tensors["counts"][copy]

    def records(self, copy, block) -> tf.data.Dataset:
        """Return a dataset with one element, the records of a block, string [count]; in a graph.

        Reading fails if a shard has more or fewer records than the manifest says: TensorFlow doesn't notice a file that was
        truncated between two records, nor many truncated gzip streams.
        """
        about = self._tensors
        path, count = tf.gather(about["files"], about["shards"][copy, block])[None], about["counts"][copy, block]
        offset = None if self.compression != "none" else about["offsets"][copy, block][None]
        found = _records_from(path, offset) if offset is not None else tf.data.TFRecordDataset(path, "GZIP")
        found = found.take(tf.where(about["last"][copy, block], tf.constant(-1, tf.int64), count))
        return found.apply(tf.data.experimental.assert_cardinality(count)).batch(count)
