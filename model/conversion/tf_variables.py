"""Read the variables of a TensorFlow checkpoint as arrays: read only values, and trust no stated size.

A checkpoint's index is untrusted input. So the shapes in it are compared with the size of the data files before anything is
allocated.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

FLOATS = (tf.float32, tf.bfloat16, tf.float16, tf.float64)


def _data_bytes(prefix: str) -> int:
    """Return the total size of a checkpoint's data files."""
    folder, name = os.path.split(prefix)
    named = (found for found in tf.io.gfile.listdir(folder or ".") if found.startswith(f"{name}.data-"))
    return sum(tf.io.gfile.stat(tf.io.gfile.join(folder, found)).length for found in named)


@contextmanager
def _damage() -> Iterator[None]:
    """Turn TensorFlow's errors for a corrupt file into ValueError."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError, TypeError, MemoryError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


def variable_names(prefix: str) -> list[str]:
    """Return the names of a checkpoint's variables, sorted. Raises ValueError when it is damaged."""
    with _damage():
        return sorted(tf.train.load_checkpoint(prefix).get_variable_to_shape_map())


def read_variables(prefix: str, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Return the variables of a checkpoint whose names are `wanted`, by name, in their own types.

    Args:
        prefix: the checkpoint's path without `.index`, on any filesystem that TensorFlow knows.

    Raises:
        ValueError: the checkpoint is damaged, claims more values than its files hold, or a wanted variable doesn't hold
            floating-point numbers (quantized weights).
    """
    with _damage():
        reader = tf.train.load_checkpoint(prefix)
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        names, room = sorted(filter(wanted, shapes)), _data_bytes(prefix)
        if odd := [name for name in names if types[name] not in FLOATS]:
            raise ValueError(f"the variable {odd[0]} is of the type {types[odd[0]].name}, not floating point")
        sizes = {name: math.prod(shapes[name]) * types[name].size for name in names}
        if sum(sizes.values()) > room:
            largest = max(names, key=lambda name: sizes[name])
            raise ValueError(f"its variables ({largest} {shapes[largest]}) need more than the {room:,} bytes of its data files")
        return {name: reader.get_tensor(name) for name in names}
