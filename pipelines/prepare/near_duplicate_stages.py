"""Stages that find near-duplicates, without Beam: splits to bands, bucket groups to links, links to clusters.parquet.

They run before the stages of `prepare` and read the corpus an additional time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import starmap

import numpy as np

from clozemill.pipelines.dataset import clusters
from clozemill.pipelines.filtering import minhash
from clozemill.pipelines.prepare.job import Job, load_words
from clozemill.pipelines.prepare.rows import GroupRow, ResultRow
from clozemill.pipelines.prepare.split_stage import SplitProcessorStage
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.shuffle import keys as shuffle_keys
from clozemill.pipelines.shuffle.payload import unpack
from clozemill.pipelines.shuffle.shuffles import BeamShuffle
from clozemill.pipelines.shuffle.spill import FilesShuffle

_BATCH = 256  # documents whose bands are computed at a time
_LINK = np.dtype([("key", "S16"), ("words", "<u4")])


def _shuffle(job: Job) -> FilesShuffle | BeamShuffle:
    return job.make_shuffle("bands")


@dataclass
class BandStage(SplitProcessorStage):
    """Turns a split into (bucket group, band and document) rows for the shuffle, for documents that pass the filters."""

    def __call__(self, split: InputSplit) -> Iterator[GroupRow]:
        """Yield the rows of a split. A split that the shuffle has from an earlier run isn't read again."""
        name, shuffle = self.job.split_name(split), _shuffle(self.job)
        if shuffle.finished_summary(name) is None:
            yield from starmap(GroupRow, shuffle.scatter(name, self._items(split)))
            shuffle.mark_finished(name, b"")

    def _items(self, split: InputSplit) -> Iterator[tuple[int, bytes, bytes]]:
        keys, rows, words_in = [], [], load_words(self.job.vocabulary)
        for key, payload in self.processor(split):
            words, _ = words_in(unpack(payload).ids)
            grams = minhash.shingles(words, words_in)
            if len(grams):
                keys.append(key)
                rows.append(np.append(minhash.signature(grams), np.uint32(len(words))))
            if len(keys) == _BATCH:
                yield from self._bands(keys, np.stack(rows))
                keys, rows = [], []
        if keys:
            yield from self._bands(keys, np.stack(rows))

    def _bands(self, keys: list[bytes], rows: np.ndarray) -> Iterator[tuple[int, bytes, bytes]]:
        found = minhash.bucket_items(keys, rows[:, :-1], rows[:, -1], self.job.config.near_threshold).ravel()
        data, size = found.tobytes(), minhash.ITEM.itemsize
        for start in range(0, len(data), size):
            middle = start + shuffle_keys.KEY_BYTES
            group = int.from_bytes(data[start : start + 8], "big") * self.job.total_groups >> 64
            yield group, data[start:middle], data[middle : start + size]


@dataclass
class LinkStage:
    """Turns the items of a bucket group into links between documents, in one row."""

    job: Job
    _from: FilesShuffle | BeamShuffle | None = None  # lists its files once

    def run(self, group: int, values: Iterable[bytes]) -> Iterator[ResultRow]:
        self._from = self._from or _shuffle(self.job)
        items = self._from.gather(group, (value for value in values if value))
        found = np.frombuffer(b"".join(key + payload for key, payload in items), minhash.ITEM)
        linked = minhash.link_similar(found, self.job.config.near_threshold)
        pairs = np.zeros(linked.shape, _LINK)
        pairs["key"], pairs["words"] = linked["key"], linked["words"]
        yield ResultRow.of(pairs.tobytes())


@dataclass
class ClusterStage:
    """Turns all links into clusters.parquet: identical for identical documents, whatever the order of the rows."""

    job: Job

    def run(self, key: int, rows: Iterable[bytes]) -> bytes:
        """Write clusters.parquet."""
        pairs = np.frombuffer(b"".join(rows), _LINK).reshape(-1, 2)
        clusters.write(self.job.folder.file(clusters.NAME), clusters.Clusters(*minhash.connected_clusters(pairs)))
        return b"done"
