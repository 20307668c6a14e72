"""Files, local or on any filesystem that Beam supports: globs, reads and atomic writes.

Local paths never load Beam; `gs://…` and others use Beam's FileSystems.
"""

import contextlib
import glob
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import local_globs, safe_paths, storage_errors

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}$")


@dataclass(frozen=True)
class FileInfo:
    """An input file: path, size on disk, and a stamp that changes if the file does."""

    path: str
    size: int
    stamp: str


def is_remote(path: str) -> bool:
    """Return whether a path is on another filesystem than this machine's."""
    return "://" in path


def real_path(path: str) -> str:
    """Return a local path as absolute and without links, so that it is the same for all names of a file; a remote one as is."""
    return path if is_remote(path) else os.path.realpath(path)


def _beam(path: str) -> Any:
    from apache_beam.io.filesystems import FileSystems

    scheme = path.split("://")[0]
    try:
        FileSystems.get_filesystem(path)
        if scheme == "s3" and importlib.util.find_spec("boto3") is None:  # Beam's s3 module loads without it, but fails
            raise ValueError
    except ValueError:
        extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
        how = f"pip install 'clozemill[{extra}]'" if extra else "check the scheme"
        raise UserError(f"{path}: the filesystem {scheme}:// isn't installed: {how}") from None
    return FileSystems


@contextlib.contextmanager
def translate_errors(path: str, verb: str) -> Iterator[None]:
    """Convert errors of the operating system or of Beam's filesystems to one sentence."""
    try:
        yield
    except OSError as error:
        if is_remote(path) and (known := storage_errors.explain(error)):
            raise known from None
        hint = "free some space" if error.errno == 28 else "fix this"
        raise UserError(
            f"{path} can't be {verb} ({error.strerror or error}): {hint}, then run the same command again"
        ) from None


def match(patterns: Iterable[str]) -> list[FileInfo]:
    """Return the files that match globs, each once, sorted by path. Raise UserError if a glob matches nothing."""
    found: dict[str, FileInfo] = {}
    for pattern in patterns:
        with translate_errors(pattern, "listed"):
            infos = list(_match(pattern))
        if not infos:
            raise UserError(f"no file matches {pattern}: check the path, and quote the glob")
        found.update((info.path, info) for info in infos)
    return [found[path] for path in sorted(found)]


