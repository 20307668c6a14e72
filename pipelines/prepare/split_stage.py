"""Stages that read splits in the workers of `prepare`, without Beam.

Each stage is a plain object that is pickled to the workers. It leaves only complete files and can be run again: it finds
what an earlier run finished and doesn't repeat it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import starmap

import numpy as np

from clozemill.pipelines.dataset import clusters
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.filtering import decontamination, exclusion
from clozemill.pipelines.prepare import job as prepare_job
from clozemill.pipelines.prepare.document_processor import DocumentProcessor, Screen
from clozemill.pipelines.prepare.job import Job
from clozemill.pipelines.prepare.rows import GroupRow, SummaryRow
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from clozemill.pipelines.shuffle import keys
from clozemill.pipelines.text.wordpiece import WordPiece


@dataclass
class SplitProcessorStage:
    """Base of the stages that read splits: `setup` builds the tokenizer and the screens once per worker.

    Subclasses define `__call__`: the rows of a split for the shuffle.
    """

    job: Job
    processor: DocumentProcessor = field(init=False, repr=False, compare=False)  # not there before `setup`

    def setup(self) -> None:
        """Build the document processor."""
        config, vocabulary = self.job.config, prepare_job.load_vocabulary(self.job.vocabulary)
        tokenizer = WordPiece(vocabulary, config.cased, config.rules)
        self.processor = DocumentProcessor(config, tokenizer, self.screens(), self._excluded())

    def _excluded(self) -> frozenset[str]:
        """Return the ids of documents to leave out."""
        if not self.job.exclusion:
            return frozenset()
        return exclusion.load(filesystem.read_bytes(self.job.folder.work_file(exclusion.NAME)))

    def screens(self) -> tuple[Screen, ...]:
        """Return the screen against evaluation sets."""
        if not self.job.evaluation:
            return ()
        evaluation = decontamination.load(filesystem.read_bytes(self.job.folder.work_file(decontamination.NAME)))
        words = prepare_job.load_words(self.job.vocabulary)

        def contaminated(key: bytes, ids: np.ndarray) -> tuple[str, str] | None:
            if found := evaluation.find(ids, words):
                return "contaminated", f"{found[0]!r} is in {found[1]}"
            return None

        return (contaminated,)


@dataclass
class SplitStage(SplitProcessorStage):
    """Turns a split into rows for the shuffle, and one row with its summary."""

    _clusters: clusters.Clusters = clusters.NONE

    def setup(self) -> None:
        """Build the document processor, and read the clusters of near-duplicates."""
        if self.job.config.clustered:
            self._clusters = clusters.read(self.job.folder.file(clusters.NAME))
        super().setup()

    def screens(self) -> tuple[Screen, ...]:
        """Add a screen that keeps only one document of each cluster."""

        def near_duplicate(key: bytes, ids: np.ndarray) -> tuple[str, str] | None:
            survivor = self._clusters.survivor(key)
            return (
                None if survivor == key else ("near_duplicate", f"document {key.hex()} is a near-duplicate of {survivor.hex()}")
            )

        return super().screens() + ((near_duplicate,) if self.job.config.dedup == "near" else ())

    def __call__(self, split: InputSplit) -> Iterator[GroupRow | SummaryRow]:
        """Yield the rows of a split. A split that the shuffle has from an earlier run isn't read again."""
        name, shuffle = self.job.split_name(split), self.job.make_shuffle()
        summary = shuffle.finished_summary(name)
        if summary is None:
            yield from starmap(GroupRow, shuffle.scatter(name, self._items(split)))
            self._write_rejects(f"rejects/{split_id(split)}.jsonl")
            summary = self.processor.summary.to_json().encode()
            shuffle.mark_finished(name, summary)
        yield SummaryRow.of(summary)

    def _items(self, split: InputSplit) -> Iterator[tuple[int, bytes, bytes]]:
        config, evals = self.job.config, self.job.num_eval_groups
        for key, payload in self.processor(split):
            side = self._clusters.survivor(key)
            yield *keys.assign_group(key, config.seed, config.num_groups, evals, config.eval_fraction, side), payload

    def _write_rejects(self, name: str) -> None:
        if self.processor.rejects:
            lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in self.processor.rejects)
            filesystem.write_bytes(self.job.folder.file(name), lines.encode("utf-8", "backslashreplace"), sync=False)
