"""The order of the examples: a function of (seed, epoch), independent of the starting point, complete over all hosts."""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.examples.columns import FEATURES
from clozemill.pipelines.shards import tf_example
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.input_pipeline import TrainReader, eval_batches, eval_rows, eval_steps, parse
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests.trainers import datasets
from tests.trainers.datasets import LENGTH, PREDICTIONS, records

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


def take(reader: TrainReader, count: int, begin: int = 0) -> list[bytes]:
    """Return the first records of a stream."""
    return list(reader.records(begin).take(count).as_numpy_iterator())


def files_of(reader: TrainReader, epoch: int) -> list[list[str]]:
    """Return the files of each window of an epoch, in order."""
    dataset = reader.contract
    shards = dataset.shards("train", epoch % dataset.copies)[reader.host :: reader.hosts]
    return [[dataset.path(shards[group]) for group in row if group >= 0] for row in reader.windows(epoch).numpy()]


def filled(files: Iterable[str]) -> list[str]:
    """Return the files that aren't empty."""
    return [path for path in files if Path(path).stat().st_size]


def held(dataset: PreparedDataset, copy: int, split: str = "train") -> list[bytes]:
    """Return all records of a copy, sorted."""
    return sorted(chain(*records(dataset, split, copy).values()))


def assert_same(batch: dict, rows: list[bytes], dataset: PreparedDataset) -> None:
    """Check that a batch contains these records, in this order."""
    columns = tf_example.decode(rows, dataset.max_seq_length, dataset.max_predictions)
    for name in FEATURES:
        np.testing.assert_array_equal(batch[name], getattr(columns, name), name)


def test_parse_matches_decode_of_the_pipeline(demo: PreparedDataset) -> None:
    rows = next(iter(records(demo, "train").values()))
    batch = parse(tf.constant(rows), demo)
    assert_same(batch, rows, demo)
    shapes = {"max_seq_length": (len(rows), 128), "max_predictions": (len(rows), 20), None: (len(rows),)}
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        name: shapes[length] for name, (_, length) in FEATURES.items()
    }
    assert {name for name, value in batch.items() if value.dtype == tf.float32} == {"masked_lm_weights"}
    assert {value.dtype for value in batch.values()} == {tf.float32, tf.int32}


@pytest.mark.parametrize("cycle_length", [1, 2, 8])
def test_an_epoch_is_a_permutation_of_its_copy(small: PreparedDataset, cycle_length: int) -> None:
    """For five epochs: epoch k has each record of copy k mod 3 once."""
    stream = iter(take(TrainReader(small, 7, cycle_length), sum(SIZES) + SIZES[0] + SIZES[1]))
    for epoch in range(5):
        found = list(islice(stream, SIZES[epoch % 3]))
        assert sorted(found) == held(small, epoch % 3)
        assert found != held(small, epoch % 3)


def test_an_epoch_of_the_demo_is_a_permutation_of_its_copy(demo: PreparedDataset) -> None:
    sizes = [sum(shard["examples"] for shard in demo.shards("train", copy)) for copy in (0, 1)]
    stream = iter(take(TrainReader(demo, 7, cycle_length=2), sum(sizes) + sizes[0]))
    first, second, third = (list(islice(stream, sizes[epoch % 2])) for epoch in range(3))
    assert (sorted(first), sorted(second), sorted(third)) == (held(demo, 0), held(demo, 1), held(demo, 0))
    assert first != third  # the same copy, in another order


def test_the_order_depends_on_the_seed(small: PreparedDataset) -> None:
    """Adjacent seeds, distant seeds, and seeds with equal lower halves all give different orders."""
    seeds = (0, 1, 2, 7, 7 + (1 << 32), 1 << 40, (1 << 63) - 1)
    orders = [take(TrainReader(small, seed, 2), SIZES[0]) for seed in seeds]
    assert len({tuple(order) for order in orders}) == len(seeds)
    assert {tuple(sorted(order)) for order in orders} == {tuple(held(small, 0))}
    assert take(TrainReader(small, 7, 2), SIZES[0]) == orders[3]


