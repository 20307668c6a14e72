"""Reads and writes files, local or remote (gs://), atomically, with one-sentence errors.

Local files are written without following links, and are synced to disk before they are renamed to their final names.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from clozemill.pipelines.command_line.overwriting import already_exists
from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.pipelines.files import locks
from clozemill.trainers.common import filesystems
from clozemill.trainers.common.filesystems import RemoteFile, is_local

FIX = "fix that and run the command again"
# In the message of an error of remote storage that stays until someone corrects it.
_PERMANENT = re.compile(r"\b40[0134]\b|credential|denied|forbidden|unauthori[sz]ed|permission", re.IGNORECASE)
_PIECE = 16 << 20  # bytes that a file gets at once: what is written remotely is copied


@contextmanager
def translate_errors(path: str, verb: str, hint: str = FIX) -> Iterator[None]:
    """Turn errors of a filesystem into a UserError of one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            hint = "free some space, then run the same command again"
        raise _kind(path, error)(f"{path} can't be {verb} ({cause(error)}): {hint}") from None


def _kind(path: str, error: OSError) -> type[UserError]:
    """Return TemporaryError if remote storage may answer later: what restarts jobs then runs the command again."""
    later = not is_local(path) and error.errno == errno.EIO and not _PERMANENT.search(str(error))
    return TemporaryError if later else UserError


def join(folder: str, *names: str) -> str:
    """Return the path of a name within a folder."""
    return os.path.join(folder, *names)


def exists(path: str) -> bool:
    """Return whether there is a file or folder. Raises UserError if remote storage doesn't answer."""
    with translate_errors(path, "read"):
        return filesystems.of(path).exists(path)


def is_folder(path: str) -> bool:
    """Return whether there is a folder. Raises UserError if storage doesn't answer."""
    with translate_errors(path, "read"):
        return filesystems.of(path).is_folder(path)


def size(path: str) -> int:
    """Return the number of bytes of a file. Raises OSError, FileNotFoundError if it is missing."""
    return filesystems.of(path).size(path)


def open_to_read(path: str) -> IO[bytes] | RemoteFile:
    """Return a binary file, a context manager. Raises OSError, also when it is read: FileNotFoundError if it is missing."""
    return filesystems.of(path).open(path)


def read_range(path: str, begin: int, end: int) -> bytes:
    """Return the bytes [begin, end) of a file, of which no others are read; fewer if it is shorter. Raises OSError."""
    return filesystems.of(path).read_range(path, begin, end)


def read(path: str, hint: str) -> bytes:
    """Return the contents of a small file. Raises UserError that ends in `hint`."""
    try:
        with open_to_read(path) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path} doesn't exist: {hint}") from None
    except OSError as error:
        raise _kind(path, error)(f"{path} can't be read ({cause(error)}): {hint}") from None


class Part:
    """A file being written, with the interface that pyarrow expects; errors are UserErrors that name the final path."""

    closed = False

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        with translate_errors(self._path, "written"):
            while len(left):
                left = left[self._file.write(left[:_PIECE]) :]
        return len(data)

    def flush(self) -> None:
        with translate_errors(self._path, "written"):
            self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None: ...


@contextmanager
def writing(path: str, overwrite: bool = True) -> Iterator[Part]:
    """Yield a file that is renamed to its final name if the block succeeds, and removed otherwise.

    The file is written as PATH.tmp. A local file is locked meanwhile, so that another process can't write the same path; a
    PATH.tmp left by a killed process is overwritten. Raises UserError, with `overwrite` false also if the path exists.
    """
    with _local_part(path, overwrite) if is_local(path) else _remote_part(path, overwrite) as file:
        if not overwrite and exists(path):
            raise already_exists(path)
        yield file


def check_new_file(path: str, overwrite: bool) -> None:
    """Raise UserError if --output can't be written because there is a file, or a folder. overwrite: a file may be there."""
    if is_folder(path):
        raise UserError(f"--output {path} is a folder: give the name of the file to write")
    if not overwrite and exists(path):
        raise already_exists(path)


@contextmanager
def _local_part(path: str, overwrite: bool) -> Iterator[Part]:
    folder, part = os.path.dirname(path) or ".", f"{path}.tmp"
    with translate_errors(path, "written"):
        os.makedirs(folder, exist_ok=True)
    descriptor = locks.acquire(part, f"{path} is being written by another process: wait for it to end, or give another name")
    try:
        os.ftruncate(descriptor, 0)
        # Unbuffered: after a failure, Python would try to write the buffer again.
        yield Part(path, os.fdopen(descriptor, "wb", buffering=0, closefd=False))
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
    """Rename a file to its final name. Unless `overwrite`, raises FileExistsError if the name has been taken meanwhile."""
    if overwrite:
        os.replace(part, path)
        return
    try:
        os.link(part, path)  # unlike os.replace, fails if the name is taken
    except FileExistsError:
        raise
    except OSError:  # the filesystem has no hard links
        os.rename(part, path)
    else:
        os.unlink(part)


