"""The Beam graphs of `vocab`: splits -> word counts -> vocabulary."""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from clozemill.pipelines.beam import spread
from clozemill.pipelines.beam.spread import Spread
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from clozemill.pipelines.vocab import training, word_counts
from clozemill.pipelines.vocab.extension import ExtensionStage


class _CountWords(beam.DoFn):
    """Counts the words of splits. `marks`: folder in which each finished split writes a file for the progress bar; or ""."""

    def __init__(self, config: VocabConfig, marks: str) -> None:
        self._config, self._marks = config, marks

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[spread.Row]:
        for split in spread.create_splits(element):
            yield from word_counts.count_split(split, self._config)
            if self._marks:
                filesystem.write_bytes(filesystem.join(self._marks, f"{split_id(split)}.json"), b"", sync=False)


class _MergeCounts(beam.CombineFn):
    """Sums the packed counts of one bucket of words; the engine applies it before the shuffle, too."""

    def create_accumulator(self) -> dict[str, int]:
        return {}

    def add_input(self, accumulator: dict[str, int], packed: bytes) -> dict[str, int]:
        return word_counts.add_packed(accumulator, packed)

    def merge_accumulators(self, accumulators: Iterable[dict[str, int]]) -> dict[str, int]:
        merged: dict[str, int] = {}
        for accumulator in accumulators:
            for word, count in accumulator.items():
                merged[word] = merged.get(word, 0) + count
        return merged

    def extract_output(self, accumulator: dict[str, int]) -> bytes:
        return word_counts.pack(accumulator)


def _counted(
    pipeline: beam.Pipeline, splits: list[InputSplit], config: VocabConfig, marks: str, which: str = ""
) -> beam.PCollection:
    """Return the packed counts of each bucket of words. which: the end of the steps' labels."""
    return (
        pipeline
        | f"Spread{which}" >> Spread(splits)
        | f"Count words{which}" >> beam.ParDo(_CountWords(config, marks)).with_output_types(spread.Row)
        | f"Add up counts{which}" >> beam.CombinePerKey(_MergeCounts()).with_output_types(spread.Row)
    )


def learn_vocabulary(
    pipeline: beam.Pipeline, splits: list[InputSplit], stage: training.VocabStage, marks: str
) -> beam.PCollection:
    """Build the pipeline of `vocab`: count words per bucket, drop rare words, gather them under one key, and learn."""
    return (
        _counted(pipeline, splits, stage.config, marks)
        | "Drop rare words" >> beam.MapTuple(stage.prepare_counts).with_output_types(spread.Row)
        | "Gather counts" >> beam.GroupByKey()
        | "Learn the vocabulary" >> beam.MapTuple(stage.run).with_output_types(bytes)
    )


def extend_vocabulary(
    pipeline: beam.Pipeline, splits: list[InputSplit], general: list[InputSplit], stage: ExtensionStage, marks: str
) -> beam.PCollection:
    """Build the pipeline of `vocab --extend`: count the words of both corpora, gather them under one key, and choose pieces."""
    counts = _counted(pipeline, splits, stage.config, marks)
    rows = counts | "Name the input" >> beam.MapTuple(stage.prepare_counts).with_output_types(spread.Row)
    if general:
        others = _counted(pipeline, general, stage.config, marks, " of general text")
        named = others | "Name general text" >> beam.MapTuple(stage.prepare_general).with_output_types(spread.Row)
        rows = (rows, named) | "Both corpora" >> beam.Flatten()
    return (
        rows
        | "Gather counts" >> beam.GroupByKey()
        | "Extend the vocabulary" >> beam.MapTuple(stage.run).with_output_types(bytes)
    )
