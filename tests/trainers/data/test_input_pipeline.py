"""The order of the examples: a function of (seed, epoch), independent of the starting point, complete over all hosts."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.masking import KEYS
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import MANIFEST
from clozemill.pipelines.examples.columns import FEATURES
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS
from clozemill.trainers.data import corrupt_shards, example_order, prepared_dataset
from clozemill.trainers.data.graph_reader import dataset_of, parse
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader, eval_rows, eval_steps
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.data.record_parser import parse_records
from tests.slow import mostly_slow_rows
from tests.trainers import datasets
from tests.trainers.datasets import LENGTH, PREDICTIONS, records
from tests.trainers.readers import Reading, on_both

TRAIN = [[5, 0, 11, 7, 2], [6, 1, 9, 0, 4], [3, 8, 8, 5, 1]]  # examples per shard of a copy
EVAL = [4, 0, 9, 3]
SIZES = [sum(row) for row in TRAIN]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Three copies of five shards, two of them empty, and four eval shards."""
    return datasets.write(tmp_path_factory.mktemp("small"), TRAIN, EVAL)


@pytest.fixture(scope="module")
def demo(demo_dataset: Path) -> PreparedDataset:
    return prepared_dataset.read(str(demo_dataset))


def held(dataset: PreparedDataset, copy: int, split: str = "train") -> list[bytes]:
    """Return all records of a copy, sorted."""
    return sorted(chain(*records(dataset, split, copy).values()))


def assert_same(batch: dict, rows: list[bytes], dataset: PreparedDataset) -> None:
    """Check that a batch contains these records, in this order."""
    columns = tf_example.decode(rows, dataset.max_seq_length, dataset.max_predictions)
    for name in FEATURES:
        np.testing.assert_array_equal(batch[name], getattr(columns, name), name)


def parse_in_graph(records: list[bytes], dataset: PreparedDataset) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in parse(tf.constant(records), dataset).items()}


@pytest.mark.parametrize("parse_rows", [parse_in_graph, parse_records])
def test_parse_matches_decode_of_the_pipeline(demo: PreparedDataset, parse_rows: Callable) -> None:
    rows = next(iter(records(demo, "train").values()))
    batch = parse_rows(rows, demo)
    assert_same(batch, rows, demo)
    shapes = {"max_seq_length": (len(rows), 128), "max_predictions": (len(rows), 20), None: (len(rows),)}
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        name: shapes[length] for name, (_, length) in FEATURES.items()
    }
    assert {name for name, value in batch.items() if value.dtype == np.float32} == {"masked_lm_weights"}
    assert {value.dtype for value in batch.values()} == {np.dtype("float32"), np.dtype("int32")}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Two copies of three shards with several blocks each, one of them of full blocks only."""
    sizes = [2 * BLOCK_RECORDS + 90, 3 * BLOCK_RECORDS, BLOCK_RECORDS + 1]
    return datasets.write(tmp_path_factory.mktemp("large"), [sizes, sizes[::-1]], [BLOCK_RECORDS + 9, 3])


@on_both
def test_an_epoch_is_a_permutation_of_its_copy(small: PreparedDataset, reading: Reading) -> None:
    """For five epochs: epoch k has each record of copy k mod 3 once, in another order than the shards."""
    total = sum(SIZES) + SIZES[0] + SIZES[1]
    stream = iter(reading.take(TrainReader(small, 7, 5), -(-total // 5)))
    for epoch in range(5):
        found = list(islice(stream, SIZES[epoch % 3]))
        assert sorted(found) == held(small, epoch % 3)
        assert found != held(small, epoch % 3)


@on_both
@pytest.mark.slow
@pytest.mark.parametrize("name", ["large", "demo"])
def test_epochs_of_larger_datasets(name: str, request: pytest.FixtureRequest, reading: Reading) -> None:
    dataset = request.getfixturevalue(name)
    sizes = [sum(shard["examples"] for shard in dataset.shards("train", copy)) for copy in (0, 1)]
    stream = iter(reading.take(TrainReader(dataset, 7, 16), -(-(sum(sizes) + sizes[0]) // 16)))
    first, second, third = (list(islice(stream, sizes[epoch % 2])) for epoch in range(3))
    assert (sorted(first), sorted(second), sorted(third)) == (held(dataset, 0), held(dataset, 1), held(dataset, 0))
    assert first != third  # the same copy, in another order


LANES = ("large", 96, 32, 70)


@on_both
@pytest.mark.parametrize(
    ("name", "batch_size", "hosts", "step"),
    mostly_slow_rows([("small", 12, 3, 7), ("large", 12, 3, 7), ("large", 16, 4, 0), LANES], ("small", 12, 3, 7), LANES),
)
def test_reads_what_the_order_says(
    name: str,
    batch_size: int,
    hosts: int,
    step: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    reading: Reading,
) -> None:
    """With as many lanes as possible: the records of the pieces of numpy's ExampleOrder, by lane and batch."""
    monkeypatch.setattr(example_order, "ROUNDS", 0.5)
    reader = TrainReader(request.getfixturevalue(name), 11, batch_size, hosts - 1, hosts)
    assert reader.parts[0].order.lanes >= 2
    assert reader.parts[0].order.length == LENGTH  # bounds the memory of long records
    assert reading.take(reader, 12, step) == expected_records(reader, step, 12)


