"""Batches of a mixture: both readers read what numpy's order says, for any number of hosts, from any step on."""

from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS
from clozemill.trainers.data import example_order, mixing
from clozemill.trainers.data.input_pipeline import TrainReader
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests.slow import mostly_slow_rows
from tests.trainers import datasets
from tests.trainers.datasets import records
from tests.trainers.readers import Reading, on_both


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedDataset, PreparedDataset]:
    """Two copies of shards with several blocks each, and a small dataset in gzip, whose shards are single blocks."""
    sizes = [2 * BLOCK_RECORDS + 90, BLOCK_RECORDS + 1]
    large = datasets.write(tmp_path_factory.mktemp("large"), [sizes, sizes[::-1]], [9])
    small = datasets.write(tmp_path_factory.mktemp("small"), [[31, 0, 40]], [4], compression="gzip")
    return large, small


@pytest.fixture(autouse=True)
def many_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_order, "ROUNDS", 0.4)


def expected(reader: TrainReader, steps: int, step: int = 0) -> list[bytes]:
    """Return what all hosts together read in some steps, from the shards as the pipelines read them and numpy's orders."""
    size, sequence, lanes = reader.parts[0].order.batch_size, mixing.turns(reader.mixture.counts), {}
    first = (reader.first_row + step * reader.batch_size) // size
    for each, (part, dataset) in enumerate(zip(reader.parts, reader.mixture.datasets, strict=True)):
        for lane in range(part.order.lanes):
            lanes[each, lane] = _lane(part, dataset, lane, first)
    rows = range(first * size, first * size + steps * reader.batch_size)
    turn = [int(sequence[row % len(sequence)]) for row in rows]
    widths = [part.order.width for part in reader.parts]
    return [next(lanes[each, row % size // widths[each]]) for each, row in zip(turn, rows, strict=True)]


def _lane(part, dataset: PreparedDataset, lane: int, step: int):
    """Yield the records of a lane from a step on."""
    shards, blocks = [records(dataset, "train", copy) for copy in range(dataset.copies)], part.blocks
    for piece in part.order.pieces(lane, step):
        copy = piece.epoch % dataset.copies
        same = blocks.shards[copy, : piece.block] == blocks.shards[copy, piece.block]
        first = int(blocks.counts[copy, : piece.block][same].sum())
        rows = shards[copy][blocks.path(copy, piece.block)]
        yield from (rows[first + place] for place in piece.places)


CASES = [
    ((7000, 3000), 24, 3, 5),  # the datasets have several lanes; their rows take turns within ten
    ((3333, 6667), 16, 1, 0),
    ((9999, 1), 20, 2, 6),  # the small one has one row in 500 batches: most chunks have none of it
    ((1000, 9000), 12, 6, 40),  # the large one is rare
    ((5000, 5000), 33, 3, 9),  # no lanes
    ((6000, 4000), 100, 4, 90),
]


@on_both
@pytest.mark.parametrize(("counts", "batch_size", "hosts", "step"), mostly_slow_rows(CASES, CASES[0], CASES[2]))
def test_reads_what_the_order_says(
    counts: tuple[int, ...],
    batch_size: int,
    hosts: int,
    step: int,
    pair: tuple[PreparedDataset, PreparedDataset],
    reading: Reading,
) -> None:
    mixture = Mixture(pair, counts)
    readers = [TrainReader(mixture, 11, batch_size, host, hosts) for host in range(hosts)]
    steps, share = 12, batch_size // hosts
    parts = [reading.take(reader, steps, step) for reader in readers]
    together = [part[at : at + share] for at in range(0, steps * share, share) for part in parts]
    assert list(chain(*together)) == expected(readers[0], steps, step)


def test_many_lanes_of_both(pair: tuple[PreparedDataset, PreparedDataset]) -> None:
    """What the first of the cases above needs to mean something."""
    reader = TrainReader(Mixture(pair, (7000, 3000)), 11, 24)
    assert [part.order.lanes for part in reader.parts] == [8, 4]


@on_both
def test_three_datasets_with_a_later_phase(pair: tuple[PreparedDataset, PreparedDataset], reading: Reading) -> None:
    """Batches of 48 of three datasets, in the order of batches of 16 that another phase has read 64 rows of."""
    mixture = Mixture((*pair, pair[0]), (5000, 2000, 3000))
    reader = TrainReader(mixture, 5, 48, 0, 1, 64, 16)
    assert reading.take(reader, 6, 3) == expected(reader, 6, 3)
    assert sum(len(part) for part in [reading.take(TrainReader(mixture, 5, 48, host, 2, 64, 16), 2) for host in range(2)]) == 96


@on_both
def test_shares_that_change_between_phases(pair: tuple[PreparedDataset, PreparedDataset], reading: Reading) -> None:
    """Every record of the epoch of a dataset comes once over three phases, in the order of its sequence."""
    large, _ = pair
    total, phases, found = 603, [((7000, 3000), 30), ((1000, 9000), 40), ((10000,), 30)], []
    read = [0, 0]
    for counts, steps in phases:
        mixture = Mixture(pair[: len(counts)], counts)
        reader = TrainReader(mixture, 9, 10, earlier=tuple(read[: len(counts)]))
        rows = reading.take(reader, steps)
        turn = mixing.turns(counts)[np.arange(10 * steps) % len(mixing.turns(counts))]
        found += [row for row, each in zip(rows, turn, strict=True) if each == 0]
        read = [before + int((turn == each).sum()) for each, before in enumerate(read)]
    assert read[0] == 210 + 40 + 300
    assert len(set(found)) == len(found) == read[0] < total
    assert found == reading.take(TrainReader(large, 9, 10, earlier=(0,)), 55)
    hosts = [reading.take(TrainReader(Mixture(pair, (1000, 9000)), 9, 10, host, 2, earlier=(210, 90)), 40) for host in (0, 1)]
    together = [row for at in range(0, 200, 5) for part in hosts for row in part[at : at + 5]]
    assert together == reading.take(TrainReader(Mixture(pair, (1000, 9000)), 9, 10, earlier=(210, 90)), 40)


@on_both
def test_batches_and_keys(pair: tuple[PreparedDataset, PreparedDataset], reading: Reading) -> None:
    """Parsed batches have the records in their order, with the keys of their masks."""
    mixture = Mixture(pair, (7000, 3000))
    reader, plain = TrainReader(mixture, 3, 24, keyed=True), TrainReader(mixture, 3, 24)
    (batch,) = reading.first(reader.batches(24, 2), 1)
    assert batch[KEYS].shape == (24, 2) and len({tuple(key) for key in batch[KEYS].tolist()}) == 24
    (without,) = reading.first(plain.batches(24, 2), 1)
    for name, values in without.items():
        np.testing.assert_array_equal(batch[name], values, name)
    ids = tf.io.parse_example(reading.take(plain, 1, 2), {"input_ids": tf.io.FixedLenFeature([datasets.LENGTH], tf.int64)})
    np.testing.assert_array_equal(without["input_ids"], ids["input_ids"].numpy())


@on_both
def test_shards_between_are_the_shards_read(pair: tuple[PreparedDataset, PreparedDataset], reading: Reading) -> None:
    owner = {
        record: path
        for dataset in pair
        for copy in range(dataset.copies)
        for path, rows in records(dataset, "train", copy).items()
        for record in rows
    }
    reader = TrainReader(Mixture(pair, (8000, 2000)), 11, 16)
    assert {owner[record] for record in reading.take(reader, 7, 2)} == set(reader.shards_between(2, 9))
