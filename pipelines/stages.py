"""What the workers of `prepare` do, free of Beam: a split to items, a group to shards, the summaries to dataset.json.

Each stage is a plain object that travels to the workers by pickling, leaves whole files only, and can be run again: it
finds what an earlier run finished and does not do it twice.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pipelines import clusters, decontamination, filesystem, manifest, seeds, statistics
from pipelines.config import PrepareConfig
from pipelines.documents import MapSummary, Miller, Screen
from pipelines.examples import ExampleSettings, mill
from pipelines.groups import Group, items_digest
from pipelines.pairs import Pairs, special_tokens
from pipelines.provenance import documents_name, documents_table, provenance_name, provenance_table, write_parquet
from pipelines.schema import PREVIOUS, VOCAB, WORK, Split, shard_name, split_id
from pipelines.sealed import read_sealed, write_sealed
from pipelines.shuffle import SHUFFLES, BeamShuffle, FilesShuffle
from pipelines.stopwatch import Stopwatch
from pipelines.wordpiece import Vocabulary, WordPiece
from pipelines.words import Words

Row = tuple[int, bytes]
REFUSED = "refused.txt"
GROUP_TEXT_BYTES = 12 << 20  # of clean text, about 3 million tokens: a group fits into memory many times over


def resolved(config: PrepareConfig, text_estimate: int) -> tuple[PrepareConfig, int]:
    """The configuration with its number of groups and of predictions, and the number of eval groups.

    text_estimate: bytes of clean text to expect, by the input's size on disk.
    """
    groups = config.num_groups or max(1, -(-text_estimate // GROUP_TEXT_BYTES))
    eval_groups = max(1, round(groups * config.eval_fraction)) if config.eval_fraction else 0
    return replace(config, num_groups=groups, max_predictions=config.predictions()), eval_groups


@dataclass(frozen=True)
class Job:
    """Everything a worker must know.

    config.num_groups is resolved. vocabulary: vocab.txt's bytes. spill: a local folder for the `files` shuffle.
    evaluation: the digest of the evaluation sets whose n-grams lie in the work folder, "" without any. run: a hash of all that
    decides what is written, which every intermediate file is bound to. splits: how many the input has; 0: not known.
    """

    config: PrepareConfig
    vocabulary: bytes
    num_eval_groups: int
    shuffle: str
    spill: str
    evaluation: str = ""
    run: str = ""
    splits: int = 0

    @property
    def folder(self) -> str:
        return self.config.output

    @property
    def total_groups(self) -> int:
        """Train groups, then eval groups; the row number after them carries the summaries of the splits."""
        return self.config.num_groups + self.num_eval_groups

    @property
    def datasheet(self) -> dict[str, list[str]]:
        """Sources, licences and languages as they were stated."""
        return {name: list(getattr(self.config, name)) for name in ("sources", "licenses", "languages")}

    def path(self, name: str) -> str:
        return filesystem.inside(self.folder, name)

    def work(self, name: str) -> str:
        return filesystem.inside(self.folder, f"{WORK}/{name}")

    def make_shuffle(self, part: str = "") -> FilesShuffle | BeamShuffle:
        """The shuffle of documents, or of a part that has a folder of its own."""
        folder = filesystem.join(self.spill, part) if part else self.spill
        return SHUFFLES[self.shuffle](folder, self.total_groups, self.run, self.splits)

    def split_name(self, split: Split) -> str:
        """The name of a split's intermediate files: those of another run have others."""
        return f"{split_id(split)}-{self.run[:16]}"


@lru_cache(maxsize=2)
def load_vocabulary(data: bytes) -> Vocabulary:
    """The vocabulary, parsed once per process."""
    return Vocabulary.from_bytes(data, VOCAB)


@lru_cache(maxsize=2)
def load_words(data: bytes) -> Words:
    """The words of a vocabulary, likewise."""
    return Words(load_vocabulary(data))


