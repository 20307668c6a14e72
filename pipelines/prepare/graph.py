"""Beam graph of `prepare`: splits -> items -> [the only shuffle] -> shards -> dataset.json.

Uses only the portable subset of Beam, so that the same pipeline runs on FnApiRunner, the portable job service, Dask, Spark,
Flink and Dataflow: Create without a reshuffle, ParDo, GroupByKey, one leaf, no tagged outputs, our own sinks. Workers
get no pipeline options, so the DoFns contain everything they need.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from clozemill.pipelines.beam import spread
from clozemill.pipelines.beam.spread import Spread
from clozemill.pipelines.prepare.dataset_stage import DatasetStage
from clozemill.pipelines.prepare.group_stage import GroupStage
from clozemill.pipelines.prepare.near_duplicate_stages import BandStage, ClusterStage, LinkStage
from clozemill.pipelines.prepare.split_stage import SplitStage
from clozemill.pipelines.readers.input_split import InputSplit


class _MillSplit(beam.DoFn):
    def __init__(self, stage: SplitStage | BandStage) -> None:
        self._stage = stage

    def setup(self) -> None:
        self._stage.setup()

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[spread.Row]:
        for split in spread.create_splits(element):
            yield from self._stage(split)


def prepare(
    pipeline: beam.Pipeline,
    splits: list[InputSplit],
    mill: SplitStage | BandStage,
    group: GroupStage | LinkStage,
    finish: DatasetStage | ClusterStage,
) -> beam.PCollection:
    """Build the pipeline of `prepare`, or with the stages of near_duplicate_stages.py, the search for near-duplicates.

    Every group also gets an empty row, so that groups without documents get shards, too.
    """
    # The empty rows come from a pseudo-split, because a second source would need a Flatten.
    every = InputSplit("", "", "", 0, group.job.total_groups, 0)
    return (
        pipeline
        | Spread([*splits, every])
        | "Mill splits" >> beam.ParDo(_MillSplit(mill)).with_output_types(spread.Row)
        | "Shuffle documents" >> beam.GroupByKey()
        | "Write shards" >> beam.FlatMapTuple(group.run).with_output_types(spread.Row)
        | "Gather summaries" >> beam.GroupByKey()
        | "Write the manifest" >> beam.MapTuple(finish.run).with_output_types(bytes)
    )