def test_every_epoch_has_a_different_order(small: PreparedDataset) -> None:
    """The same copy in epochs 0, 3, 6 and 9; with one window, so that the shuffle must differ, too."""
    reader = TrainReader(small, 7)
    stream = iter(take(reader, 3 * sum(SIZES) + SIZES[0]))
    orders = [tuple(islice(stream, SIZES[epoch % 3])) for epoch in range(10)]
    assert len(set(orders[::3])) == 4
    assert len({tuple(np.ravel(reader.windows(epoch))) for epoch in range(0, 30, 3)}) > 5


def test_every_window_is_shuffled_differently(tmp_path: Path) -> None:
    """Two epochs of three windows, a shard of nine records each: six different permutations."""
    dataset = datasets.write(tmp_path, [[9, 9, 9]])
    places = {record: place for rows in records(dataset, "train").values() for place, record in enumerate(rows)}
    found = [places[record] for record in take(TrainReader(dataset, 7, cycle_length=1), 54)]
    permutations = [tuple(found[at : at + 9]) for at in range(0, 54, 9)]
    assert len(set(permutations)) == 6 and all(sorted(one) == list(range(9)) for one in permutations)


def test_every_order_occurs(small: PreparedDataset) -> None:
    """Each shard is first in an epoch about equally often: 5 shards in 500 epochs, 100 each, standard deviation 9."""
    reader = TrainReader(small, 7)
    firsts = np.bincount([int(reader.windows(epoch)[0, 0]) for epoch in range(500)], minlength=5)
    assert firsts.sum() == 500 and abs(firsts - 100).max() < 4 * 9


def test_windows_are_read_in_order(small: PreparedDataset) -> None:
    """Records are shuffled within a window, but not across windows; with a buffer of 1, shards take turns."""
    reader = TrainReader(small, 7, cycle_length=2)
    shards = {record: path for path, rows in records(small, "train").items() for record in rows}
    in_order = [shards[record] for record in take(reader, SIZES[0])]
    stream, windows = iter(in_order), [filled(files) for files in files_of(reader, 0)]
    for files in windows:
        found = list(islice(stream, sum(len(records(small, "train")[path]) for path in files)))
        assert sorted(set(found)) == sorted(files)
    assert sorted(chain(*windows)) == sorted(path for path, rows in records(small, "train").items() if rows)
    unshuffled = [shards[record] for record in take(TrainReader(small, 7, 2, shuffle_buffer=1), SIZES[0])]
    assert list(dict.fromkeys(unshuffled)) == list(chain(*windows)) and unshuffled != in_order


GEOMETRIES = [  # (cycle_length, shuffle_buffer, host, hosts)
    (2, 10_000, 0, 1),
    (1, 4, 0, 1),
    (8, 3, 0, 1),
    (2, 10_000, 1, 2),
]
WHOLE: dict[tuple, list[bytes]] = {}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 3 * sum(SIZES)))
def test_reading_can_start_at_any_record(small: PreparedDataset, geometry: tuple, begin: int) -> None:
    """records(i) is the tail of records(0), up to several rounds of all copies and beyond."""
    reader = TrainReader(small, 11, *geometry)
    if geometry not in WHOLE:
        WHOLE[geometry] = take(reader, 3 * sum(SIZES) + 20)
    assert take(reader, 20, begin) == WHOLE[geometry][begin : begin + 20]


def test_reading_can_start_at_windows_and_epochs(small: PreparedDataset) -> None:
    """Also one example before them."""
    reader = TrainReader(small, 11, cycle_length=2)
    whole = take(reader, SIZES[0] + SIZES[1] + 20)
    places = [reader.seek(example) for example in range(SIZES[0] + SIZES[1])]
    begins = [example for example, (_, _, skip) in enumerate(places) if skip == 0]
    assert len(begins) == 5  # and one window is empty
    for begin in begins[1:]:
        assert take(reader, 9, begin) == whole[begin : begin + 9], begin
        assert take(reader, 9, begin - 1) == whole[begin - 1 : begin + 8], begin


