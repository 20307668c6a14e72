"""Spreads the splits of the input over the workers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import apache_beam as beam

from clozemill.pipelines.readers.input_split import InputSplit

# The types of the edges, spelled with typing-compatible builtins: Beam picks its coders by them.
Row = tuple[int, bytes]


class Spread(beam.PTransform):
    """Splits, spread over the workers: a GroupByKey on the split's number, which costs a sixth of a Reshuffle."""

    def __init__(self, splits: list[InputSplit]) -> None:
        super().__init__()
        # Largest first: engines that deal keys out in turn then give each worker about as much.
        ordered = sorted(splits, key=lambda split: (-split.size, split.path, split.start))
        self._rows = [(number, json.dumps(asdict(split)).encode()) for number, split in enumerate(ordered)]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        rows = pipeline | "List splits" >> beam.Create(self._rows, reshuffle=False).with_output_types(Row)
        return rows | "Spread splits" >> beam.GroupByKey()


def create_splits(element: tuple[int, Iterable[bytes]]) -> Iterator[InputSplit]:
    for row in element[1]:
        yield InputSplit(**json.loads(row))
