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

from pipelines import filesystem, manifest, seeds
from pipelines.config import PrepareConfig
from pipelines.documents import MapSummary, Miller
from pipelines.examples import ExampleSettings, Shard, mill
from pipelines.groups import Group
from pipelines.options import identity
from pipelines.provenance import documents_name, documents_table, provenance_name, provenance_table, write_parquet
from pipelines.schema import MANIFEST, VOCAB, WORK, Split, UserError, shard_name, split_id
from pipelines.shuffle import SHUFFLES, BeamShuffle, FilesShuffle
from pipelines.stopwatch import Stopwatch
from pipelines.wordpiece import Vocabulary, WordPiece

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
    """

    config: PrepareConfig
    vocabulary: bytes
    num_eval_groups: int
    shuffle: str
    spill: str

    @property
    def folder(self) -> str:
        return self.config.output

    @property
    def total_groups(self) -> int:
        """Train groups, then eval groups; the row number after them carries the summaries of the splits."""
        return self.config.num_groups + self.num_eval_groups

    def path(self, name: str) -> str:
        return filesystem.join(self.folder, name)

    def work(self, name: str) -> str:
        return filesystem.join(self.folder, f"{WORK}/{name}")

    def make_shuffle(self) -> FilesShuffle | BeamShuffle:
        return SHUFFLES[self.shuffle](self.spill, self.total_groups)


@lru_cache(maxsize=2)
def load_vocabulary(data: bytes) -> Vocabulary:
    """The vocabulary, parsed once per process."""
    return Vocabulary.from_bytes(data, VOCAB)


@dataclass
class SplitStage:
    """A split to (group, bytes) rows for the shuffle, and its summary under the number after the last group."""

    job: Job
    _miller: Miller | None = None

    def setup(self) -> None:
        """Builds the tokenizer, once per worker."""
        config = self.job.config
        self._miller = Miller(config, WordPiece(load_vocabulary(self.job.vocabulary), config.cased))

    def __call__(self, split: Split) -> Iterator[Row]:
        """The rows of a split; one that the shuffle knows from an earlier run isn't read again."""
        if not split.path:
            yield from ((group, b"") for group in range(self.job.total_groups))
            return
        name, shuffle = split_id(split), self.job.make_shuffle()
        summary = shuffle.finished(name)
        if summary is None:
            yield from shuffle.scatter(name, self._items(split))
            self._write_rejects(f"rejects/{name}.jsonl")
            summary = self._miller.summary.to_json().encode()
            shuffle.finish(name, summary)
        yield self.job.total_groups, summary

    def _items(self, split: Split) -> Iterator[tuple[int, bytes, bytes]]:
        config, evals = self.job.config, self.job.num_eval_groups
        for key, payload in self._miller(split):
            yield *seeds.place(key, config.seed, config.num_groups, evals, config.eval_fraction), payload

    def _write_rejects(self, name: str) -> None:
        if self._miller.rejects:
            lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in self._miller.rejects)
            filesystem.write_bytes(self.job.path(name), lines.encode("utf-8", "backslashreplace"))


@dataclass
class GroupStage:
    """A group's items to its shards; the row that comes out is its summary, all under key 0."""

    job: Job

    @property
    def total_groups(self) -> int:
        return self.job.total_groups

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
            watch = Stopwatch()
            with watch.time("gather"):
                built = Group.build(self.job.make_shuffle().gather(group, (value for value in values if value)))
            summary = self._write(group, built, watch) | {"seconds": watch.seconds}
            filesystem.write_bytes(marker, json.dumps(summary).encode())
        yield 0, json.dumps(summary).encode()

    def _finished(self, marker: str) -> dict[str, Any] | None:
        """The summary that an earlier run left, if all files it speaks of are there and of the right size."""
        if not filesystem.exists(marker):
            return None
        summary = json.loads(filesystem.read_bytes(marker))
        whole = all(filesystem.size(self.job.path(shard["name"])) == shard["bytes"] for shard in summary["shards"])
        return summary if whole else None

    def _write(self, index: int, group: Group, watch: Stopwatch) -> dict[str, Any]:
        config = self.job.config
        split = "train" if index < config.num_groups else "eval"
        shards = []
        for copy in range(config.dupe_factor if split == "train" else 1):
            name = shard_name(index, config.num_groups, self.job.num_eval_groups, copy)
            shard, entry = self._shard(index, copy, name, group, watch)
            if config.provenance:
                with watch.time("provenance"):
                    write_parquet(self.job.path(provenance_name(name)), provenance_table(group, shard.pairs))
            shards.append({"name": name, "split": split, "group": index, "copy": copy, **entry})
        write_parquet(self.job.path(documents_name(split, index, config.num_groups)), documents_table(group))
        return {
            "split": split,
            "group": index,
            "documents": len(group.keys),
            "duplicates": group.duplicates,
            "shards": shards,
        }

    def _shard(self, index: int, copy: int, name: str, group: Group, watch: Stopwatch) -> tuple[Shard, dict[str, Any]]:
        config = self.job.config
        settings = ExampleSettings(**{field: getattr(config, field) for field in ExampleSettings.__dataclass_fields__})
        path = self.job.path(name)
        with ExitStack() as stack:
            sink = _Hashed(stack.enter_context(filesystem.atomic_write(path)))
            write = sink.write
            if config.compression == "gzip":
                write = stack.enter_context(gzip.GzipFile("", "wb", 6, sink, mtime=0)).write
            shard = mill(group, index, copy, settings, load_vocabulary(self.job.vocabulary), write, watch)
        return shard, {
            "examples": len(shard.pairs),
            "bytes": sink.size,
            "sha256": sink.digest.hexdigest(),
            "counts": shard.counts,
            "labels_forced": shard.pairs.forced,
            "labels_drawn": shard.pairs.drawn,
            "random_prob": shard.pairs.random_prob,
        }


