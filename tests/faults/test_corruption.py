"""A shard changed anywhere: `verify` and the trainer's reader name file and record; an edited manifest is rejected."""

import gzip
import hashlib
import json
import re
import shutil
import struct
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import manifest, shard_index
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.quality import dataset_checks, shard_checks
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shards.blocks import offsets_of
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.data.graph_reader import train_records
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from tests.slow import mostly_slow
from tests.trainers import datasets
from tests.trainers.readers import Reading, on_both

FEW, MANY = 4, pytest.param(400, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=mostly_slow(("none", "gzip"), "none"))
def dataset(request, tmp_path_factory, demo_dataset: Path) -> Path:
    """A dataset to damage and repair, of one train shard and one eval shard, plain or compressed."""
    folder = Path(shutil.copytree(demo_dataset, tmp_path_factory.mktemp("corrupt") / "d"))
    about = json.loads((folder / "dataset.json").read_text())
    about["config"] |= {"compression": request.param, "num_groups": 1, "dupe_factor": 1}
    about["shards"] = about["shards"][:2]  # the eval shard and the first train shard
    for split in about["splits"].values():
        split["copies"] = {"00": split["copies"]["00"]}
    for shard in about["shards"]:
        path = folder / shard["name"]
        if request.param == "gzip":
            path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        shard |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    index = shard_index.dumps({shard["name"]: offsets_of((folder / shard["name"]).read_bytes()) for shard in about["shards"]}
                              if request.param == "none" else {})  # fmt: skip
    (folder / INDEX).write_bytes(index)
    about["files"][INDEX] = hashlib.sha256(index).hexdigest()
    (folder / "dataset.json").write_bytes(manifest.dumps(about))
    return folder


