"""Run the stages of `prepare` in this process, without the startup of Beam: on parts of a sample, or on a small corpus."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clozemill.pipelines.config import InputOptions, PrepareConfig, VocabConfig
from clozemill.pipelines.dataset.manifest import add_counts
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.prepare.dataset_folder import DatasetFolder
from clozemill.pipelines.prepare.document_processor import SplitSummary
from clozemill.pipelines.prepare.group_stage import GroupStage
from clozemill.pipelines.prepare.job import Job
from clozemill.pipelines.prepare.split_stage import SplitStage
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.vocab import training


@dataclass
class DryRun:
    """The result of running the stages on some splits.

    disk: bytes on disk that the splits represent. summary: of the splits. groups: one row per group, as in dataset.json.
    split_seconds, group_seconds: CPU seconds before and after the shuffle, the latter per copy. split_stages, group_stages:
    seconds that the stages measured themselves.
    """

    disk: float
    summary: SplitSummary
    groups: list[dict[str, Any]]
    split_seconds: float
    group_seconds: float
    split_stages: dict[str, float] = field(default_factory=dict)
    group_stages: dict[str, float] = field(default_factory=dict)

    def count(self, split: str, what: str) -> int:
        """Return the sum of a metric over the shards of a split: examples, rows or bytes."""
        return sum(shard[what] for group in self.groups if group["split"] == split for shard in group["shards"])

    def most(self, what: str) -> int:
        """Return the largest value of a metric over all shards: max_examples or max_predictions of packed rows."""
        return max((shard[what] for group in self.groups for shard in group["shards"]), default=0)

    def positions(self) -> tuple[int, int]:
        """Return the positions of all records, and those of them that are padding."""
        counts = [shard["counts"] for group in self.groups for shard in group["shards"]]
        padding = sum(each["padding"] for each in counts)
        return padding + sum(each["tokens"] for each in counts), padding

    @property
    def documents(self) -> int:
        return sum(group["documents"] for group in self.groups)

    @property
    def duplicates(self) -> int:
        return sum(group["duplicates"] for group in self.groups)


def padding_percent(parts: list[DryRun]) -> tuple[float, float, float]:
    """Return the share of all positions that are padding, in percent, and the lowest and highest share of a part."""
    positions, padding = (sum(values) for values in zip(*(part.positions() for part in parts), strict=True))
    shares = [100 * empty / places for places, empty in (part.positions() for part in parts) if places]
    return 100 * padding / max(positions, 1), min(shares, default=0.0), max(shares, default=0.0)


def largest_rows(parts: list[DryRun]) -> dict[str, int]:
    """Return the largest number of examples, and of predictions, of a packed row, as `packing` in dataset.json."""
    return {what: max(1, *(part.most(what) for part in parts)) for what in ("max_examples", "max_predictions")}


class Rehearsal:
    """Runs the stages repeatedly with one tokenizer, whose cache stays warm as in a worker."""

    def __init__(self, vocabulary_bytes: bytes, folder: str) -> None:
        self._vocabulary, self._folder = vocabulary_bytes, folder
        self._stage: SplitStage | None = None

    def run(
        self, splits: list[InputSplit], disk: float, config: PrepareConfig, eval_groups: int, tick: Callable[[], object]
    ) -> DryRun:
        """Turn splits into shards, which are removed afterwards.

        Args:
            config: with num_groups resolved. tick: called after each split and group.
        """
        output = os.path.join(self._folder, "dataset")
        # Near-duplicates are not detected: that requires the complete corpus.
        config = replace(config, output=output, dedup="none" if config.dedup == "none" else "exact", eval_by="document")
        job = Job(config, self._vocabulary, eval_groups, "files", DatasetFolder(output, os.path.join(output, "spill")))
        if self._stage is None:
            self._stage = SplitStage(job)
            self._stage.setup()
        self._stage.job = job
        total, begin = SplitSummary(), time.process_time()
        for split in splits:
            for _, summary in self._stage(split):
                total.add(SplitSummary.from_json(summary.decode()))
            tick()
        middle, groups, stage = time.process_time(), [], GroupStage(job)
        for group in range(job.total_groups):
            groups += [json.loads(row) for _, row in stage.run(group, [])]
            tick()
        end = time.process_time()
        shutil.rmtree(output)
        stages: dict[str, float] = {}
        for group in groups:
            add_counts(stages, group["seconds"])
        return DryRun(disk, total, groups, middle - begin, (end - middle) / config.dupe_factor, total.seconds, stages)


def vocabulary_of(splits: list[InputSplit], config: PrepareConfig, vocab_size: int) -> bytes:
    """Return the bytes of --vocab, or of a vocabulary learned from some splits (smaller if they yield fewer tokens).

    Raises UserError.
    """
    if config.vocab:
        data = filesystem.read_bytes(config.vocab)
        Vocabulary.from_bytes(data, config.vocab).check_wordpiece(config.vocab)
        return data
    shared = {field.name: getattr(config, field.name) for field in fields(InputOptions)}
    return training.learn_here(splits, VocabConfig(**shared, vocab_size=vocab_size))