def expected_records(reader: TrainReader, step: int, steps: int) -> list[bytes]:
    """Return what a host reads in some steps, from the shards as the pipelines read them."""
    order, blocks, dataset = reader.parts[0].order, reader.parts[0].blocks, reader.data
    shards = [records(dataset, "train", copy) for copy in range(dataset.copies)]
    columns = []
    for lane, begin, end in order.streams(reader.host, reader.hosts):
        found: list[bytes] = []
        pieces = order.pieces(lane, step)
        while len(found) < steps * order.width:
            piece = next(pieces)
            copy = piece.epoch % dataset.copies
            rows = shards[copy][blocks.path(copy, piece.block)]
            shard = blocks.shards[copy, piece.block]
            first = sum(blocks.counts[copy, : piece.block][blocks.shards[copy, : piece.block] == shard])
            found += [rows[first + place] for place in piece.places]
        columns.append([found[at + begin : at + end] for at in range(0, steps * order.width, order.width)])
    return list(chain(*(part for parts in zip(*columns, strict=True) for part in parts)))


@on_both
def test_any_number_of_hosts_reads_the_same_batches(large: PreparedDataset, reading: Reading) -> None:
    """The records of every batch, in their order, for 1, 2 and 3 hosts, from several steps on; the epoch ends in between."""
    whole = reading.take(TrainReader(large, 5, 24), 70, 0)
    for hosts in (2, 3):
        parts = [reading.take(TrainReader(large, 5, 24, host, hosts), 8, 62) for host in range(hosts)]
        share = 24 // hosts
        found = [part[at : at + share] for at in range(0, 8 * share, share) for part in parts]
        assert list(chain(*found)) == whole[62 * 24 :], hosts