def altered(path: Path, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield (byte, content of the file) with a flipped bit in that byte, written to the file; restore it at the end."""
    good, stream = path.read_bytes(), np.random.default_rng(seed)
    try:
        for bit in stream.integers(0, 8 * len(good), count).tolist():
            data = bytearray(good)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            yield bit // 8, good
    finally:
        path.write_bytes(good)


def number_of(byte: int, data: bytes) -> int:
    """Return the record of a plain file whose frame contains a byte."""
    sizes = [len(record) + tfrecord.HEADER + tfrecord.FOOTER for record in tfrecord.read(data)]
    return sum(byte >= end for end in accumulate(sizes))


def found_by_verify(folder: Path, shard: dict, held: PreparedDataset) -> list[str]:
    _, vocabulary = read_contract(str(folder))
    return shard_checks.check_shard(str(folder), shard, held.manifest, vocabulary).violations


def told(held: PreparedDataset, reading: Reading, batches: Any, steps: int) -> str:
    """Return the error when a shard is read in batches, "" if there is none."""
    try:
        with corrupt_shards.report_corruption(held):
            reading.first(batches, steps)
    except UserError as error:
        return str(error)
    return ""


@on_both
@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_verify_and_the_trainer_name_a_flipped_bit(dataset: Path, split: str, count: int, reading: Reading) -> None:
    held = prepared_dataset.read(str(dataset))
    (shard,) = held.shards(split)
    plain = held.compression == "none"
    batches = TrainReader(held, 3, 8).batches(8) if split == "train" else EvalBatches(held, 8)
    steps = -(-shard["examples"] // 8) + 1
    assert told(held, reading, batches, steps) == ""
    for byte, good in altered(dataset / shard["name"], count, seed=count):
        sentence, violations = told(held, reading, batches, steps), found_by_verify(dataset, shard, held)
        assert violations[0] == f"{shard['name']}: its SHA-256 is not the one in dataset.json"
        if not plain and len(violations) == 1:
            assert 3 <= byte < 10 or byte >= len(good) - 9  # bytes without meaning in gzip's header; the records are the same
            assert sentence == ""
            continue
        named = re.match(rf"{dataset}/{shard['name']}: record (\d+): [^\n]+: restore it or rebuild the dataset", sentence)
        assert named, sentence
        assert violations[1].startswith(f"{shard['name']}: record {named[1]}: "), violations
        if plain:
            assert int(named[1]) == number_of(byte, good)
            assert re.search(r"record \d+: the CRC of its (length|data) is wrong", violations[1])


@on_both
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_truncated_file_is_named(dataset: Path, split: str, reading: Reading) -> None:
    """Especially between two records and within a gzip stream: TensorFlow treats both as the end of the file."""
    held = prepared_dataset.read(str(dataset))
    (shard,) = held.shards(split)
    path = dataset / shard["name"]
    good = path.read_bytes()
    batches = TrainReader(held, 3, 8).batches(8) if split == "train" else EvalBatches(held, 8)
    sizes = [len(record) + 16 for record in tfrecord.read(good, held.compression)]
    cuts = [0, 1, len(good) // 2, len(good) - 1, *([sizes[0], sum(sizes[:-1])] if held.compression == "none" else [5, 12])]
    try:
        for cut in cuts:
            path.write_bytes(good[:cut])
            sentence = told(held, reading, batches, len(sizes))
            assert len(found_by_verify(dataset, shard, held)) == 2
            if held.compression == "gzip" and cut == len(good) - 1:  # only gzip's own checksum is missing: no record is lost
                continue
            assert sentence.startswith((f"{path}: ", f"{path} has ")), (cut, sentence)
            if held.compression == "none" and cut in (0, sizes[0]):
                assert f"has {int(cut > 0)} records, not {len(sizes)}" in sentence
    finally:
        path.write_bytes(good)


def frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    crcs = [struct.pack("<I", tfrecord.masked_crc(part)) for part in (length, record)]
    return length + crcs[0] + record + crcs[1]


@on_both
def test_an_example_without_a_feature_is_named_despite_valid_checksums(dataset: Path, reading: Reading) -> None:
    held = prepared_dataset.read(str(dataset))
    (shard,) = held.shards("train")
    path = dataset / shard["name"]
    good = path.read_bytes()
    records = list(tfrecord.read(good, held.compression))
    example = tf_example.Example.FromString(records[5])
    example.features.feature.remove(next(entry for entry in example.features.feature if entry.key == "segment_ids"))
    records[5] = example.SerializeToString()
    data = b"".join(map(frame, records))
    try:
        path.write_bytes(gzip.compress(data) if held.compression == "gzip" else data)
        sentence = told(held, reading, TrainReader(held, 3, 8).batches(8), len(records) // 8)
        assert sentence.startswith(f"{path}: record 5: its features are ['input_ids',"), sentence
        assert f"{shard['name']}: record 5: its features are " in found_by_verify(dataset, shard, held)[1]
    finally:
        path.write_bytes(good)


@on_both
def test_an_index_that_does_not_match_its_shard(tmp_path: Path, reading: Reading) -> None:
    """As after a shard was replaced and dataset.json signed again: training and verify name the shard."""
    held = datasets.write(tmp_path, [[600]])
    index = json.loads((tmp_path / INDEX).read_bytes())
    (name,) = index
    index[name][1] += 3
    data = shard_index.dumps(index)
    (tmp_path / INDEX).write_bytes(data)
    with pytest.raises(UserError, match=f"{INDEX} was changed after it was written: restore it, or rebuild the dataset"):
        train_records(TrainReader(held, 3, 8))
    contract = held.manifest | {"files": {INDEX: hashlib.sha256(data).hexdigest()}}
    (tmp_path / MANIFEST).write_bytes(manifest.dumps(contract))
    held = prepared_dataset.read(str(tmp_path))
    sentence, real = told(held, reading, TrainReader(held, 3, 8).batches(8), 75), index[name][1] - 3
    assert sentence.startswith(
        f"{held.path(held.shards('train')[0])}: its record 512 begins at byte {real:,}, not at {real + 3:,} as in index.json: "
        "restore it or rebuild the dataset"
    )
    found = list(dataset_checks.check_index(str(tmp_path), held.manifest, {name: offsets_of((tmp_path / name).read_bytes())}))
    assert found == [f"{name}: its record 512 begins at byte {real:,}, not at {real + 3:,} as in index.json"]


@pytest.fixture
def copy(demo_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_dataset, tmp_path / "d"))


def mistake(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    capsys.readouterr()
    assert clozemill.main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines(keepends=True) if not line.startswith("warning: ")]
    error = "".join(lines)
    assert error.startswith("clozemill: ") and len(lines) == 1
    return error


def test_pretrain_names_the_damaged_record(copy: Path, tmp_path: Path, capsys) -> None:
    shard = copy / "train/copy-00/examples-00001-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    number = number_of(len(data) // 2, shard.read_bytes())
    shard.write_bytes(data)
    run = ["--preset", "tiny", "--batch-size", "8", "--steps", "50", "--eval-steps", "0", "--output", tmp_path / "run"]
    error = mistake(capsys, "pretrain", "--data", copy, *run)
    assert f"{shard}: record {number}: the CRC of its data is wrong: restore it or rebuild the dataset" in error


def test_every_command_rejects_an_edited_manifest(copy: Path, tmp_path: Path, capsys) -> None:
    path = copy / "dataset.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    commands = [
        ["verify", copy],
        ["inspect", copy],
        ["pretrain", "--data", copy, "--output", tmp_path / "run", "--steps", "1", "--preset", "tiny"],
    ]
    for command in commands:
        assert f"{path} was changed after it was written" in mistake(capsys, *command)
    with pytest.raises(UserError, match=r"changed after it was written"):  # used by evaluate, plan and fine-tuning
        prepared_dataset.read(str(copy))
    assert not (tmp_path / "run").exists()
