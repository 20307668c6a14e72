"""The shuffle's two ways: one contract, what goes in comes out group by group, and spills that stay small."""

import os
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import shuffle
from pipelines.schema import UserError
from pipelines.seeds import KEY_BYTES
from pipelines.shuffle import BeamShuffle, FilesShuffle

ITEMS = st.lists(st.tuples(st.integers(0, 4), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.binary(max_size=30)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shuffle")


def through(way, splits) -> dict[int, list[tuple[bytes, bytes]]]:
    rows = [row for number, items in enumerate(splits) for row in way.scatter(f"split{number}", iter(items))]
    return {group: sorted(way.gather(value for at, value in rows if at == group)) for group in {at for at, _ in rows}}


@settings(max_examples=60, deadline=None)
@given(st.lists(ITEMS, max_size=4), st.integers(1, 200))
def test_both_ways_bring_the_same_items(folder, splits, spill_bytes):
    expected = {}
    for items in splits:
        for group, key, payload in items:
            expected.setdefault(group, []).append((key, payload))
    expected = {group: sorted(items) for group, items in expected.items()}
    with mock.patch.object(shuffle, "SPILL_BYTES", spill_bytes):
        assert through(FilesShuffle(str(folder)), splits) == through(BeamShuffle(), splits) == expected


def test_what_travels_by_files_is_small_and_one_value_per_group_and_spill(tmp_path):
    items = [(number % 3, bytes(KEY_BYTES), b"x" * 5000) for number in range(30)]
    rows = list(FilesShuffle(str(tmp_path)).scatter("s", items))
    assert [group for group, _ in rows] == [0, 1, 2]
    assert max(len(value) for _, value in rows) < 40
    assert os.listdir(tmp_path) == ["s-0000.spill"]
    with mock.patch.object(shuffle, "SPILL_BYTES", 50_000):
        assert len(list(FilesShuffle(str(tmp_path)).scatter("s", items))) == 9
    assert sorted(os.listdir(tmp_path)) == ["s-0000.spill", "s-0001.spill", "s-0002.spill"]


def test_nothing_in_nothing_out(tmp_path):
    assert list(FilesShuffle(str(tmp_path)).scatter("s", [])) == []
    assert os.listdir(tmp_path) == []


def test_a_spill_that_is_gone_is_told(tmp_path):
    way = FilesShuffle(str(tmp_path))
    rows = list(way.scatter("s", [(0, bytes(KEY_BYTES), b"x")]))
    (tmp_path / "s-0000.spill").unlink()
    with pytest.raises(UserError, match=r"s-0000\.spill can't be read"):
        list(way.gather(value for _, value in rows))
