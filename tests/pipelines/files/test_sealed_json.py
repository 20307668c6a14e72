"""Sealed objects: readable only by the run that wrote them; a damaged one is ignored."""

import pytest

from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed

VALUE = {"name": "\u00e4\udcff", "sizes": [1, 2.5e-7, None], "inner": {"b": 1, "a": True}}


def test_an_object_is_readable_only_by_its_run(tmp_path):
    path = str(tmp_path / "a.json")
    assert read_sealed(path, "run") is None
    write_sealed(path, VALUE, "run")
    assert read_sealed(path, "run") == VALUE
    assert read_sealed(path, "other") is None and read_sealed(path, "") is None


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b"{", b"{}", b'{"seal": 1}', b'{"name": 1, "seal": "00"}', b"[" * 100_000, b"\xff"]
)
def test_invalid_objects_are_none(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    assert read_sealed(str(tmp_path / "a.json"), "run") is None


def test_every_flipped_bit_is_detected(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(str(path), VALUE, "run")
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert read_sealed(str(path), "run") in (None, VALUE), (place, bit)
