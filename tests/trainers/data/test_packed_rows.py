"""Packed rows as the trainer reads them: padded to static shapes, every eval example once, and corrupt rows named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns
from clozemill.pipelines.examples.packing import unpack_examples
from clozemill.pipelines.shards import tf_example
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.data.graph_reader import dataset_of
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader, eval_rows, eval_steps
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.pretraining.eval_columns import ragged
from tests.slow import mostly_slow
from tests.trainers import datasets
from tests.trainers.datasets import PREDICTIONS, ROW_LENGTH
from tests.trainers.readers import Reading, on_both

TRAIN, EVAL = [[9, 0, 14], [8, 6, 9]], [7, 0, 8, 1]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    """The same examples, packed and not."""
    folder = tmp_path_factory.mktemp("rows")
    return {
        packing: datasets.write(folder / packing, TRAIN, EVAL, length=ROW_LENGTH, packing=packing) for packing in ("on", "off")
    }


def texts(columns: Columns) -> list[bytes]:
    """Return the examples as bytes, sorted, to compare sets of them."""
    fields = [np.asarray(getattr(columns, name), np.float64) for name in FEATURES]
    return sorted(b"".join(values[row].tobytes() for values in fields) for row in range(len(columns)))


def examples_of(batches: Iterator[dict[str, np.ndarray]]) -> list[bytes]:
    """Return the examples in batches of packed rows."""
    return sorted(text for batch in batches for text in texts(unpack_examples(ragged(batch), PREDICTIONS)))


def unpacked(dataset: PreparedDataset, split: str, copy: int = 0) -> list[bytes]:
    rows = [row for shard in datasets.records(dataset, split, copy).values() for row in shard]
    return texts(tf_example.decode(rows, ROW_LENGTH, PREDICTIONS))


def test_sizes(both: dict[str, PreparedDataset]) -> None:
    """Counts of examples are those of the unpacked dataset; rows are fewer, and hold two or three examples at most."""
    packed, plain = both["on"], both["off"]
    assert packed.packed and not plain.packed
    assert (packed.train_examples, packed.eval_examples) == (plain.train_examples, plain.eval_examples) == (23, 16)
    assert plain.train_rows == 23 and 12 <= packed.train_rows <= 14
    assert plain.sizes == {"max_seq_length": ROW_LENGTH, "max_predictions": PREDICTIONS, "max_examples": 1, None: 1}
    assert 2 <= packed.sizes["max_examples"] <= 3 and PREDICTIONS < packed.sizes["max_predictions"] <= 3 * PREDICTIONS


@on_both
def test_an_epoch_has_every_example_once(both: dict[str, PreparedDataset], reading: Reading) -> None:
    """In equal shapes, copy after copy; a row keeps its examples."""
    packed = both["on"]
    reader = TrainReader(packed, 5, 1)
    assert {name: value.shape.as_list() for name, value in dataset_of(reader.batches(1)).element_spec.items()} == {
        name: [1, packed.sizes[length]] for name, (_, length) in PACKED_FEATURES.items()
    }
    first, stream = packed.train_rows, reading.first(reader.batches(1), 60)
    assert {name: values.shape for name, values in stream[0].items()} == {
        name: (1, packed.sizes[length]) for name, (_, length) in PACKED_FEATURES.items()
    }
    assert examples_of(iter(stream[:first])) == unpacked(both["off"], "train", 0)
    second = sum(manifest.records_of(shard) for shard in packed.shards("train", 1))
    assert examples_of(iter(stream[first : first + second])) == unpacked(both["off"], "train", 1)
    (entered,) = reading.first(reader.batches(1, first + 2), 1)
    assert all((entered[name] == stream[first + 2][name]).all() for name in PACKED_FEATURES)


@on_both
@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (5, 1), (64, 1), (6, 2)])
def test_eval_batches_contain_every_example_once(
    both: dict[str, PreparedDataset], batch_size: int, hosts: int, reading: Reading
) -> None:
    packed, found = both["on"], []
    steps = eval_steps(packed, batch_size, hosts)
    assert sum(eval_rows(packed, hosts)) == sum(manifest.records_of(shard) for shard in packed.shards("eval")) < 16
    for host in range(hosts):
        batches = reading.first(EvalBatches(packed, batch_size // hosts, host, hosts), steps)
        assert {len(batch["input_ids"]) for batch in batches} == {batch_size // hosts}
        fillers = np.concatenate([batch["example_weights"].sum(axis=1) for batch in batches])[eval_rows(packed, hosts)[host] :]
        assert not fillers.any()
        found += examples_of(iter(batches))
    assert sorted(found) == unpacked(both["off"], "eval")


def test_a_limit_counts_examples(both: dict[str, PreparedDataset]) -> None:
    """As many rows as hold so many examples on average, at least one."""
    rows = sum(eval_rows(both["on"]))
    assert [sum(eval_rows(both["on"], limit=limit)) for limit in (1, 8, 16, 100)] == [1, -(-8 * rows // 16), rows, rows]
    assert [sum(eval_rows(both["off"], limit=limit)) for limit in (1, 8, 16, 100)] == [1, 8, 16, 16]


def rewritten(dataset: PreparedDataset, folder: Path, records: list[bytes]) -> PreparedDataset:
    """Write a copy of a dataset whose first train shard has other records, as many as before."""
    for path in Path(dataset.folder).rglob("*"):
        if path.is_file():
            (folder / path.relative_to(dataset.folder)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(dataset.folder)).write_bytes(path.read_bytes())
    shard = dataset.shards("train")[0]
    assert len(records) == manifest.records_of(shard)
    with tf.io.TFRecordWriter(str(folder / shard["name"])) as writer:
        for record in records:
            writer.write(record)
    return prepared_dataset.read(str(folder))


def changed(record: bytes, feature: str, values: list[int]) -> bytes:
    """Return a record with other values of a feature."""
    example = tf.train.Example.FromString(record)
    example.features.feature[feature].int64_list.value[:] = values
    return example.SerializeToString(deterministic=True)


DAMAGES = ("unpacked", "too many examples", "too many predictions", "numbers", "no first", "out of order", "short")


@on_both
@pytest.mark.parametrize("damage", mostly_slow(DAMAGES, "unpacked", "too many examples", "out of order"))
def test_a_corrupt_row_is_one_sentence_with_its_file(
    both: dict[str, PreparedDataset], damage: str, tmp_path: Path, reading: Reading
) -> None:
    packed = both["on"]
    rows = next(iter(datasets.records(packed, "train").values()))
    plain = next(iter(datasets.records(both["off"], "train").values()))
    bad = {
        "unpacked": lambda: plain[0],
        "too many examples": lambda: changed(rows[1], "cls_positions", [0, 8, 16, 20]),
        "too many predictions": lambda: changed(rows[1], "masked_lm_ids", [7] * 10),
        "numbers": lambda: changed(rows[1], "example_ids", [1] * 8 + [3] * 8 + [0] * 8),
        "no first": lambda: changed(rows[1], "example_ids", [2] * 24),
        "out of order": lambda: changed(rows[1], "example_ids", [1] * 8 + [2] * 8 + [1] * 8),
        "short": lambda: changed(rows[1], "input_ids", [7] * 9),
    }[damage]()
    dataset = rewritten(packed, tmp_path / "bad", [rows[0], bad, *rows[2:]])
    path = dataset.path(dataset.shards("train")[0])
    with pytest.raises(UserError, match="record 1: ") as caught, corrupt_shards.report_corruption(dataset):
        reading.first(TrainReader(dataset, 3, packed.train_rows).batches(packed.train_rows), 1)
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)
    assert f"clozemill verify {dataset.folder} lists all corrupt files" in str(caught.value)
