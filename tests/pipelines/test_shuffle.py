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


def through(way, splits, groups: int = 5) -> dict[int, list[tuple[bytes, bytes]]]:
    rows = [row for number, items in enumerate(splits) for row in way.scatter(f"split{number}", iter(items))]
    found = {group: sorted(way.gather(group, [value for at, value in rows if at == group])) for group in range(groups)}
    return {group: items for group, items in found.items() if items}


@settings(max_examples=60, deadline=None)
@given(st.lists(ITEMS, max_size=4), st.integers(1, 200))
def test_both_ways_bring_the_same_items(tmp_path_factory, splits, spill_bytes):
    expected = {}
    for items in splits:
        for group, key, payload in items:
            expected.setdefault(group, []).append((key, payload))
    expected = {group: sorted(items) for group, items in expected.items()}
    folder = str(tmp_path_factory.mktemp("spill"))
    with mock.patch.object(shuffle, "SPILL_BYTES", spill_bytes):
        assert through(FilesShuffle(folder, 5), splits) == through(BeamShuffle(folder, 5), splits) == expected


def test_nothing_travels_by_files_and_spills_stay_small(tmp_path):
    items = [(number % 3, bytes(KEY_BYTES), b"x" * 5000) for number in range(30)]
    assert list(FilesShuffle(str(tmp_path), 3).scatter("s", items)) == []
    assert os.listdir(tmp_path) == ["s-0000.spill"]
    with mock.patch.object(shuffle, "SPILL_BYTES", 50_000):
        list(FilesShuffle(str(tmp_path), 3).scatter("s", items))
    assert sorted(os.listdir(tmp_path)) == ["s-0000.spill", "s-0001.spill", "s-0002.spill"]


def test_nothing_in_nothing_out(tmp_path):
    way = FilesShuffle(str(tmp_path / "none"), 1)
    assert list(way.scatter("s", [])) == list(way.gather(0, [])) == []
    assert os.listdir(tmp_path) == []


def test_a_finished_split_is_known_while_its_spills_are_whole(tmp_path):
    way = FilesShuffle(str(tmp_path), 1)
    assert way.finished("s") is None
    list(way.scatter("s", [(0, bytes(KEY_BYTES), b"x" * 100)]))
    way.finish("s", b'{"read": 1}')
    assert way.finished("s") == b'{"read": 1}'
    (tmp_path / "s-0000.spill").write_bytes((tmp_path / "s-0000.spill").read_bytes()[:-1])
    assert way.finished("s") is None
    with pytest.raises(UserError, match=r"s-0000\.spill is cut short: remove it"):
        list(way.gather(0, []))
    (tmp_path / "s-0000.spill").unlink()
    assert way.finished("s") is None


def test_the_engine_s_shuffle_remembers_nothing(tmp_path):
    way = BeamShuffle(str(tmp_path), 1)
    way.finish("s", b"{}")
    assert way.finished("s") is None and os.listdir(tmp_path) == []
