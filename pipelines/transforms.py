"""All Beam wiring: splits -> items -> [the one shuffle] -> shards -> dataset.json, and the word counts of `vocab`.

Stays inside the portable subset, so that one pipeline may run alike on FnApiRunner, the portable job service, Dask, Spark,
Flink and Dataflow: Create without a reshuffle, ParDo, GroupByKey, one leaf, no tagged outputs, our own sinks. Workers
get no pipeline options, so everything they need is in the DoFns.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import apache_beam as beam

from pipelines import filesystem, vocabulary
from pipelines.config import VocabConfig
from pipelines.deduplication import BandStage, ClusterStage, LinkStage
from pipelines.finish import ManifestStage
from pipelines.schema import Split, split_id
from pipelines.stages import GroupStage, SplitStage

# The types of the edges, spelled with typing-compatible builtins: Beam picks its coders by them.
Row = tuple[int, bytes]


class _Spread(beam.PTransform):
    """Splits, spread over the workers: a GroupByKey on the split's number, which costs a sixth of a Reshuffle."""

    def __init__(self, splits: list[Split]) -> None:
        super().__init__()
        # Largest first: engines that deal keys out in turn then give each worker about as much.
        ordered = sorted(splits, key=lambda split: (-split.size, split.path, split.start))
        self._rows = [(number, json.dumps(asdict(split)).encode()) for number, split in enumerate(ordered)]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        rows = pipeline | "List splits" >> beam.Create(self._rows, reshuffle=False).with_output_types(Row)
        return rows | "Spread splits" >> beam.GroupByKey()


def _splits(element: tuple[int, Iterable[bytes]]) -> Iterator[Split]:
    for row in element[1]:
        yield Split(**json.loads(row))


class _MillSplit(beam.DoFn):
    def __init__(self, stage: SplitStage | BandStage) -> None:
        self._stage = stage

    def setup(self) -> None:
        self._stage.setup()

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Row]:
        for split in _splits(element):
            yield from self._stage(split)


def prepare(
    pipeline: beam.Pipeline,
    splits: list[Split],
    mill: SplitStage | BandStage,
    group: GroupStage | LinkStage,
    finish: ManifestStage | ClusterStage,
) -> beam.PCollection:
    """The whole of `prepare`, or, with the stages of deduplication.py, what finds near-duplicates before it.

    Every group gets an empty row besides, so that groups without documents get shards too.
    """
    # The empty rows come from a pseudo-split, for a second source would need a Flatten.
    every = Split("", "", "", 0, group.job.total_groups, 0)
    return (
        pipeline
        | _Spread([*splits, every])
        | "Mill splits" >> beam.ParDo(_MillSplit(mill)).with_output_types(Row)
        | "Shuffle documents" >> beam.GroupByKey()
        | "Write shards" >> beam.FlatMapTuple(group.run).with_output_types(Row)
        | "Gather summaries" >> beam.GroupByKey()
        | "Write the manifest" >> beam.MapTuple(finish.run).with_output_types(bytes)
    )


class _CountWords(beam.DoFn):
    """`marks`: a folder in which each split that is done leaves a file, for the progress bar; or empty."""

    def __init__(self, config: VocabConfig, marks: str) -> None:
        self._config, self._marks = config, marks

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Row]:
        for split in _splits(element):
            yield from vocabulary.count_split(split, self._config)
            if self._marks:
                filesystem.write_bytes(filesystem.join(self._marks, f"{split_id(split)}.json"), b"", sync=False)


class _MergeCounts(beam.CombineFn):
    """Packed counts of one bucket of words to the sum of them; the engine lifts it before the shuffle."""

    def create_accumulator(self) -> dict[str, int]:
        return {}

    def add_input(self, accumulator: dict[str, int], packed: bytes) -> dict[str, int]:
        return vocabulary.add_packed(accumulator, packed)

    def merge_accumulators(self, accumulators: Iterable[dict[str, int]]) -> dict[str, int]:
        merged: dict[str, int] = {}
        for accumulator in accumulators:
            for word, count in accumulator.items():
                merged[word] = merged.get(word, 0) + count
        return merged

    def extract_output(self, accumulator: dict[str, int]) -> bytes:
        return vocabulary.pack(accumulator)


def learn_vocabulary(
    pipeline: beam.Pipeline, splits: list[Split], config: VocabConfig, marks: str, report: str
) -> beam.PCollection:
    """The whole of `vocab`: counts per bucket of words, rare words dropped, all under one key, the library, the file."""
    finish = vocabulary.VocabStage(config, report)
    return (
        pipeline
        | _Spread(splits)
        | "Count words" >> beam.ParDo(_CountWords(config, marks)).with_output_types(Row)
        | "Add up counts" >> beam.CombinePerKey(_MergeCounts()).with_output_types(Row)
        | "Drop rare words" >> beam.MapTuple(finish.drop_rare).with_output_types(Row)
        | "Gather counts" >> beam.GroupByKey()
        | "Learn the vocabulary" >> beam.MapTuple(finish.run).with_output_types(bytes)
    )
