"""File operations by path: local ones through the system; remote ones through tensorflow_files.py, or through fsspec.

Each filesystem raises OSError alone, with the reason as `strerror`: FileNotFoundError for what is missing, ENOSPC for a full
one, EIO for any other error of remote storage. `storage.py` is what other modules call.
"""

import contextlib
import errno
import importlib.util
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import IO, Any, Protocol

from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.common.errors import UserError

_PIECE = 16 << 20  # bytes that are copied at once
_IMPLICIT = ("gs", "gcs", "s3", "s3a", "abfs", "az")  # object stores: folders are parts of names, and needn't be created


class Filesystem(Protocol):
    """Files of one kind of storage."""

    def open(self, path: str) -> Any:
        """Return a binary file to read, which is a context manager."""

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """Return the bytes [begin, end) of a file; fewer if it is shorter."""

    def size(self, path: str) -> int: ...

    def exists(self, path: str) -> bool: ...

    def is_folder(self, path: str) -> bool:
        """Return False also if there is nothing. Unlike `os.path.isdir`, raises if storage doesn't answer."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, in any order."""

    def make_folder(self, folder: str) -> None:
        """Create a folder and those above it, unless they exist."""

    def remove(self, path: str) -> None: ...

    def remove_tree(self, folder: str) -> None: ...


class RemoteFilesystem(Filesystem, Protocol):
    """Files of remote storage. (Local ones are written by storage.py, which locks and syncs them.)"""

    def create(self, path: str) -> "RemoteFile":
        """Return a file to write."""

    def rename(self, path: str, name: str, overwrite: bool) -> None:
        """Rename a file. Unless `overwrite`, raises FileExistsError if the name is taken."""

    def upload(self, local: str, path: str) -> None:
        """Copy a local file, and replace one that is there."""


class LocalFiles:
    """The system's files."""

    def open(self, path: str) -> IO[bytes]:
        return open(path, "rb")

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True  # any other error is raised: a run whose checkpoints can't be read must not start over

    def is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, folder: str) -> list[str]:
        return os.listdir(folder)

    def make_folder(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, folder: str) -> None:
        if os.path.islink(folder):
            os.unlink(folder)
        else:
            shutil.rmtree(folder)


Guard = Callable[[], AbstractContextManager[None]]  # turns the errors of a library within its block into OSErrors


class RemoteFile:
    """A remote file with the errors of its filesystem."""

    def __init__(self, file: Any, guard: Guard) -> None:
        self._file, self._guard = file, guard

    def read(self, size: int = -1) -> bytes:
        with self._guard():
            return self._file.read(size)

    def write(self, data: Any) -> int:
        with self._guard():
            self._file.write(bytes(data))  # a file of TensorFlow accepts nothing else, and returns None
        return len(data)

    def flush(self) -> None:
        with self._guard():
            self._file.flush()

    def seek(self, offset: int) -> int:
        with self._guard():
            self._file.seek(offset)
        return offset

    def tell(self) -> int:
        with self._guard():
            return self._file.tell()

    def close(self) -> None:
        with self._guard():
            self._file.close()

    def abort(self) -> None:
        """Close a file that is incomplete. fsspec's would otherwise be uploaded when it is garbage collected."""
        with contextlib.suppress(Exception):
            if hasattr(self._file, "discard"):
                self._file.discard()
                self._file.closed = True
            else:
                self._file.close()

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # of a file to read: nothing is lost
            self.close()


@contextmanager
def _fsspec_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:  # with a path alone, from some
        raise FileNotFoundError(errno.ENOENT, error.strerror or "not found") from None
    except OSError as error:
        told = " ".join((error.strerror or str(error) or type(error).__name__).split())
        raise OSError(error.errno or errno.EIO, told) from None
    except Exception as error:  # each storage has exceptions of its own, of HTTP and of its credentials
        raise OSError(errno.EIO, " ".join(f"{type(error).__name__}: {error}".split())) from None


class FsspecFiles:
    """Files of a filesystem of fsspec, by the protocol of their paths."""

    def __init__(self, protocol: str) -> None:
        # Else gcsfs asks an API of its own for the kind of each bucket, and waits a minute where that can't be reached.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            import fsspec

            # Without its cache of listings: other processes write files too.
            self._files: Any = fsspec.filesystem(protocol, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"paths with {protocol}:// need a package ({error}): install it (gs:// is in 'clozemill[jax]'), or "
                "give a local path"
            ) from None
        self._implicit = protocol in _IMPLICIT

    @_fsspec_errors()
    def open(self, path: str) -> RemoteFile:
        return RemoteFile(self._files.open(path, "rb"), _fsspec_errors)

    @_fsspec_errors()
    def create(self, path: str) -> RemoteFile:
        return RemoteFile(self._files.open(path, "wb"), _fsspec_errors)

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        if end <= begin:
            return b""
        with _fsspec_errors():
            return self._files.cat_file(path, start=begin, end=end)

    @_fsspec_errors()
    def size(self, path: str) -> int:
        return self._files.info(path)["size"]

    def _type(self, path: str) -> str:
        """Return "file", "directory", or "" if there is nothing."""
        try:
            with _fsspec_errors():
                return self._files.info(path)["type"]
        except FileNotFoundError:
            return ""

    def exists(self, path: str) -> bool:  # not fsspec's, which returns False if storage doesn't answer
        return bool(self._type(path))

    def is_folder(self, path: str) -> bool:
        return self._type(path) == "directory"

    @_fsspec_errors()
    def names(self, folder: str) -> list[str]:
        found = [name.rstrip("/") for name in self._files.ls(folder, detail=False)]
        own = folder.split("://", 1)[1].strip("/")  # an object store may list a folder in itself
        return [name.rsplit("/", 1)[-1] for name in found if name.lstrip("/") != own]

    def make_folder(self, folder: str) -> None:
        if not self._implicit:
            with _fsspec_errors():
                self._files.makedirs(folder, exist_ok=True)

    def rename(self, path: str, name: str, overwrite: bool) -> None:
        if not overwrite and self.exists(name):
            raise FileExistsError(errno.EEXIST, "File exists")
        with _fsspec_errors():
            self._files.cp_file(path, name)
            self._files.rm_file(path)

    @_fsspec_errors()
    def remove(self, path: str) -> None:
        self._files.rm_file(path)

    @_fsspec_errors()
    def remove_tree(self, folder: str) -> None:
        self._files.rm(folder, recursive=True)

    def upload(self, local: str, path: str) -> None:
        with open(local, "rb") as source:
            file = self.create(path)
            try:
                shutil.copyfileobj(source, file, _PIECE)
                file.close()
            except BaseException:
                file.abort()
                raise


@cache
def _remote(protocol: str, backend: str) -> RemoteFilesystem:
    if backend == "tensorflow" and importlib.util.find_spec("tensorflow"):
        return function("clozemill.trainers.common.tensorflow_files:TensorFlowFiles")()
    return FsspecFiles(protocol)


def is_local(path: str) -> bool:
    """Return whether a path is on a local filesystem."""
    return "://" not in path


def remote(path: str) -> RemoteFilesystem:
    """Return remote storage: through TensorFlow if Keras runs on it and it is installed, else through fsspec.

    Raises UserError for a protocol whose package isn't installed.
    """
    return _remote(path.split("://")[0], os.environ.get("KERAS_BACKEND", "tensorflow"))


def of(path: str) -> Filesystem:
    """Return the filesystem of a path. Raises UserError like `remote`."""
    return LocalFiles() if is_local(path) else remote(path)