@dataclass
class Reading:
    """What reads splits: `setup` builds the tokenizer, and what keeps documents out besides the filters, once per worker.

    `rows` is a kind's own: a split to the rows that go into the shuffle.
    """

    job: Job
    miller: Miller | None = None

    def setup(self) -> None:
        """Builds the Miller."""
        config, vocabulary = self.job.config, load_vocabulary(self.job.vocabulary)
        self.miller = Miller(config, WordPiece(vocabulary, config.cased, config.rules), self.screens())

    def __call__(self, split: Split) -> Iterator[Row]:
        """The rows of a split; the one without a path stands for an empty row in every group."""
        if split.path:
            return self.rows(split)
        return ((group, b"") for group in range(self.job.total_groups))

    def screens(self) -> tuple[Screen, ...]:
        """Evaluation sets are kept out."""
        if not self.job.evaluation:
            return ()
        evaluation = decontamination.load(filesystem.read_bytes(self.job.work(decontamination.NAME)))
        words = load_words(self.job.vocabulary)

        def contaminated(key: bytes, ids: np.ndarray) -> tuple[str, str] | None:
            if found := evaluation.find(ids, words):
                return "contaminated", f"{found[0]!r} stands in {found[1]}"
            return None

        return (contaminated,)


@dataclass
class SplitStage(Reading):
    """A split to (group, bytes) rows for the shuffle, and its summary under the number after the last group."""

    _clusters: clusters.Clusters = clusters.NONE

    def setup(self) -> None:
        """Builds the Miller, and reads which documents are nearly the same."""
        if self.job.config.clustered:
            self._clusters = clusters.read(self.job.path(clusters.NAME))
        super().setup()

    def screens(self) -> tuple[Screen, ...]:
        """Near-duplicates are kept out, all but one of each cluster."""

        def near_duplicate(key: bytes, ids: np.ndarray) -> tuple[str, str] | None:
            survivor = self._clusters.survivor(key)
            return None if survivor == key else ("near_duplicate", f"document {key.hex()} is nearly {survivor.hex()}")

        return super().screens() + ((near_duplicate,) if self.job.config.dedup == "near" else ())

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of a split; one that the shuffle knows from an earlier run isn't read again."""
        name, shuffle = self.job.split_name(split), self.job.make_shuffle()
        summary = shuffle.finished(name)
        if summary is None:
            yield from shuffle.scatter(name, self._items(split))
            self._write_rejects(f"rejects/{split_id(split)}.jsonl")
            summary = self.miller.summary.to_json().encode()
            shuffle.finish(name, summary)
        yield self.job.total_groups, summary

    def _items(self, split: Split) -> Iterator[tuple[int, bytes, bytes]]:
        config, evals = self.job.config, self.job.num_eval_groups
        for key, payload in self.miller(split):
            side = self._clusters.survivor(key)
            yield *seeds.place(key, config.seed, config.num_groups, evals, config.eval_fraction, side), payload

    def _write_rejects(self, name: str) -> None:
        if self.miller.rejects:
            lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in self.miller.rejects)
            filesystem.write_bytes(self.job.path(name), lines.encode("utf-8", "backslashreplace"), sync=False)


def _files(summary: dict[str, Any]) -> dict[str, str]:
    """name -> SHA-256 of a group's files: its shards, and the lists beside them."""
    return summary["files"] | {shard["name"]: shard["sha256"] for shard in summary["shards"]}