def test_literal_seek(small: PreparedDataset) -> None:
    """With all five shards in one window: copies of 25, 20 and 25 examples."""
    reader = TrainReader(small, 7)
    assert SIZES == [25, 20, 25]
    for example, place in {
        0: (0, 0, 0),
        24: (0, 0, 24),
        25: (1, 0, 0),
        44: (1, 0, 19),
        45: (2, 0, 0),
        69: (2, 0, 24),
        70: (3, 0, 0),
        70 * 10**9 + 46: (3 * 10**9 + 2, 0, 1),
    }.items():
        assert reader.seek(example) == place


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_seek_is_the_inverse_of_counting(small: PreparedDataset, geometry: tuple) -> None:
    """Every position of the first four epochs in order, none in an empty window."""
    reader = TrainReader(small, 11, *geometry)
    places = [
        (epoch, window, skip)
        for epoch in range(4)
        for window, row in enumerate(reader.windows(epoch).numpy())
        for skip in range(sum(reader.counts[epoch % 3][group] for group in row if group >= 0))
    ]
    assert [reader.seek(example) for example in range(len(places))] == places


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_shards_between_matches_the_shards_read(small: PreparedDataset, geometry: tuple) -> None:
    """The files of the windows of the examples, no others: exactly those read if a window is a shard."""
    reader = TrainReader(small, 11, *geometry)
    total = int(reader.counts.sum())
    whole = take(reader, total + 40)
    shards = {record: path for copy in range(3) for path, rows in records(small, "train", copy).items() for record in rows}
    for begin in range(0, total + 20, 7):
        for end in (begin + 1, begin + 5, begin + 20):
            named, read = list(reader.shards_between(begin, end)), {shards[record] for record in whole[begin:end]}
            windows = dict.fromkeys(reader.seek(example)[:2] for example in range(begin, end))
            touched = [path for epoch, window in windows for path in files_of(reader, epoch)[window]]
            assert read <= set(touched) and filled(named) == filled(touched)
            assert geometry[0] > 1 or read == set(filled(named))
    everything = [path for epoch in range(3) for files in files_of(reader, epoch) for path in files]
    assert filled(reader.shards_between(0, total)) == filled(everything)


@pytest.mark.parametrize(("name", "hosts"), [("small", 2), ("demo", 3)])
def test_hosts_share_every_copy_without_overlap(name: str, hosts: int, request: pytest.FixtureRequest) -> None:
    """An epoch of all hosts: disjoint files that together are the complete copy."""
    dataset = request.getfixturevalue(name)
    readers = [TrainReader(dataset, 7, 2, host=host, hosts=hosts) for host in range(hosts)]
    begins = np.zeros(hosts, int)
    for copy in range(dataset.copies):
        sizes = [int(reader.counts[copy].sum()) for reader in readers]
        parts = list(zip(readers, begins.tolist(), sizes, strict=True))
        files = [set(filled(reader.shards_between(begin, begin + size))) for reader, begin, size in parts]
        found = [record for reader, begin, size in parts for record in take(reader, size, begin)]
        assert sorted(found) == held(dataset, copy)
        assert sorted(chain(*files)) == sorted(filled(records(dataset, "train", copy)))
        begins += sizes


def test_batches_are_the_records_in_order(small: PreparedDataset) -> None:
    """Across epochs, from any example on, with static shapes."""
    reader = TrainReader(small, 7, cycle_length=2)
    rows = take(reader, 8 * 9)
    for begin in (0, 5):
        for number, batch in enumerate(reader.batches(8, begin).take(5).as_numpy_iterator()):
            assert_same(batch, rows[begin + 8 * number :][:8], small)
    spec = reader.batches(8).element_spec
    sizes = {"max_seq_length": [8, LENGTH], "max_predictions": [8, PREDICTIONS], None: [8]}
    assert {name: value.shape.as_list() for name, value in spec.items()} == {
        name: sizes[length] for name, (_, length) in FEATURES.items()
    }