def _match(pattern: str) -> Iterator[FileInfo]:
    if is_remote(pattern):
        with storage_errors.note_if_slow(pattern):
            found = _beam(pattern).match([pattern])[0].metadata_list
        for info in found:
            yield FileInfo(info.path, info.size_in_bytes, f"{info.size_in_bytes}-{info.last_updated_in_seconds}")
        return
    literal = os.path.exists(pattern)
    for name in [pattern] if literal else local_globs.expand(pattern):
        if not literal and os.path.isdir(name):
            continue
        if os.path.isdir(name):
            raise UserError(f"{name} is a folder: give files or a glob such as '{os.path.join(name, '*')}'")
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"{name} is not a regular file, and a pipe or device can't be read in parts: copy it to a regular file first"
            )
        yield FileInfo(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def check_unchanged(path: str, stamp: str) -> None:
    """Raise UserError if an input file has changed since it was planned. stamp: from `match`; "": unknown."""
    if not stamp:
        return
    with translate_errors(path, "read"):
        there = exists(path)
        now = next((info.stamp for info in (_match(path) if there else ())), "")
    if now != stamp:
        what = "was changed" if there else "was removed"
        raise UserError(f"{path} {what} while it was being read: run the same command again when no other program writes to it")


def open_read(path: str) -> BinaryIO:
    """Open a file for its raw bytes. Raise UserError."""
    with translate_errors(path, "read"):
        if is_remote(path):
            from apache_beam.io.filesystem import CompressionTypes

            return _beam(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path} is not a file: give a file, or remove it")
        return open(path, "rb")


def read_bytes(path: str) -> bytes:
    """Read a complete file. Raise UserError."""
    with open_read(path) as file, translate_errors(path, "read"):
        return file.read()


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object. Raise UserError if the file doesn't contain one."""
    try:
        found = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object: it was edited or truncated; restore it, or rebuild the dataset")
    return found


def sha256(path: str) -> str:
    """Return the SHA-256 of a file. Raise UserError."""
    with open_read(path) as file, translate_errors(path, "read"):
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def join(folder: str, name: str) -> str:
    """Join a folder and a name with forward slashes. The result for an Inside path is Inside, too."""
    path = f"{folder.rstrip('/')}/{name}"
    return safe_paths.Inside(path, folder.root) if isinstance(folder, safe_paths.Inside) else path


def inside(folder: str, name: str) -> str:
    """Return a path within a folder of ours. Writing or removing it follows no link below that folder."""
    return safe_paths.Inside(join(folder, name), folder)


def exists(path: str) -> bool:
    """Return whether a file (or local folder) exists."""
    return _beam(path).exists(path) if is_remote(path) else os.path.exists(path)


def size(path: str) -> int:
    """Return the size of a file in bytes, or -1 if it doesn't exist."""
    if not is_remote(path):
        return os.stat(path).st_size if os.path.exists(path) else -1
    return _beam(path).match([path])[0].metadata_list[0].size_in_bytes if exists(path) else -1


def _files_below(folder: str) -> list[str]:
    """Return the files in a folder at any depth; none if the folder doesn't exist."""
    if is_remote(folder):
        return [info.path for info in _beam(folder).match([join(folder, "**")])[0].metadata_list]
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


def names_below(folder: str) -> list[str]:
    """Return the files in a folder at any depth, relative to it, with forward slashes, sorted."""
    start = len(folder.rstrip("/")) + 1
    return sorted(path[start:].replace(os.sep, "/") for path in _files_below(folder))


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a file whose writing was not finished."""
    return bool(_TEMPORARY.search(name))


def holds_files(folder: str, besides: Collection[str] = ()) -> bool:
    """Return whether a folder contains files at any depth, except `besides` and leftovers of killed writes."""
    return any(not is_temporary(name) and name not in besides for name in names_below(folder))


@contextlib.contextmanager
def atomic_write(path: str, sync: bool = True) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is complete: written to PATH.tmp-<unique>, then renamed.

    The temporary file is always new, and a link with the final name is replaced, so nothing is written through a link.

    Args:
        sync: flush the file and its name to the disk, so that they survive a power cut. sync_files does this later for many
            files at once.
    """
    if not is_remote(path):
        with (
            translate_errors(path, "written"),
            safe_paths.parent(path, make=True) as (folder, name),
            safe_paths.renamed(folder, name, sync) as file,
        ):
            yield file
        return
    temporary = f"{path}.tmp-{uuid.uuid4().hex}"
    try:
        with translate_errors(path, "written"):
            from apache_beam.io.filesystem import CompressionTypes

            with _beam(path).create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                yield file
            if path.startswith("hdfs://") and exists(path):  # the others replace the file at once
                _beam(path).delete([path])
            _beam(path).rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(Exception):
            _beam(path).delete([temporary])
        raise


def sync_files(folder: str, names: Iterable[str]) -> None:
    """Flush local files and their names to the disk. Raise UserError."""
    if not is_remote(folder):
        with translate_errors(folder, "written"):
            safe_paths.sync(folder, names)


def write_bytes(path: str, data: bytes, sync: bool = True) -> None:
    """Write a small file atomically."""
    with atomic_write(path, sync) as file:
        file.write(data)


def remove(*paths: str) -> None:
    """Remove files, of one filesystem, if they exist."""
    if paths and is_remote(paths[0]):
        with contextlib.suppress(OSError):
            _beam(paths[0]).delete(list(paths))
        return
    for path in paths:
        with contextlib.suppress(OSError), safe_paths.parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)


def remove_tree(folder: str, keep: str = "") -> None:
    """Remove a folder with its contents if it exists; for a link to a folder, the link. keep: a name that isn't removed."""
    if is_remote(folder):
        with contextlib.suppress(OSError):
            _beam(folder).delete(_files_below(folder))
        return
    with contextlib.suppress(OSError), safe_paths.parent(folder) as (parent, name):
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            os.unlink(name, dir_fd=parent)
        elif not keep:
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
        else:
            for inner in set(os.listdir(folder)) - {keep}:
                remove_tree(join(folder, inner))


def remove_temporaries_of(path: str) -> None:
    """Remove the temporary files that killed runs left while writing this file (local files only)."""
    for left in [] if is_remote(path) else glob.glob(f"{glob.escape(path)}.tmp-" + "[0-9a-f]" * 32):
        with contextlib.suppress(OSError):
            os.unlink(left)


def remove_temporaries(folder: str) -> None:
    """Remove the temporary files that killed runs left in a folder."""
    remove(*filter(is_temporary, _files_below(folder)))


class Hashed:
    """A file object that records the size and the SHA-256 of what is written to it."""

    def __init__(self, file: Any) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
