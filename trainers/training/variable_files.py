"""Variables by name in safetensors files, which other programs read too; in TensorFlow checkpoints of earlier versions."""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage

TENSORFLOW = 2  # the last format version of checkpoints whose variables are in TensorFlow checkpoints
# In the order in which the library writes them: larger ones first, for their alignment.
_TYPES = {"int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32", "float16": "F16"}
_ALIGNMENT = 8  # bytes; the header is filled up with blanks
_PIECE = 16 << 20  # bytes
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # suffix of a variable's value in TensorFlow checkpoints


def _array(value: Any) -> np.ndarray:
    """Return the value of a variable: a tf.Variable, an array of JAX or of numpy."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def write_variables(variables: Mapping[str, Any], path: str) -> None:
    """Write a safetensors file with the bytes that `safetensors.numpy.save` returns, but hold one array at a time.

    Args:
        variables: values by name: tf.Variable, or arrays of JAX or numpy.
        path: the file, local or remote; it gets its name when it is complete.

    Raises UserError.
    """
    types = {name: np.dtype(str(getattr(value.dtype, "name", value.dtype))) for name, value in variables.items()}
    names = sorted(variables, key=lambda name: (list(_TYPES).index(types[name].name), name))
    header, end = {}, 0
    for name in names:
        shape = [int(size) for size in variables[name].shape]
        begin, end = end, end + types[name].itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": _TYPES[types[name].name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with storage.writing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            little_endian = types[name].newbyteorder("<")
            file.write(np.ascontiguousarray(_array(variables[name]), little_endian).reshape(-1).view(np.uint8))


class _Safetensors(Mapping[str, np.ndarray]):
    """The arrays of an open file; each is read when it is asked for. Damage is a ValueError."""

    def __init__(self, file: Any) -> None:
        self._file, self._names = file, tuple(file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        with _damage():
            return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (SafetensorError, TypeError, MemoryError) as error:  # TypeError: of a type that numpy lacks
        raise ValueError(storage.cause(error)) from None


@contextmanager
def _opened(path: str) -> Iterator[_Safetensors]:
    """Open a local safetensors file. The library checks that the header's sizes and offsets fit the file."""
    with storage.translate_errors(path, "read"), _damage():
        file = safe_open(path, framework="numpy")
    with file:
        yield _Safetensors(file)


@contextmanager
def _downloaded(path: str) -> Iterator[str]:
    """Copy a remote file to a temporary one within the block. Raises UserError."""
    with tempfile.NamedTemporaryFile(prefix="clozemill-") as local:
        with storage.translate_errors(path, "read"), storage.open_to_read(path) as file:
            shutil.copyfileobj(file, local, _PIECE)
        local.flush()
        yield local.name


def _name(key: str, group: str) -> str:
    """Return the name of a variable from its key in a TensorFlow checkpoint, which contains the name of the model."""
    parts = key.removesuffix(_VALUE).replace(".S", "/").replace("..", ".").split("/")
    parts.pop(1 if group == "moments" else 0)  # that of a moment begins with its kind
    return "/".join(parts)


def _from_tensorflow(folder: str, group: str) -> dict[str, np.ndarray]:
    try:
        from clozemill.model.conversion.tf_variables import read_variables
    except ModuleNotFoundError:
        raise UserError(
            f"{folder} was written by an earlier version, as a TensorFlow checkpoint, and TensorFlow isn't installed: pip "
            "install 'clozemill[train]', or resume its run where TensorFlow is, and use the next checkpoint"
        ) from None
    found = read_variables(storage.join(folder, group), lambda key: key.endswith(_VALUE))
    return {_name(key, group): value for key, value in found.items()}


@contextmanager
def open_group(folder: str, group: str, version: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the variables of a checkpoint's folder by name. Each is read when it is asked for.

    Args:
        group: "weights" or "moments".
        version: the format version in checkpoint.json.

    Raises ValueError for a damaged file; UserError if it can't be read, or if it needs TensorFlow and that isn't installed.
    """
    path = storage.join(folder, f"{group}.safetensors")
    if version <= TENSORFLOW:
        yield _from_tensorflow(folder, group)
    elif storage.is_local(path):
        with _opened(path) as found:
            yield found
    else:
        with _downloaded(path) as local, _opened(local) as found:
            yield found


def assign(variables: Mapping[str, keras.Variable], found: Mapping[str, np.ndarray], surplus: tuple[str, ...] = ()) -> None:
    """Assign arrays to variables of the same names. Raises ValueError unless both have the same names, shapes and types.

    surplus: prefixes of weights, such as "masked_lm/", whose arrays, or those of their moments, may lack a variable.
    """
    unknown = {name for name in found if not (name.startswith(surplus) or name.partition("/")[2].startswith(surplus))}
    if odd := sorted((variables.keys() - found.keys()) | (unknown - variables.keys())):
        raise ValueError(f"{odd[0]} is {'missing' if odd[0] in variables else 'not a variable of the model'}")
    for name, variable in variables.items():
        value = found[name]
        if value.shape != tuple(variable.shape) or value.dtype.name != variable.dtype:
            raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, not {variable.dtype} {list(variable.shape)}")
        variable.assign(value)
