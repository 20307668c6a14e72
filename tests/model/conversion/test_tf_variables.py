"""Variables of TensorFlow checkpoints: sizes are compared with the files before anything is allocated."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from clozemill.model.conversion.tf_variables import read_variables, variable_names

VALUES = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "a/c": np.ones(4, np.float32), "count": np.int64(7)}


def written(folder: Path, values: dict[str, np.ndarray] = VALUES) -> str:
    names, prefix = sorted(values), str(folder / "x.ckpt")
    tensors = [tf.constant(values[name]) for name in names]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
    return prefix


def test_wanted_variables_are_returned(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    found = read_variables(prefix, lambda name: name.startswith("a/"))
    assert variable_names(prefix) == ["a/b", "a/c", "count"] and found.keys() == {"a/b", "a/c"}
    assert all(np.array_equal(found[name], VALUES[name]) for name in found)


def test_integer_weights_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the variable count is of the type int64, not floating point"):
        read_variables(written(tmp_path), lambda name: True)


def test_sizes_beyond_the_files_are_rejected_before_reading(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    data = next(tmp_path.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"its variables \(a/b \[2, 3\]\) need more than the 20 bytes of its data files"):
        read_variables(prefix, lambda name: name.startswith("a/"))


def test_corrupt_files_raise_value_error(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    Path(f"{prefix}.index").write_bytes(b"nothing")
    for read in (variable_names, lambda prefix: read_variables(prefix, bool)):
        with pytest.raises(ValueError, match=r"\w"):
            read(prefix)
