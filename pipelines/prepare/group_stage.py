"""The second stage of `prepare`: turn the documents of a group into its shards."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.dataset.layout import documents_name, provenance_name, shard_name
from clozemill.pipelines.dataset.parquet import write_parquet
from clozemill.pipelines.dataset.provenance import documents_table, provenance_table
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from clozemill.pipelines.prepare import document_ids
from clozemill.pipelines.prepare import job as prepare_job
from clozemill.pipelines.prepare.document_processor import SplitSummary
from clozemill.pipelines.prepare.job import Job
from clozemill.pipelines.prepare.rows import ResultRow, has_summaries
from clozemill.pipelines.quality import statistics
from clozemill.pipelines.shards.writer import Shard, write_shard
from clozemill.pipelines.shuffle.groups import Group, items_digest
from clozemill.pipelines.shuffle.shuffles import BeamShuffle
from clozemill.pipelines.shuffle.spill import FilesShuffle

_MAX_BITS = 33  # of the number of tokens of a document


def text_counts(group: Group) -> dict[str, Any]:
    """Return the sentences and tokens of a group, and its documents by the bit length of their number of tokens.

    Unlike the counts of splits, these are without exact duplicates, unless duplicates are kept.
    """
    bits = np.frexp(np.diff(group.sentences[group.documents]))[1]  # 4 to 7 are at least 0.5 * 2**3, and less than 2**3
    lengths = np.bincount(bits, minlength=_MAX_BITS).tolist()
    return {"sentences": len(group.sentences) - 1, "tokens": len(group.tokens), "token_lengths": lengths}


def _files(summary: dict[str, Any]) -> dict[str, str]:
    """Return name -> SHA-256 of a group's files: its shards, and the lists for them."""
    return summary["files"] | {shard["name"]: shard["sha256"] for shard in summary["shards"]}


