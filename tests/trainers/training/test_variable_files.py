"""Files of variables: the bytes of the safetensors library, and damage of every kind is a ValueError."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load, save

from clozemill.trainers.common import storage
from clozemill.trainers.training import variable_files
from clozemill.trainers.training.variable_files import open_group, write_variables

STREAM = np.random.Generator(np.random.Philox(3))
ARRAYS = {
    "encoder/layer_0/attention/query/kernel": STREAM.standard_normal((3, 5), np.float32),
    "a": STREAM.integers(0, 1 << 32, 7, np.uint32).view(np.float32),  # any bits, among them NaN
    'é "quoted"': np.arange(6, dtype=np.int64).reshape(1, 2, 3),
    "scalar": np.float32(1.5),
    "empty": np.zeros((0, 4), np.float32),
    "words": np.arange(3, dtype=np.uint32),
    "ids": np.arange(3, dtype=np.int32),
    "half": np.array([1, 2], np.float16),
    "double": np.array([[1.0], [2.0]]),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_variables(ARRAYS, str(path))
    assert path.read_bytes() == save({name: np.asarray(value).copy("C") for name, value in ARRAYS.items()})
    write_variables({}, str(path))
    assert load(path.read_bytes()) == {}


@pytest.mark.parametrize("kind", ["numpy", "tf.Variable", "keras", "jax"])
def test_values_of_every_framework(kind: str, tmp_path: Path) -> None:
    values = {name: value for name, value in ARRAYS.items() if value.dtype == np.float32}
    if kind == "jax":
        from jax import numpy as jnp
    made = {"numpy": np.asarray, "tf.Variable": tf.Variable, "keras": lambda value: keras.Variable(value).value}
    given = {name: jnp.asarray(value) if kind == "jax" else made[kind](value) for name, value in values.items()}
    write_variables(given, str(tmp_path / "x.safetensors"))
    found = load((tmp_path / "x.safetensors").read_bytes())
    assert {name: value.tobytes() for name, value in found.items()} == {name: v.tobytes() for name, v in values.items()}


@pytest.mark.parametrize("folder", ["local", "memory://variables", "ram://variables"])
def test_arrays_are_read_back(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax" if folder.startswith("memory") else "tensorflow")
    folder = str(tmp_path) if folder == "local" else folder
    write_variables(ARRAYS, storage.join(folder, "weights.safetensors"))
    with open_group(folder, "weights", 3) as found:
        assert len(found) == len(ARRAYS) and set(found) == ARRAYS.keys()
        for name, value in ARRAYS.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
            assert found[name].tobytes() == np.ascontiguousarray(value).tobytes(), name
        with pytest.raises(ValueError, match="none"):
            found["none"]


def with_header(header: bytes, size: int | None = None, data: bytes = bytes(8)) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def entry(dtype: str = "F32", shape: list | None = None, offsets: list | None = None) -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": shape or [2], "data_offsets": offsets or [0, 8]}}).encode()


DAMAGED = {
    "nothing": b"",
    "less than a size": b"abc",
    "a header beyond the file": with_header(entry(), 1 << 20),
    "a header beyond memory": with_header(entry(), 1 << 62),
    "no JSON": with_header(b"{" * 40),
    "another JSON": with_header(b"[1, 2]"),
    "data beyond the file": with_header(entry(shape=[4], offsets=[0, 16])),
    "data that overlap the header": with_header(entry(offsets=[-8, 0])),
    "offsets in reverse": with_header(entry(offsets=[8, 0])),
    "a shape of another size": with_header(entry(shape=[1 << 40, 1 << 40])),
    "an unknown type": with_header(entry("F33")),
    "bytes left over": with_header(entry(), data=bytes(12)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_a_value_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=r".") as told, open_group(str(tmp_path), "weights", 3) as found:
        dict(found)
    assert "\n" not in str(told.value)


def test_a_type_that_numpy_lacks(tmp_path: Path) -> None:
    """Newer versions of the library read bfloat16; older ones raise a TypeError, as for a type that they don't know."""
    data = np.array([1.0, -2.0, 0.5, 0.0], np.float32).view(np.uint32) >> 16  # the upper half of a float32
    (tmp_path / "weights.safetensors").write_bytes(with_header(entry("BF16", [4]), data=data.astype("<u2").tobytes()))
    with open_group(str(tmp_path), "weights", 3) as found:
        try:
            value = found["a"]
        except ValueError as error:
            assert "bfloat16" in str(error) and "\n" not in str(error)
        else:
            assert str(value.dtype) == "bfloat16" and value.astype(np.float32).tolist() == [1.0, -2.0, 0.5, 0.0]


def test_a_type_that_the_library_can_not_read() -> None:
    def get_tensor(name: str) -> None:
        raise TypeError("numpy:\ndata type 'bfloat16' not understood")

    found = variable_files._Safetensors(SimpleNamespace(keys=lambda: ["a"], get_tensor=get_tensor))
    with pytest.raises(ValueError, match=r"^data type 'bfloat16' not understood") as told:
        found["a"]
    assert "\n" not in str(told.value)


def test_one_array_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of variables on a device isn't copied to the host as a whole."""
    held: list[str] = []
    read: list[np.ndarray] = []
    plain = variable_files._array

    class Counted(np.ndarray):
        def __del__(self) -> None:
            held.clear()

    def array(value: np.ndarray) -> np.ndarray:
        assert held == []
        held.append("an array")
        read.append(value)
        return plain(value).view(Counted)

    monkeypatch.setattr(variable_files, "_array", array)
    write_variables({name: np.zeros(5, np.float32) for name in "abc"}, str(tmp_path / "x.safetensors"))
    assert len(read) == 3 and held == []