class _Hashed:
    """A file that keeps the size and the SHA-256 of what is written to it."""

    def __init__(self, file: Any) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


@dataclass
class ManifestStage:
    """The summaries of all groups to dataset.json, written last: a dataset without it is unfinished."""

    job: Job

    def run(self, key: int, rows: Iterable[bytes]) -> bytes:
        """Checks the whole and writes the manifest. Raises UserError where the input gave nothing, or too much of it is bad."""
        summaries = [json.loads(row) for row in rows]
        groups = sorted((row for row in summaries if "shards" in row), key=lambda row: row["group"])
        splits = MapSummary(**next(row["splits"] for row in summaries if "splits" in row))
        try:
            self._check(splits, groups)
        except UserError as error:  # so that the next run may begin anew with other input or options
            filesystem.write_bytes(self.job.work(REFUSED), str(error).encode("utf-8", "replace"))
            raise
        config, vocabulary = self.job.config, load_vocabulary(self.job.vocabulary)
        documents = {
            "read": splits.read,
            "kept": sum(group["documents"] for group in groups),
            "dropped": dict(sorted(splits.dropped.items())),
            "defective": splits.bad,
            "characters": splits.characters,
            "sentences": splits.sentences,
            "tokens": splits.tokens,
            "unknown_tokens": splits.unknown,
        }
        about = {"sha256": vocabulary.sha256, "size": len(vocabulary), "cased": config.cased}
        full = {"input": list(config.input), **identity(config)}
        data = manifest.dumps(manifest.build(full, about, documents, groups, self.job.num_eval_groups))
        filesystem.write_bytes(self.job.work("times.json"), json.dumps(_times(splits, groups)).encode())
        filesystem.write_bytes(self.job.path(MANIFEST), data)
        return b"done"

    def _check(self, splits: MapSummary, groups: list[dict[str, Any]]) -> None:
        limit = self.job.config.max_reject_rate
        if splits.bad > limit * splits.read:
            raise UserError(
                f"{splits.bad:,} of {splits.read:,} records are defective, more than --max-reject-rate {limit:g} "
                f"allows, e.g. {splits.samples[0]}: see {self.job.path('rejects')}, then mend them or raise the rate"
            )
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(splits.dropped.items())) or "none dropped"
        if not any(group["documents"] for group in groups):
            raise UserError(
                f"the input holds no document to keep ({splits.read:,} records read: {dropped}): check --input and the filters"
            )
        if not any(shard["examples"] for group in groups if group["split"] == "train" for shard in group["shards"]):
            raise UserError(
                f"no training example could be built from {sum(g['documents'] for g in groups):,} documents: --pairs "
                f"{self.job.config.pairs} needs documents of two sentences, or a second document in the group: "
                "give more text or a smaller --num-groups"
            )


def _times(splits: MapSummary, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Seconds of all workers and megabytes per stage: of clean text before the shuffle, of shards after it."""
    text = {"mb": splits.characters / 1e6, "of": "clean text"}
    shards = {"mb": sum(shard["bytes"] for group in groups for shard in group["shards"]) / 1e6, "of": "shards"}
    times: dict[str, dict[str, Any]] = {name: {"seconds": seconds} | text for name, seconds in splits.seconds.items()}
    for group in groups:
        for name, seconds in group["seconds"].items():
            times.setdefault(name, {"seconds": 0.0} | shards)["seconds"] += seconds
    return times