@pytest.mark.parametrize("limit", [0, 1, 5, 100])
@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (5, 1), (64, 1), (6, 2), (12, 6)])
def test_eval_batches_contain_every_example_once(small: PreparedDataset, batch_size: int, hosts: int, limit: int) -> None:
    """Up to the limit, with weights of 1, followed only by fillers; two of six hosts have no shard."""
    counts, steps = eval_rows(small, hosts, limit), eval_steps(small, batch_size, hosts, limit)
    expected, found = held(small, 0, "eval"), []
    assert sum(counts) <= (limit or 16) and (limit or sum(counts) == 16)
    assert sum(counts) == min(limit or 16, 16) or hosts > 1  # hosts with fewer shards limit this
    assert steps * batch_size // hosts >= max(counts) > (steps - 1) * batch_size // hosts
    for host in range(hosts):
        data = eval_batches(small, batch_size // hosts, host, hosts, limit).take(steps + 1)
        batches = list(data.as_numpy_iterator())
        weights = np.concatenate([batch["example_weights"] for batch in batches])
        assert weights.dtype == np.float32 and weights.tolist() == [1.0] * counts[host] + [0.0] * (len(weights) - counts[host])
        assert all(len(batch["input_ids"]) == batch_size // hosts for batch in batches)
        rows = {name: np.concatenate([batch[name] for batch in batches]) for name in FEATURES}
        paths = [small.path(shard) for shard in small.shards("eval")[host::hosts]]
        mine = list(chain(*(records(small, "eval")[path] for path in paths)))[: counts[host]]
        assert_same({name: values[: counts[host]] for name, values in rows.items()}, mine, small)
        assert not rows["masked_lm_weights"][counts[host] :].any()
        assert (rows["input_mask"][counts[host] :].sum(axis=1) == 1).all()
        found += mine
    assert limit or sorted(found) == expected


def test_eval_of_the_demo_is_its_shard(demo: PreparedDataset) -> None:
    rows = list(chain(*records(demo, "eval").values()))
    assert eval_rows(demo) == [len(rows)] and eval_steps(demo, 50) == -(-len(rows) // 50)
    batches = list(eval_batches(demo, 50).take(eval_steps(demo, 50)).as_numpy_iterator())
    together = {name: np.concatenate([batch[name] for batch in batches])[: len(rows)] for name in FEATURES}
    assert_same(together, rows, demo)
    assert sum(batch["example_weights"].sum() for batch in batches) == len(rows)


def test_eval_batches_have_static_shapes(small: PreparedDataset) -> None:
    spec = eval_batches(small, 5).element_spec
    assert spec.keys() == FEATURES.keys() | {"example_weights"}
    assert all(value.shape.is_fully_defined() and value.shape[0] == 5 for value in spec.values())


def test_gzip(tmp_path: Path) -> None:
    zipped = datasets.write(tmp_path, [[6, 9]], [7], compression="gzip")
    assert (tmp_path / zipped.shards("eval")[0]["name"]).read_bytes()[:2] == b"\x1f\x8b"
    assert sorted(take(TrainReader(zipped, 3), 15)) == held(zipped, 0)
    batch = next(eval_batches(zipped, 7).as_numpy_iterator())
    assert_same(batch, held_in_order(zipped), zipped)


def held_in_order(dataset: PreparedDataset) -> list[bytes]:
    return list(chain(*records(dataset, "eval").values()))


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 1.0])
def test_a_changed_byte_is_found(tmp_path: Path, compression: str, where: float) -> None:
    """In a length, in data, in a checksum, in a train shard and in an eval shard."""
    dataset = datasets.write(tmp_path, [[9]], [9], compression=compression)
    for split in ("train", "eval"):
        path = Path(dataset.path(dataset.shards(split)[0]))
        data = bytearray(path.read_bytes())
        data[round(where * (len(data) - 1))] ^= 1
        path.write_bytes(data)
    for batches in (TrainReader(dataset, 3).batches(9), eval_batches(dataset, 9)):
        with pytest.raises(tf.errors.DataLossError):
            next(iter(batches))