@dataclass
class GroupStage:
    """Turns the items of a group into its shards, and yields its summary.

    Attributes: _previous: name -> SHA-256 of the files of the dataset that is being updated, once they were read.
    _shuffle: the source of the items, which lists its files once.
    """

    job: Job
    _previous: dict[str, str] | None = None
    _shuffle: FilesShuffle | BeamShuffle | None = None

    def run(self, group: int, values: Iterable[bytes]) -> Iterator[ResultRow]:
        """Write the missing files of a group; or add up the summaries of the splits."""
        if has_summaries(group):
            total = SplitSummary()
            for value in sorted(values):
                total.add(SplitSummary.from_json(value.decode()))
            yield ResultRow.of(json.dumps({"splits": total.__dict__}).encode())
            return
        marker = self.job.folder.work_file(f"groups/{group:05d}.json")
        summary = self._finished_summary(marker)
        if summary is None:
            summary = self._group_summary(group, (value for value in values if value))
            write_sealed(marker, summary, self.job.run)
        yield ResultRow.of(json.dumps(summary).encode())

    def _group_summary(self, group: int, values: Iterable[bytes]) -> dict[str, Any]:
        """Return a group's summary, after writing its shards or finding them unchanged for identical documents."""
        watch = Stopwatch()
        with watch.time("gather"):
            self._shuffle = self._shuffle or self.job.make_shuffle()
            items = sorted(self._shuffle.gather(group, values))
            digest, name = items_digest(items), f"groups/{group:05d}.json"
            summary = self._previous_summary(name)
        reused = summary is not None and summary["items"] == digest
        if summary is None or not reused:
            summary = self._write(group, Group.build(items, self.job.config.dedup == "none"), watch) | {"items": digest}
            filesystem.write_bytes(self.job.folder.file(name), json.dumps(summary).encode(), sync=False)
        sha256 = hashlib.sha256(json.dumps(summary).encode()).hexdigest()
        return summary | {"files": summary["files"] | {name: sha256}, "seconds": watch.seconds, "reused": reused}

    def _finished_summary(self, marker: str) -> dict[str, Any] | None:
        """Return the summary that an interrupted run left, if the group's files are still as they were written."""
        summary = read_sealed(marker, self.job.run)
        if summary is None or "token_lengths" not in summary:  # written by a version without `text_counts`
            return None
        return summary if all(self._is_unchanged(*file) for file in _files(summary).items()) else None

    def _previous_summary(self, record: str) -> dict[str, Any] | None:
        """Return a group's summary in the dataset being updated, if it and all its files match dataset.json."""
        if self._previous is None:
            previous = self.job.folder.previous_manifest()
            self._previous = previous["files"] if previous else {}
        if not self._is_unchanged(record, self._previous.get(record, "")):
            return None
        summary = json.loads(filesystem.read_bytes(self.job.folder.file(record)))
        if self.job.config.compression == "none" and not all("blocks" in shard for shard in summary["shards"]):
            return None  # written by a version without index.json
        if "token_lengths" not in summary:
            return None  # written by a version without `text_counts`
        return summary if all(self._is_unchanged(*file) for file in _files(summary).items()) else None

    def _is_unchanged(self, name: str, sha256: str) -> bool:
        path = self.job.folder.file(name)
        return filesystem.exists(path) and filesystem.sha256(path) == sha256

    def _write(self, index: int, group: Group, watch: Stopwatch) -> dict[str, Any]:
        config = self.job.config
        split = "train" if index < config.num_groups else "eval"
        with watch.time("statistics"):
            repeated = statistics.repeated_sentences(group, config.max_text_tokens)
        shards, files = [], {}
        for copy in range(config.dupe_factor if split == "train" else 1):
            name = shard_name(index, config.num_groups, self.job.num_eval_groups, copy)
            shard, written = self._shard(index, copy, name, group, watch)
            if config.provenance:
                with watch.time("provenance"):
                    provenance = provenance_name(name)
                    table = provenance_table(group, shard.pairs, bool(config.id_field), shard.starts)
                    files[provenance] = write_parquet(self.job.folder.file(provenance), table)
            entry = {"name": name, "split": split, "group": index, "copy": copy, "repeated_sentences": repeated}
            shards.append(entry | written)
        documents = documents_name(split, index, config.num_groups)
        files[documents] = write_parquet(self.job.folder.file(documents), documents_table(group, bool(config.id_field)))
        summary = {
            "split": split,
            "group": index,
            "documents": len(group.keys),
            "duplicates": group.duplicates,
            **text_counts(group),
            "shards": shards,
            "files": files,
        }
        return summary | ({"ids": document_ids.group_ids(group)} if config.id_field else {})

    def _shard(self, index: int, copy: int, name: str, group: Group, watch: Stopwatch) -> tuple[Shard, dict[str, Any]]:
        config, vocabulary = self.job.config, prepare_job.load_vocabulary(self.job.vocabulary)
        split = "train" if index < config.num_groups else "eval"
        collector = statistics.StatisticsCollector(config, vocabulary, split, copy)
        path = self.job.folder.file(name)
        with ExitStack() as stack:
            sink = filesystem.Hashed(stack.enter_context(filesystem.atomic_write(path, sync=False)))
            write = sink.write
            if config.compression == "gzip":
                write = stack.enter_context(gzip.GzipFile("", "wb", 6, sink, mtime=0)).write
            shard = write_shard(group, index, copy, config, vocabulary, write, watch, collector.add)
        with watch.time("statistics"):
            packed = statistics.pack(collector.sums())
        return shard, {
            "examples": len(shard.pairs),
            **shard.packing,
            "bytes": sink.size,
            "sha256": sink.digest.hexdigest(),
            "counts": shard.counts,
            "labels_forced": shard.pairs.forced,
            "labels_drawn": shard.pairs.drawn,
            "random_prob": shard.pairs.random_prob,
            "statistics": packed,
            **({"blocks": shard.blocks} if config.compression == "none" else {}),
        }
