"""What is particular to the reader without TensorFlow: which bytes it reads, how far ahead, other forms of records, errors."""

import json
import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST
from clozemill.pipelines.shards import columnar
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS
from clozemill.trainers.common import storage
from clozemill.trainers.data import corrupt_shards, example_order, numpy_reader, prepared_dataset
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests.pipelines.shards.test_tf_example import wrap
from tests.trainers import datasets
from tests.trainers.data.test_read_ahead import running, until
from tests.trainers.readers import READINGS


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Shards of several blocks."""
    return datasets.write(tmp_path_factory.mktemp("large"), [[4 * BLOCK_RECORDS + 90, 3 * BLOCK_RECORDS]], [2 * BLOCK_RECORDS])


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The parts of files that are read."""
    found: list[tuple[str, int, int]] = []
    original = storage.read_range

    def noted(path: str, begin: int, end: int) -> bytes:
        found.append((path, begin, end))
        return original(path, begin, end)

    monkeypatch.setattr(storage, "read_range", noted)
    return found


def test_a_host_reads_its_own_blocks_and_no_other_bytes(
    large: PreparedDataset, ranges: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lane the block that it needs, and the next one from the middle of that block on."""
    monkeypatch.setattr(example_order, "ROUNDS", 1)
    reader = TrainReader(large, 3, 16, 1, 2)
    (part,) = reader.parts
    assert part.order.lanes == 4 and part.lanes == [2, 3]
    pieces = [part.order.pieces(lane) for lane in part.lanes]
    expected = [[next(each) for _ in range(2)] for each in pieces]
    stream = READINGS["numpy"].records(reader, 0)
    next(stream)  # four batches of 4 rows of each lane, of blocks of 256
    assert until(lambda: len(ranges) >= 2)

    def span(block: int) -> tuple[str, int, int]:
        begin, end = (int(table[0, block]) for table in (part.blocks.offsets, part.blocks.ends))
        return part.blocks.path(0, block), begin, end

    assert sorted(ranges) == sorted(span(first.block) for first, _ in expected)
    assert all(end - begin < Path(path).stat().st_size for path, begin, end in ranges)
    for _ in range(max(len(first) for first, _ in expected) // 16):
        next(stream)
    assert until(lambda: {span(second.block) for _, second in expected} <= set(ranges))


def test_what_waits_is_bounded(
    large: PreparedDataset, ranges: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long nobody asks for more, and the threads end when nobody can."""
    monkeypatch.setattr(numpy_reader, "_PARSED_ROWS", 16)
    stream = batches_of(TrainReader(large, 3, 8).batches(8))
    next(stream)
    assert running() == 1
    assert not until(lambda: len(ranges) > 1, seconds=0.2)
    del stream
    assert until(lambda: not any(thread.name.startswith(("read ahead", "fetch")) for thread in threading.enumerate()))


@pytest.mark.parametrize("packing", ["off", "on"])
def test_records_in_another_form_are_read_too(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of every third record come in reverse, as another program may write them."""
    dataset = datasets.write(tmp_path, [[40]], [30], length=datasets.ROW_LENGTH, packing=packing)
    for split in ("train", "eval"):
        ((path, records),) = datasets.records(dataset, split).items()
        with tf.io.TFRecordWriter(path) as writer:
            for number, record in enumerate(records):
                writer.write(record if number % 3 else _reversed(record))
    expected = [READINGS["graph"].first(batches, 2) for batches in _described(dataset)]
    left: list[bool] = []
    for name in ("decode_examples", "decode_rows"):
        original = getattr(columnar, name)
        monkeypatch.setattr(columnar, name, lambda *given, of=original: left.append(of(*given) is None) or of(*given))
    found = [READINGS["numpy"].first(batches, 2) for batches in _described(dataset)]
    assert any(left)
    for one, other in zip(chain(*found), chain(*expected), strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            assert one[name].dtype == values.dtype
            np.testing.assert_array_equal(one[name], values, name)


def _described(dataset: PreparedDataset) -> tuple:
    return TrainReader(dataset, 3, 7).batches(7), EvalBatches(dataset, 7)


def _reversed(record: bytes) -> bytes:
    """Return an example with its features in reverse order."""
    features = tf.train.Example.FromString(record).features.feature
    names = sorted(features, reverse=True)
    entries = b"".join(tf.train.Features(feature={name: features[name]}).SerializeToString() for name in names)
    return wrap(1, entries)


def test_a_missing_shard_is_one_sentence(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[9]], [9])
    paths = [dataset.path(dataset.shards(split)[0]) for split in ("train", "eval")]
    for path, batches in zip(paths, _described(dataset), strict=True):
        Path(path).rename(tmp_path / "away")
        with pytest.raises(UserError) as caught, corrupt_shards.report_corruption(dataset, likely=paths.copy):
            next(batches_of(batches))
        assert str(caught.value) == (
            f"{path} doesn't exist: restore it or rebuild the dataset; clozemill verify {tmp_path} lists all corrupt files"
        )
        (tmp_path / "away").rename(path)


def test_storage_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str, begin: int, end: int) -> bytes:
        raise OSError(5, "the connection was reset")

    monkeypatch.setattr(storage, "read_range", fails)
    dataset = datasets.write(tmp_path, [[9]])
    with pytest.raises(UserError) as caught, corrupt_shards.report_corruption(dataset):
        next(batches_of(TrainReader(dataset, 3, 7).batches(7)))
    path = dataset.path(dataset.shards("train")[0])
    assert str(caught.value) == f"{path} can't be read (the connection was reset): fix that and run the command again"


def test_a_shard_with_more_records_than_the_manifest_says(tmp_path: Path) -> None:
    dataset = datasets.write(tmp_path, [[9]])
    path = Path(dataset.path(dataset.shards("train")[0]))
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(UserError, match="has 18 records, not 9"), corrupt_shards.report_corruption(dataset):
        next(batches_of(TrainReader(dataset, 3, 7).batches(7)))


def test_a_manifest_without_the_bytes_of_a_shard_of_today(tmp_path: Path) -> None:
    """A wrong size in dataset.json is noticed, and nothing beyond it is read."""
    path = Path(datasets.write(tmp_path, [[9]]).folder) / MANIFEST
    contract = json.loads(path.read_bytes())
    contract["shards"][0]["bytes"] -= 9
    contract["files"].pop(INDEX)
    path.write_bytes(manifest.dumps(contract))
    dataset = prepared_dataset.read(str(tmp_path))
    with pytest.raises(UserError, match="can't be read"), corrupt_shards.report_corruption(dataset):
        next(batches_of(TrainReader(dataset, 3, 7).batches(7)))