@dataclass
class GroupStage:
    """A group's items to its shards; the row that comes out is its summary, all under key 0.

    Attributes: _previous: name -> SHA-256 of the files of the dataset that is being updated, once they were read.
    _shuffle: what the items come from, which lists its files once.
    """

    job: Job
    _previous: dict[str, str] | None = None
    _shuffle: FilesShuffle | BeamShuffle | None = None

    def run(self, group: int, values: Iterable[bytes]) -> Iterator[Row]:
        """Writes what the group lacks. The number after the last group stands for the splits' summaries."""
        if group == self.job.total_groups:
            total = MapSummary()
            for value in sorted(value for value in values if value):
                total.add(MapSummary.from_json(value.decode()))
            yield 0, json.dumps({"splits": total.__dict__}).encode()
            return
        marker = self.job.work(f"groups/{group:05d}.json")
        summary = self._finished(marker)
        if summary is None:
            summary = self._made(group, (value for value in values if value))
            write_sealed(marker, summary, self.job.run)
        yield 0, json.dumps(summary).encode()

    def _made(self, group: int, values: Iterable[bytes]) -> dict[str, Any]:
        """A group's summary, after its shards were made, or found to be made of the very same documents."""
        watch = Stopwatch()
        with watch.time("gather"):
            self._shuffle = self._shuffle or self.job.make_shuffle()
            items = sorted(self._shuffle.gather(group, values))
            digest, name = items_digest(items), f"groups/{group:05d}.json"
            before = self._before(name)
        if before is None or before["items"] != digest:
            before = self._write(group, Group.build(items, self.job.config.dedup == "none"), watch) | {"items": digest}
            filesystem.write_bytes(self.job.path(name), json.dumps(before).encode(), sync=False)
        sha256 = hashlib.sha256(json.dumps(before).encode()).hexdigest()
        return before | {"files": before["files"] | {name: sha256}, "seconds": watch.seconds}

    def _finished(self, marker: str) -> dict[str, Any] | None:
        """The summary that this run left when it was begun, if its files are there as they were written."""
        summary = read_sealed(marker, self.job.run)
        return summary if summary and all(self._same(*file) for file in _files(summary).items()) else None

    def _before(self, record: str) -> dict[str, Any] | None:
        """A group's summary in the dataset that is being updated, if it and all its files are as dataset.json has them."""
        if self._previous is None:
            path = self.job.path(PREVIOUS)
            self._previous = manifest.loads(filesystem.read_bytes(path), path)["files"] if filesystem.exists(path) else {}
        if not self._same(record, self._previous.get(record, "")):
            return None
        summary = json.loads(filesystem.read_bytes(self.job.path(record)))
        return summary if all(self._same(*file) for file in _files(summary).items()) else None

    def _same(self, name: str, sha256: str) -> bool:
        path = self.job.path(name)
        return filesystem.exists(path) and filesystem.sha256(path) == sha256

    def _write(self, index: int, group: Group, watch: Stopwatch) -> dict[str, Any]:
        config = self.job.config
        split = "train" if index < config.num_groups else "eval"
        with watch.time("statistics"):
            repeated = statistics.repeated_sentences(group, config.max_seq_length - special_tokens(config.pairs))
        shards, files = [], {}
        for copy in range(config.dupe_factor if split == "train" else 1):
            name = shard_name(index, config.num_groups, self.job.num_eval_groups, copy)
            pairs, entry = self._shard(index, copy, name, group, watch)
            if config.provenance:
                with watch.time("provenance"):
                    beside = provenance_name(name)
                    files[beside] = write_parquet(self.job.path(beside), provenance_table(group, pairs))
            about = {"name": name, "split": split, "group": index, "copy": copy, "repeated_sentences": repeated}
            shards.append(about | entry)
        documents = documents_name(split, index, config.num_groups)
        files[documents] = write_parquet(self.job.path(documents), documents_table(group))
        return {
            "split": split,
            "group": index,
            "documents": len(group.keys),
            "duplicates": group.duplicates,
            "shards": shards,
            "files": files,
        }

    def _shard(self, index: int, copy: int, name: str, group: Group, watch: Stopwatch) -> tuple[Pairs, dict[str, Any]]:
        config, vocabulary = self.job.config, load_vocabulary(self.job.vocabulary)
        settings = ExampleSettings(**{field: getattr(config, field) for field in ExampleSettings.__dataclass_fields__})
        split = "train" if index < config.num_groups else "eval"
        figures = statistics.Gatherer(statistics.Settings.of(vars(config)), vocabulary, split, copy)
        path = self.job.path(name)
        with ExitStack() as stack:
            sink = filesystem.Hashed(stack.enter_context(filesystem.atomic_write(path, sync=False)))
            write = sink.write
            if config.compression == "gzip":
                write = stack.enter_context(gzip.GzipFile("", "wb", 6, sink, mtime=0)).write
            shard = mill(group, index, copy, settings, vocabulary, write, watch, figures.add)
        with watch.time("statistics"):
            packed = statistics.pack(figures.sums())
        return shard.pairs, {
            "examples": len(shard.pairs),
            "bytes": sink.size,
            "sha256": sink.digest.hexdigest(),
            "counts": shard.counts,
            "labels_forced": shard.pairs.forced,
            "labels_drawn": shard.pairs.drawn,
            "random_prob": shard.pairs.random_prob,
            "statistics": packed,
        }
