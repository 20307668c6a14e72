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
from clozemill.pipelines.prepare.rows import GroupRow, Row
from clozemill.pipelines.prepare.split_stage import SplitStage
from clozemill.pipelines.readers.input_split import InputSplit


class _ProcessSplits(beam.DoFn):
    def __init__(self, stage: SplitStage | BandStage) -> None:
        self._stage = stage

    def setup(self) -> None:
        self._stage.setup()

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Row]:
        number, _ = element
        if number == 0:  # once in a run, because a second source would need a Flatten
            yield from map(GroupRow, range(self._stage.job.total_groups))
        for split in spread.create_splits(element):
            yield from self._stage(split)


def prepare(
    pipeline: beam.Pipeline,
    splits: list[InputSplit],
    split_stage: SplitStage | BandStage,
    group_stage: GroupStage | LinkStage,
    last_stage: DatasetStage | ClusterStage,
) -> beam.PCollection:
    """Build the pipeline of `prepare`, or with the stages of near_duplicate_stages.py, the search for near-duplicates.

    Every group also gets an empty row, so that groups without documents get shards, too.
    """
    return (
        pipeline
        | Spread(splits)
        | "Process splits" >> beam.ParDo(_ProcessSplits(split_stage)).with_output_types(Row)
        | "Shuffle documents" >> beam.GroupByKey()
        | "Write shards" >> beam.FlatMapTuple(group_stage.run).with_output_types(Row)
        | "Gather summaries" >> beam.GroupByKey()
        | "Write the manifest" >> beam.MapTuple(last_stage.run).with_output_types(bytes)
    )