@on_both
def test_a_later_phase_continues_the_order(large: PreparedDataset, reading: Reading) -> None:
    """Batches of 16, 16 and 48 from where batches of 32 end: each record of the epoch comes once, and the epochs go on."""
    total = sum(record["examples"] for record in large.shards("train", 0))
    phases, first, found = [(32, 10), (16, 5), (48, total // 48)], 0, []
    for size, steps in phases:
        found += reading.take(TrainReader(large, 11, size, 0, 1, first, 16), steps)
        first += size * steps
    assert found == reading.take(TrainReader(large, 11, 16), first // 16)
    assert sorted(found[:total]) == held(large, 0)
    assert first > total  # into the next copy


@on_both
def test_hosts_of_a_later_phase_share_its_batches(large: PreparedDataset, reading: Reading) -> None:
    """Every batch of 48 has the same records for one host and for two, from any step on."""
    whole = reading.take(TrainReader(large, 5, 48, 0, 1, 64, 16), 12)
    parts = [reading.take(TrainReader(large, 5, 48, host, 2, 64, 16), 9, 3) for host in range(2)]
    for step in range(9):
        mine = [row for part in parts for row in part[24 * step : 24 * (step + 1)]]
        assert sorted(mine) == sorted(whole[48 * (step + 3) : 48 * (step + 4)])
    reader = TrainReader(large, 5, 48, 0, 1, 64, 16)
    unit = TrainReader(large, 5, 16)
    assert set(reader.shards_between(3, 5)) == set(unit.shards_between((64 + 3 * 48) // 16, (64 + 5 * 48) // 16))


@on_both
def test_reading_can_start_at_any_step(large: PreparedDataset, reading: Reading) -> None:
    """records(i) is the tail of records(0), in the first epoch and in a later round of all copies."""
    reader = TrainReader(large, 11, 16)
    total = int(reader.parts[0].order.sizes.sum()) // 16
    whole = reading.take(reader, 2 * total + 20)
    for step in (3, 2 * total - 1):
        assert reading.take(reader, 20, step) == whole[16 * step : 16 * (step + 20)]


@on_both
def test_shards_between_are_the_shards_read(small: PreparedDataset, reading: Reading) -> None:
    dataset = small
    owner = {
        record: path
        for copy in range(dataset.copies)
        for path, rows in records(dataset, "train", copy).items()
        for record in rows
    }
    reader = TrainReader(dataset, 11, 16)
    assert {owner[record] for record in reading.take(reader, 7, 2)} == set(reader.shards_between(2, 9))


@on_both
def test_batches_are_the_records_in_order(small: PreparedDataset, reading: Reading) -> None:
    """Across epochs, from any step on; also as the smaller batches of several replicas."""
    reader = TrainReader(small, 7, 8)
    rows = reading.take(reader, 9)
    for size, step in ((8, 3), (4, 2)):
        for number, batch in enumerate(reading.first(reader.batches(size, step), 5)):
            assert_same(batch, rows[8 * step + size * number :][:size], small)


def test_shapes_in_the_graph_are_static(small: PreparedDataset) -> None:
    spec = dataset_of(TrainReader(small, 7, 8).batches(8)).element_spec
    sizes = {"max_seq_length": [8, LENGTH], "max_predictions": [8, PREDICTIONS], None: [8]}
    assert {name: value.shape.as_list() for name, value in spec.items()} == {
        name: sizes[length] for name, (_, length) in FEATURES.items()
    }
    evaluated = dataset_of(EvalBatches(small, 5)).element_spec
    assert evaluated.keys() == FEATURES.keys() | {"example_weights"}
    assert all(value.shape.is_fully_defined() and value.shape[0] == 5 for value in evaluated.values())


@on_both
@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_shards_without_an_index_are_one_block_each(tmp_path: Path, compression: str, reading: Reading) -> None:
    """As prepared by earlier versions, or compressed; every record once per epoch, for several hosts."""
    dataset = datasets.write(tmp_path, [[600, 40, 0]], [300], compression=compression, indexed=False)
    readers = [TrainReader(dataset, 3, 40, host, 2) for host in (0, 1)]
    assert readers[0].parts[0].blocks.counts.tolist() == [[600, 40]]
    assert sorted(chain(*(reading.take(reader, 16) for reader in readers))) == held(dataset, 0)


@on_both
def test_a_wrong_count_of_a_shard_without_an_index_allocates_nothing(tmp_path: Path, reading: Reading) -> None:
    """More records than fit into any memory: the shard is read before they are permuted."""
    path = Path(datasets.write(tmp_path, [[9, 40]], compression="gzip").folder) / MANIFEST
    contract = json.loads(path.read_bytes())
    contract["shards"][1]["examples"] = 1 << 52
    path.write_bytes(manifest.dumps(contract))
    dataset = prepared_dataset.read(str(tmp_path))
    message = "examples-00001-of-00002.tfrecord has 40 records, not 4503599627370496"
    with pytest.raises(UserError, match=message), corrupt_shards.report_corruption(dataset):
        reading.first(TrainReader(dataset, 3, 40).batches(40), 2)


HOSTS = ((1, 1), (5, 1), (64, 1), (6, 2), (12, 6))
EVALUATIONS = [(*sizes, limit) for sizes in HOSTS for limit in (0, 1, 5, 100)]
QUICK = [(5, 1, 0), (64, 1, 100), (6, 2, 1), (6, 2, 0)]


@on_both
@pytest.mark.parametrize(("batch_size", "hosts", "limit"), mostly_slow_rows(EVALUATIONS, *QUICK))
def test_eval_batches_contain_every_example_once(
    small: PreparedDataset, batch_size: int, hosts: int, limit: int, reading: Reading
) -> None:
    """Up to the limit, whatever the number of hosts, with weights of 1, followed only by fillers."""
    counts, steps = eval_rows(small, hosts, limit), eval_steps(small, batch_size, hosts, limit)
    expected, found = held_in_order(small)[: limit or None], []
    assert sum(counts) == min(limit or 16, 16)
    assert steps * batch_size // hosts >= max(counts) > (steps - 1) * batch_size // hosts
    for host in range(hosts):
        batches = reading.first(EvalBatches(small, batch_size // hosts, host, hosts, limit), steps + 1)
        weights = np.concatenate([batch["example_weights"] for batch in batches])
        assert weights.dtype == np.float32 and weights.tolist() == [1.0] * counts[host] + [0.0] * (len(weights) - counts[host])
        assert all(len(batch["input_ids"]) == batch_size // hosts for batch in batches)
        rows = {name: np.concatenate([batch[name] for batch in batches]) for name in FEATURES}
        mine = expected[len(found) :][: counts[host]]
        assert_same({name: values[: counts[host]] for name, values in rows.items()}, mine, small)
        assert not rows["masked_lm_weights"][counts[host] :].any()
        assert (rows["input_mask"][counts[host] :].sum(axis=1) == 1).all()
        found += mine
    assert found == expected


@on_both
@pytest.mark.parametrize("hosts", [1, 3])
def test_eval_batches_of_several_blocks(large: PreparedDataset, hosts: int, reading: Reading) -> None:
    counts = eval_rows(large, hosts, 263)
    assert sum(counts) == 263
    rows = {name: [] for name in FEATURES}
    for host in range(hosts):
        for batch in reading.first(EvalBatches(large, 8, host, hosts, 263), -(-counts[host] // 8)):
            kept = batch["example_weights"] > 0
            for name, values in rows.items():
                values.append(batch[name][kept])
    assert_same({name: np.concatenate(values) for name, values in rows.items()}, held_in_order(large)[:263], large)


@on_both
def test_eval_of_the_demo_is_its_shard(demo: PreparedDataset, reading: Reading) -> None:
    rows = list(chain(*records(demo, "eval").values()))
    assert eval_rows(demo) == [len(rows)] and eval_steps(demo, 50) == -(-len(rows) // 50)
    batches = reading.first(EvalBatches(demo, 50), eval_steps(demo, 50))
    together = {name: np.concatenate([batch[name] for batch in batches])[: len(rows)] for name in FEATURES}
    assert_same(together, rows, demo)
    assert sum(batch["example_weights"].sum() for batch in batches) == len(rows)


@on_both
def test_gzip(tmp_path: Path, reading: Reading) -> None:
    zipped = datasets.write(tmp_path, [[6, 9]], [7], compression="gzip")
    assert (tmp_path / zipped.shards("eval")[0]["name"]).read_bytes()[:2] == b"\x1f\x8b"
    assert sorted(reading.take(TrainReader(zipped, 3, 15), 1)) == held(zipped, 0)
    (batch,) = reading.first(EvalBatches(zipped, 7), 1)
    assert_same(batch, held_in_order(zipped), zipped)


def held_in_order(dataset: PreparedDataset) -> list[bytes]:
    return list(chain(*records(dataset, "eval").values()))


CHANGES = product((0.0, 0.4, 1.0), ("none", "gzip"))


@on_both
@pytest.mark.parametrize(("where", "compression"), mostly_slow_rows(CHANGES, (0.4, "gzip"), (1.0, "none")))
def test_a_changed_byte_is_found(tmp_path: Path, compression: str, where: float, reading: Reading) -> None:
    """In a length, in data, in a checksum, in a train shard and in an eval shard."""
    dataset = datasets.write(tmp_path, [[9]], [9], compression=compression)
    for split in ("train", "eval"):
        path = Path(dataset.path(dataset.shards(split)[0]))
        data = bytearray(path.read_bytes())
        data[round(where * (len(data) - 1))] ^= 1
        path.write_bytes(data)
    for batches in (TrainReader(dataset, 3, 9).batches(9), EvalBatches(dataset, 9)):
        with pytest.raises((tf.errors.DataLossError, tfrecord.CorruptRecord)):
            reading.first(batches, 1)


@on_both
def test_keys_of_masks_depend_on_seed_epoch_and_record_alone(small: PreparedDataset, reading: Reading) -> None:
    """Whatever the batches, hosts and starting point; the records come in the order that they have without keys."""
    numbers = [{record: at for at, record in enumerate(chain(*records(small, "train", copy).values()))} for copy in range(3)]

    def check(reader: TrainReader, step: int, steps: int, epochs: Callable[[int], int]) -> None:
        plain = reading.take(replace(reader, keyed=False), steps, step)
        batches = reading.first(reader.batches(reader.batch_size // reader.hosts, step), steps)
        found = np.concatenate([batch[KEYS] for batch in batches])
        assert found.dtype == np.int32 and {KEYS, *FEATURES} == set(batches[0])
        for at, (record, key) in enumerate(zip(plain, found, strict=True)):
            epoch = epochs(at)
            (expected,) = example_order.mask_keys(reader.seed, epoch, np.array([numbers[epoch % 3][record]]))
            assert key.tolist() == expected.tolist()

    starts = np.cumsum([0, *SIZES, *SIZES])
    check(TrainReader(small, 7, 5, keyed=True), 0, 20, lambda at: int(np.searchsorted(starts, at, "right")) - 1)
    check(TrainReader(small, 7, 5, keyed=True), 6, 14, lambda at: int(np.searchsorted(starts, at + 30, "right")) - 1)
    for host in (0, 1):
        check(TrainReader(small, 7, 4, host, 2, keyed=True), 0, 6, lambda at: 0)
    assert len({tuple(key) for epoch in (0, 3) for key in example_order.mask_keys(7, epoch, np.arange(500)).tolist()}) == 1000
