"""Files on any filesystem that TensorFlow knows (local, gs://): complete or absent, and errors as one sentence.

Local files are written without following links, and are on disk before they get their names.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks

FIX = "fix that and run it again"


@contextmanager
def translate_errors(path: str, verb: str, hint: str = FIX) -> Iterator[None]:
    """Turns errors of the system and of TensorFlow's filesystems into one sentence."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        if getattr(error, "errno", 0) == errno.ENOSPC or isinstance(error, tf.errors.ResourceExhaustedError):
            hint = "free some space, then run the same command again"
        raise UserError(f"{path} can't be {verb} ({cause(error)}): {hint}") from None


def is_local(path: str) -> bool:
    """Whether a path is on a filesystem of this machine."""
    return "://" not in path


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


class _Part:
    """A file that is being written, as pyarrow wants one; errors are UserErrors that name the final path."""

    closed = False

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        with translate_errors(self._path, "written"):
            while len(left):
                left = left[self._file.write(bytes(left)) or len(left) :]  # GFile doesn't say how much it has written: all
        return len(data)

    def flush(self) -> None:
        with translate_errors(self._path, "written"):
            self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None: ...


@contextmanager
def writing(path: str, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well, and leaves nothing otherwise.

    It is written as PATH.tmp. A local one is locked meanwhile, so that another process that writes the same path is refused,
    and what a killed process left under that name is written over. Raises UserError; where `overwrite` is false, also if the
    path exists.
    """
    with _local_part(path, overwrite) if is_local(path) else _remote_part(path, overwrite) as file:
        if not overwrite and tf.io.gfile.exists(path):
            raise UserError(f"{path} is there already: remove it, or give another --output")
        yield file


@contextmanager
def _local_part(path: str, overwrite: bool) -> Iterator[_Part]:
    folder, part = os.path.dirname(path) or ".", f"{path}.tmp"
    with translate_errors(path, "written"):
        os.makedirs(folder, exist_ok=True)
    descriptor = locks.acquire(part, f"{path} is being written by another process: wait for it to end, or give another name")
    try:
        os.ftruncate(descriptor, 0)
        # Without a buffer, which Python would try to write once more after a failure.
        yield _Part(path, os.fdopen(descriptor, "wb", buffering=0, closefd=False))
        with translate_errors(path, "written"):
            os.fsync(descriptor)
            _name(part, path, overwrite)
            sync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    finally:
        os.close(descriptor)


def _name(part: str, path: str, overwrite: bool) -> None:
    """Gives a file its final name; unless `overwrite`, raises FileExistsError where another has come to have it."""
    if overwrite:
        os.replace(part, path)
        return
    try:
        os.link(part, path)  # unlike a renaming, fails if the name is taken
    except FileExistsError:
        raise
    except OSError:  # a filesystem without hard links
        os.rename(part, path)
    else:
        os.unlink(part)


@contextmanager
def _remote_part(path: str, overwrite: bool) -> Iterator[_Part]:
    part = f"{path}.tmp"
    try:
        with translate_errors(path, "written"):
            tf.io.gfile.makedirs(path.rsplit("/", 1)[0])
            file = tf.io.gfile.GFile(part, "wb")
            file.write(b"")  # a GFile makes no file before it is written to
        yield _Part(path, file)
        with translate_errors(path, "written"):
            file.close()
            tf.io.gfile.rename(part, path, overwrite=overwrite)
    finally:
        if tf.io.gfile.exists(part):
            tf.io.gfile.remove(part)


def sync(path: str) -> None:
    """Brings a local file, or the names in a local folder, to disk: after a power cut they are there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: str, data: bytes) -> None:
    """Writes a small file, as `writing` does. Raises UserError."""
    with writing(path) as file:
        file.write(data)


def append(path: str, text: str) -> None:
    """Adds to a local file, made if it is missing; a link is refused. Raises UserError."""
    with translate_errors(path, "written"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise UserError(f"{path} is a link: remove it, for nothing is written outside of the folder")
            file.write(text.encode())


def sha256(path: str) -> str:
    """A local file's SHA-256. Raises UserError."""
    with translate_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_tree(folder: str) -> None:
    """Removes a folder and what is in it, if it is there; of links, only the links. Raises UserError."""
    with translate_errors(folder, "removed"):
        if not is_local(folder):
            if tf.io.gfile.isdir(folder):
                tf.io.gfile.rmtree(folder)
        elif os.path.islink(folder):
            os.unlink(folder)
        elif os.path.isdir(folder):
            shutil.rmtree(folder)


@contextmanager
def locked(folder: str, beside: bool = False) -> Iterator[None]:
    """Keeps a second process out of a local folder within the block. Raises UserError.

    The lock is a file in the folder, which is made, or `beside` it, for a folder that is made later. An object store has no
    locks: there it is up to users that one process writes to a folder.
    """
    if not is_local(folder):
        yield
        return
    lock = folder.rstrip("/") + locks.FOLDER if beside else join(folder, locks.FOLDER)
    with translate_errors(folder, "written"):
        os.makedirs(os.path.dirname(lock) or ".", exist_ok=True)
    busy = f"another clozemill is writing to {folder}: wait for it to end, or give another --output"
    with locks.locked(lock, busy):
        yield


def write_json(path: str, value: Any) -> None:
    """Writes a value as JSON, likewise."""
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def upload(folder: str, target: str, last: str) -> None:
    """Copies a local folder to an object store, where each object is whole or absent, the file named `last` after all others.

    Raises UserError; what was copied by then is written over when it is done again.
    """
    names = [os.path.relpath(os.path.join(place, name), folder) for place, _, found in os.walk(folder) for name in found]
    with translate_errors(target, "written"):
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
    with translate_errors(folder, "listed"):
        return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))


def cause(error: tf.errors.OpError | OSError) -> str:
    """What went wrong, without the places in the program and in the graph that TensorFlow tells around it.

    Of a long text both ends: TensorFlow begins with the file and ends with the reason.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    lines = error.message.split("\n\t [[{{node")[0].split("\n")
    told = re.sub(r"^{{.*?}} | \[Op:\w+\].*$", "", " ".join(lines[-1].split()))
    return told if len(told) <= 200 else f"{told[:99]} … {told[-98:]}"