@contextmanager
def _remote_part(path: str, overwrite: bool) -> Iterator[Part]:
    part, files, file = f"{path}.tmp", filesystems.remote(path), None
    try:
        with translate_errors(path, "written"):
            files.make_folder(path.rsplit("/", 1)[0])
            file = files.create(part)
        yield Part(path, file)
        with translate_errors(path, "written"):
            file.close()
            files.rename(part, path, overwrite)
    except BaseException:
        with contextlib.suppress(OSError):
            if file:
                file.abort()
            if files.exists(part):
                files.remove(part)
        raise


def sync(path: str) -> None:
    """Sync a local file, or the entries of a local folder, to disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: str, data: bytes, overwrite: bool = True) -> None:
    """Write a small file atomically, like `writing`. Raises UserError."""
    with writing(path, overwrite) as file:
        file.write(data)


def append(path: str, data: bytes) -> None:
    """Append to a local file, which is created if missing. Raises UserError, also if the file is a link."""
    with translate_errors(path, "written"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise UserError(f"{path} is a link, and nothing is written outside of the folder: remove it")
            file.write(data)


def sha256(path: str) -> str:
    """Return the SHA-256 of a local file. Raises UserError."""
    with translate_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: str) -> None:
    """Remove a file, if it exists. Raises UserError."""
    with translate_errors(path, "removed"), contextlib.suppress(FileNotFoundError):
        filesystems.of(path).remove(path)


def remove_empty(folder: str) -> None:
    """Remove a local folder if it is empty; object stores have no empty folders."""
    if is_local(folder):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def make_folder(folder: str) -> None:
    """Create a folder and those above it, unless they exist. Raises UserError."""
    with translate_errors(folder, "written"):
        filesystems.of(folder).make_folder(folder)


def remove_tree(folder: str) -> None:
    """Remove a folder and its contents, if it exists; links are removed, not followed. Raises UserError."""
    with translate_errors(folder, "removed"):
        files = filesystems.of(folder)
        if files.is_folder(folder) or (is_local(folder) and os.path.islink(folder)):
            files.remove_tree(folder)


@contextmanager
def locked(folder: str, beside: bool = False) -> Iterator[None]:
    """Lock a local folder against other processes within the block. Raises UserError.

    The lock is a file in the folder, which is created, or `beside` it, for a folder that is created later. Object stores
    have no locks: there, users must make sure that only one process writes to a folder.
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


def write_json(path: str, value: Any, overwrite: bool = True) -> None:
    """Write a value as JSON, atomically. Raises UserError, with `overwrite` false also if the path exists."""
    write(path, (json.dumps(value, indent=1) + "\n").encode(), overwrite)


def upload(folder: str, target: str, last: str) -> None:
    """Copy a local folder to an object store, which writes objects atomically. The file named `last` is copied last.

    Raises UserError; a repeated call overwrites what was already copied.
    """
    with translate_errors(target, "written"):
        for name in sorted(names_below(folder), key=lambda name: (name == last, name)):
            path = join(target, *name.split(os.sep))
            filesystems.remote(path).make_folder(path.rsplit("/", 1)[0])
            filesystems.remote(path).upload(os.path.join(folder, name), path)


def names_below(folder: str) -> set[str]:
    """Return the files of a local folder, at any depth, relative to it."""
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, found in os.walk(folder) for name in found}


def listed(folder: str) -> list[str]:
    """Return the names in a folder, sorted, without trailing slashes; an empty list if the folder doesn't exist.

    Raises UserError if storage doesn't answer: a run whose folder looked empty would start over.
    """
    with translate_errors(folder, "listed"):
        files = filesystems.of(folder)
        return sorted(files.names(folder)) if files.is_folder(folder) else []


def cause(error: Exception) -> str:
    """Return the reason of an error in one line, without the source and graph locations that TensorFlow adds.

    A long message is cut in the middle: TensorFlow's begin with the file and end with the reason.
    """
    message = (error.strerror if isinstance(error, OSError) else getattr(error, "message", "")) or str(error)
    lines = message.strip().split("\n\t [[{{node")[0].split("\n")
    told = re.sub(r"^{{.*?}} | \[Op:\w+\].*$", "", " ".join(lines[-1].split()))
    return told if len(told) <= 200 else f"{told[:99]} … {told[-98:]}"
