"""Small files on any filesystem that TensorFlow knows (local, gs://): whole or absent, and errors as one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from pipelines.schema import UserError


def join(folder: str, *names: str) -> str:
    """A path within a folder."""
    return tf.io.gfile.join(folder, *names)


def read(path: str, hint: str) -> bytes:
    """A small file. Raises UserError, with what to do about it."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.NotFoundError:
        raise UserError(f"{path} is not there: {hint}") from None
    except tf.errors.OpError as error:
        raise UserError(f"{path} can't be read ({error.message}): {hint}") from None


def write(path: str, data: bytes) -> None:
    """Writes a small file under a temporary name and renames it. Raises UserError."""
    try:
        tf.io.gfile.makedirs(path.rsplit("/", 1)[0] if "/" in path else ".")
        with tf.io.gfile.GFile(path + ".tmp", "wb") as file:
            file.write(data)
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    except tf.errors.OpError as error:
        raise UserError(f"{path} can't be written ({error.message}): mend that and run it again") from None


def write_json(path: str, value: Any) -> None:
    """Writes a value as JSON, likewise."""
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def listed(folder: str) -> list[str]:
    """The names in a folder, sorted, without slashes at their ends; none where there is no such folder."""
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else []


def cause(error: tf.errors.OpError) -> str:
    """What went wrong, without the places in the program and in the graph that TensorFlow tells around it."""
    lines = error.message.split("\n\t [[{{node")[0].split("\n")
    return " ".join(lines[-1].split())[:200]


@contextmanager
def reading(folder: str) -> Iterator[None]:
    """Raises UserError when a shard of a dataset turns out to be damaged while steps read it."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        if "{{node" in str(error) and "Iterator" not in str(error):
            raise
        raise UserError(
            f"{folder}: a shard can't be read ({cause(error)}): run clozemill verify {folder}, then mend it"
        ) from None
