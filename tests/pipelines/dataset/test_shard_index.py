"""index.json: written with the shards, read back, and compared with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import shard_index
from clozemill.pipelines.shards import tfrecord
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS, BlockOffsets, offsets_of


def shard(sizes: list[int]) -> bytes:
    """Return TFRecords of some sizes, with their frames."""
    lengths = np.array(sizes, np.int64)
    buffer, ends = np.zeros(lengths.sum(), np.uint8), np.cumsum(lengths)
    if sizes:
        tfrecord.fill_frames(buffer, ends - lengths, lengths - tfrecord.HEADER - tfrecord.FOOTER)
    return buffer.tobytes()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 3 * BLOCK_RECORDS + 5), st.lists(st.integers(0, 300), max_size=4), st.integers(0, 99))
def test_offsets_are_those_of_every_256th_record(records: int, cuts: list[int], seed: int) -> None:
    """Whatever chunks the shard was written in."""
    sizes = np.random.default_rng(seed).integers(16, 40, records)
    collected = BlockOffsets()
    for part in np.split(sizes, sorted(min(cut, records) for cut in cuts)):
        collected.add(part)
    expected = np.concatenate([[0], np.cumsum(sizes)])[BLOCK_RECORDS:records:BLOCK_RECORDS].tolist()
    assert collected.offsets == expected == offsets_of(shard(sizes.tolist()))


def test_a_round_trip_has_a_line_per_shard() -> None:
    shards = [{"name": "b", "examples": 257, "bytes": 99}, {"name": "a", "examples": 256, "bytes": 5}]
    data = shard_index.dumps({"b": [7], "a": []})
    assert data == b'{\n"a": [],\n"b": [7]\n}\n'
    assert shard_index.loads(data, "x", shards) == {"b": [7], "a": []}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"a": []}', '{"a": [5, 9]}', '{"a": [0]}', '{"a": [99]}', '{"a": [5.0]}', '{"a": ["5"]}', "{}"]
)
def test_an_index_that_does_not_fit(content: str) -> None:
    with pytest.raises(UserError) as error:
        shard_index.loads(content.encode(), "data/index.json", [{"name": "a", "examples": 300, "bytes": 99}])
    assert str(error.value) == "data/index.json doesn't match a: restore it, or rebuild the dataset with clozemill prepare"


def test_an_index_of_more_shards() -> None:
    with pytest.raises(UserError, match=r"^data/index\.json lists other shards than the dataset has: restore it"):
        shard_index.loads(b'{"a": [], "b": []}', "data/index.json", [{"name": "a", "examples": 3, "bytes": 99}])


def test_the_difference_is_named() -> None:
    assert shard_index.mismatch([5, 70], [5, 70]) == ""
    assert shard_index.mismatch([5, 70], [5, 71]) == "its record 512 begins at byte 71, not at 70 as in index.json"


def test_prepare_writes_the_index_of_its_shards(demo_dataset: Path) -> None:
    index, contract = (json.loads((demo_dataset / name).read_bytes()) for name in ("index.json", "dataset.json"))
    assert "index.json" in contract["files"] and sorted(index) == sorted(shard["name"] for shard in contract["shards"])
    for entry in contract["shards"]:
        data = (demo_dataset / entry["name"]).read_bytes()
        assert index[entry["name"]] == offsets_of(data)
        assert len(index[entry["name"]]) == (entry["examples"] - 1) // BLOCK_RECORDS
