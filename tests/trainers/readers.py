"""Both readers of batches under one interface, so that tests run on each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest

from clozemill.trainers.data import graph_reader, numpy_reader
from clozemill.trainers.data.input_pipeline import TrainReader


def _graph_batches(described: Any) -> Iterator[dict[str, np.ndarray]]:
    return graph_reader.dataset_of(described).as_numpy_iterator()


def _graph_records(reader: TrainReader, step: int) -> Iterator[list[bytes]]:
    return (chunk.tolist() for chunk in graph_reader.train_records(reader, step).as_numpy_iterator())


def _numpy_records(reader: TrainReader, step: int) -> Iterator[list[bytes]]:
    return (records for records, _ in numpy_reader.train_records(reader, step))


@dataclass(frozen=True)
class Reading:
    """A reader: its batches of a description, and the records of a host, a few batches at a time."""

    batches: Callable[[Any], Iterator[dict[str, np.ndarray]]]
    records: Callable[[TrainReader, int], Iterator[list[bytes]]]

    def take(self, reader: TrainReader, steps: int, step: int = 0) -> list[bytes]:
        """Return the records of a host for some steps."""
        wanted, found, stream = steps * reader.batch_size // reader.hosts, [], self.records(reader, step)
        while len(found) < wanted:
            found += next(stream)
        return found[:wanted]

    def first(self, described: Any, count: int) -> list[dict[str, np.ndarray]]:
        """Return the first batches."""
        return list(islice(self.batches(described), count))


READINGS = {
    "graph": Reading(_graph_batches, _graph_records),
    "numpy": Reading(numpy_reader.batches_of, _numpy_records),
}
on_both = pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS.keys())
