"""The shuffle's two ways: one contract, what goes in comes out group by group, and spills that stay small."""

import os
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.shuffle import spill
from clozemill.pipelines.shuffle.keys import KEY_BYTES
from clozemill.pipelines.shuffle.shuffles import BeamShuffle
from clozemill.pipelines.shuffle.spill import FilesShuffle

ITEMS = st.lists(st.tuples(st.integers(0, 4), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.binary(max_size=30)))


def through(way, splits, groups: int = 5) -> dict[int, list[tuple[bytes, bytes]]]:
    rows = []
    for number, items in enumerate(splits):
        rows += way.scatter(f"split{number}", iter(items))
        way.mark_finished(f"split{number}", b"")
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
    with mock.patch.object(spill, "SPILL_BYTES", spill_bytes):
        assert through(FilesShuffle(folder, 5), splits) == through(BeamShuffle(folder, 5), splits) == expected


def test_nothing_travels_by_files_and_spills_stay_small(tmp_path):
    items = [(number % 3, bytes(KEY_BYTES), b"x" * 5000) for number in range(30)]
    assert list(FilesShuffle(str(tmp_path), 3).scatter("s", items)) == []
    assert os.listdir(tmp_path) == ["s-0000.spill"]
    with mock.patch.object(spill, "SPILL_BYTES", 50_000):
        list(FilesShuffle(str(tmp_path), 3).scatter("s", items))
    assert sorted(os.listdir(tmp_path)) == ["s-0000.spill", "s-0001.spill", "s-0002.spill"]


def test_nothing_in_nothing_out(tmp_path):
    way = FilesShuffle(str(tmp_path / "none"), 1)
    assert list(way.scatter("s", [])) == list(way.gather(0, [])) == []
    assert os.listdir(tmp_path) == []


def test_a_finished_split_is_known_while_its_spills_are_intact(tmp_path):
    way = FilesShuffle(str(tmp_path), 1)
    assert way.finished_summary("s") is None
    list(way.scatter("s", [(0, bytes(KEY_BYTES), b"x" * 100)]))
    way.mark_finished("s", b'{"read": 1}')
    assert way.finished_summary("s") == b'{"read": 1}'
    (tmp_path / "s-0000.spill").write_bytes((tmp_path / "s-0000.spill").read_bytes()[:-1])
    assert way.finished_summary("s") is None
    with pytest.raises(UserError, match=r"s-0000\.spill is damaged: remove it and run the same command again"):
        list(way.gather(0, []))
    (tmp_path / "s-0000.spill").unlink()
    assert way.finished_summary("s") is None


def damaged(data: bytes) -> dict[str, bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    return {"empty": b"", "zeros": bytes(len(data)), "halved": data[: len(data) // 2], "one bit": bytes(flipped)}


@pytest.mark.parametrize("place", [0, 1, 2, 3, 9, 17, 21, 40, 60, 80, -1])
def test_a_bit_of_a_spill_file_is_noticed(tmp_path, place):
    """In the table of both groups, and in their pieces."""
    items = [(number % 2, bytes([number]) * KEY_BYTES, b"x" * 9) for number in range(4)]
    way = FilesShuffle(str(tmp_path), 2, "run", 1)
    list(way.scatter("s", iter(items)))
    way.mark_finished("s", b"")
    path = tmp_path / "s-0000.spill"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"s-0000\.spill is damaged"):
        [list(FilesShuffle(str(tmp_path), 2, "run", 1).gather(group, [])) for group in range(2)]


@pytest.mark.parametrize("how", ["empty", "zeros", "halved", "one bit"])
def test_a_damaged_marker_is_ignored(tmp_path, how):
    """So the split is read again; where that comes too late, it isn't missing in silence."""
    way = FilesShuffle(str(tmp_path), 1, "run", 1)
    list(way.scatter("s", [(0, bytes(KEY_BYTES), b"x")]))
    way.mark_finished("s", b"{}")
    path = tmp_path / "s.json"
    path.write_bytes(damaged(path.read_bytes())[how])
    assert way.finished_summary("s") is None
    with pytest.raises(UserError, match="has the spill files of 0 of 1 input splits, and the rest is damaged or missing"):
        list(way.gather(0, []))


def test_what_another_run_spilled_is_not_read(tmp_path):
    """Neither its splits count as done, nor do its items get in; not even under a name of ours."""
    other = FilesShuffle(str(tmp_path), 1, "other", 1)
    list(other.scatter("s", [(0, bytes(KEY_BYTES), b"theirs")]))
    other.mark_finished("s", b"{}")
    assert FilesShuffle(str(tmp_path), 1, "ours", 1).finished_summary("s") is None
    assert list(FilesShuffle(str(tmp_path), 1, "ours").gather(0, [])) == []
    ours = FilesShuffle(str(tmp_path), 1, "ours", 1)
    ours.mark_finished("s", b"{}")
    with pytest.raises(UserError, match=r"s-0000\.spill is damaged"):
        list(ours.gather(0, []))


def test_the_engine_s_shuffle_remembers_nothing(tmp_path):
    way = BeamShuffle(str(tmp_path), 1)
    way.mark_finished("s", b"{}")
    assert way.finished_summary("s") is None and os.listdir(tmp_path) == []
