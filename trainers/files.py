"""Small files on any filesystem that TensorFlow knows (local, gs://): whole or absent, and errors as one sentence."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from pipelines.schema import UserError


@contextmanager
def telling(path: str, verb: str, hint: str = "mend that and run it again") -> Iterator[None]:
    """Turns errors of TensorFlow's filesystems into one sentence."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f"{path} can't be {verb} ({cause(error)}): {hint}") from None


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
        raise UserError(f"{path} can't be read ({cause(error)}): {hint}") from None


def write(path: str, data: bytes) -> None:
    """Writes a small file under a temporary name and renames it. Raises UserError."""
    with telling(path, "written"):
        tf.io.gfile.makedirs(path.rsplit("/", 1)[0] if "/" in path else ".")
        with tf.io.gfile.GFile(path + ".tmp", "wb") as file:
            file.write(data)
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)


def write_json(path: str, value: Any) -> None:
    """Writes a value as JSON, likewise."""
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def upload(folder: str, target: str, last: str) -> None:
    """Copies a local folder to an object store, where each object is whole or absent, the file named `last` after all others.

    Raises UserError; what was copied by then is written over when it is done again.
    """
    names = [os.path.relpath(os.path.join(place, name), folder) for place, _, found in os.walk(folder) for name in found]
    with telling(target, "written"):
        for name in sorted(names, key=lambda name: (name == last, name)):
            path = join(target, *name.split(os.sep))
            tf.io.gfile.makedirs(path.rsplit("/", 1)[0])
            tf.io.gfile.copy(os.path.join(folder, name), path, overwrite=True)


def listed(folder: str) -> list[str]:
    """The names in a folder, sorted, without slashes at their ends; none where there is no such folder.

    Whether it is there is asked with `stat`: `isdir` says no as well when storage doesn't answer, and a run whose folder
    looks empty would be begun anew.
    """
    try:
        if not tf.io.gfile.stat(folder).is_directory:
            return []
    except tf.errors.NotFoundError:
        return []
    except tf.errors.FailedPreconditionError:  # below a file; of storage it means that its host isn't known
        if "://" in folder:
            raise
        return []
    with telling(folder, "listed"):
        return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))


def cause(error: tf.errors.OpError) -> str:
    """What went wrong, without the places in the program and in the graph that TensorFlow tells around it.

    Of a long text both ends: TensorFlow begins with the file and ends with the reason.
    """
    lines = error.message.split("\n\t [[{{node")[0].split("\n")
    told = re.sub(r"^{{.*?}} | \[Op:\w+\].*$", "", " ".join(lines[-1].split()))
    return told if len(told) <= 200 else f"{told[:99]} … {told[-98:]}"
