"""Files, local or on any filesystem that Beam knows: globs, reads, and writes that are whole or absent.

Local paths never load Beam; `gs://…` and the like go through Beam's FileSystems.
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
from clozemill.pipelines.files import safe_paths

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}$")


@dataclass(frozen=True)
class FileInfo:
    """An input file: path, bytes on disk, and a stamp that changes when the file does."""

    path: str
    size: int
    stamp: str


def is_remote(path: str) -> bool:
    """Whether a path names another filesystem than this machine's."""
    return "://" in path


def _beam(path: str) -> Any:
    from apache_beam.io.filesystems import FileSystems

    scheme = path.split("://")[0]
    try:
        FileSystems.get_filesystem(path)
        if scheme == "s3" and importlib.util.find_spec("boto3") is None:  # Beam's is there, but can do nothing
            raise ValueError
    except ValueError:
        extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
        how = f"pip install 'clozemill[{extra}]'" if extra else "check the scheme"
        raise UserError(f"{path}: the filesystem {scheme}:// isn't installed: {how}") from None
    return FileSystems


@contextlib.contextmanager
def translate_errors(path: str, verb: str) -> Iterator[None]:
    """Turns errors of the operating system or of Beam's filesystems into one sentence."""
    try:
        yield
    except OSError as error:
        hint = "free some space, then run the same command again" if error.errno == 28 else "mend that and run it again"
        raise UserError(f"{path} can't be {verb} ({error.strerror or error}): {hint}") from None


def match(patterns: Iterable[str]) -> list[FileInfo]:
    """The files that globs match, each once, sorted by path. Raises UserError for a glob that matches nothing."""
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
        for info in _beam(pattern).match([pattern])[0].metadata_list:
            yield FileInfo(info.path, info.size_in_bytes, f"{info.size_in_bytes}-{info.last_updated_in_seconds}")
        return
    literal = os.path.exists(pattern)
    for name in [pattern] if literal else _glob(pattern):
        if not literal and os.path.isdir(name):
            continue
        if os.path.isdir(name):
            raise UserError(f"{name} is a folder: give files or a glob such as '{os.path.join(name, '*')}'")
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"{name} is no regular file, and a pipe or device can't be read in pieces: write it to a file first"
            )
        yield FileInfo(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def check_unchanged(path: str, stamp: str) -> None:
    """Raises UserError when an input file isn't the one that was planned. stamp: as `match` gave it; "": not known."""
    if not stamp:
        return
    with translate_errors(path, "read"):
        there = exists(path)
        now = next((info.stamp for info in (_match(path) if there else ())), "")
    if now != stamp:
        what = "was changed" if there else "was removed"
        raise UserError(f"{path} {what} while it was being read: run the same command again when nothing writes to it")


def _glob(pattern: str) -> list[str]:
    """The paths that a local glob matches. ** doesn't enter links to folders: two that point upwards have 2**40 paths."""
    before, deep, rest = pattern.partition("**")
    if not deep or before.rpartition("/")[2] or not rest.startswith("/"):
        return glob.glob(pattern)
    tops = glob.glob(before) if before else ["."]
    folders = [place for top in tops for place, names, _ in os.walk(top) if not _drop_hidden(names)]
    found = {path for place in folders for path in glob.glob(os.path.join(glob.escape(place), rest.lstrip("/")))}
    return [path.removeprefix("./") if not before else path for path in found]


def _drop_hidden(names: list[str]) -> None:
    names[:] = [name for name in names if not name.startswith(".")]


def open_read(path: str) -> BinaryIO:
    """Opens a file's raw bytes. Raises UserError."""
    with translate_errors(path, "read"):
        if is_remote(path):
            from apache_beam.io.filesystem import CompressionTypes

            return _beam(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path} is no file: give one, or leave it out")
        return open(path, "rb")


def read_bytes(path: str) -> bytes:
    """A whole file. Raises UserError."""
    with open_read(path) as file, translate_errors(path, "read"):
        return file.read()


def read_json(path: str) -> dict[str, Any]:
    """A JSON object. Raises UserError when the file is none."""
    try:
        found = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object: it was changed by hand or cut short; restore it, or make the dataset anew")
    return found


def sha256(path: str) -> str:
    """A file's SHA-256. Raises UserError."""
    with open_read(path) as file, translate_errors(path, "read"):
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def join(folder: str, name: str) -> str:
    """A path within a folder; `name` uses forward slashes. What lies Inside a folder of ours still does."""
    path = f"{folder.rstrip('/')}/{name}"
    return safe_paths.Inside(path, folder.root) if isinstance(folder, safe_paths.Inside) else path


def inside(folder: str, name: str) -> str:
    """A path within a folder of ours: what is written there, or removed, goes through no link of that folder."""
    return safe_paths.Inside(join(folder, name), folder)


def exists(path: str) -> bool:
    """Whether there is such a file (or local folder)."""
    return _beam(path).exists(path) if is_remote(path) else os.path.exists(path)


def size(path: str) -> int:
    """Bytes of a file, -1 when there is none."""
    if not is_remote(path):
        return os.stat(path).st_size if os.path.exists(path) else -1
    return _beam(path).match([path])[0].metadata_list[0].size_in_bytes if exists(path) else -1


def _files_below(folder: str) -> list[str]:
    """The files in a folder at any depth; none where there is no such folder."""
    if is_remote(folder):
        return [info.path for info in _beam(folder).match([join(folder, "**")])[0].metadata_list]
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


def names_below(folder: str) -> list[str]:
    """The files in a folder at any depth, relative to it, with forward slashes, sorted."""
    start = len(folder.rstrip("/")) + 1
    return sorted(path[start:].replace(os.sep, "/") for path in _files_below(folder))


def holds_files(folder: str, besides: Collection[str] = ()) -> bool:
    """Whether a folder is there and holds a file, at any depth, besides some; what a killed write left doesn't count."""
    return any(not _TEMPORARY.search(name) and name not in besides for name in names_below(folder))


@contextlib.contextmanager
def atomic_write(path: str, sync: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole: written to PATH.tmp-<unique>, then renamed.

    The temporary file is a new one of that name, and a link that has the final name is replaced, so nothing is written
    through a link. sync: the file and its name are on the disk afterwards, whatever happens to the power; sync_files does it
    later for many at once.
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
            if exists(path):
                _beam(path).delete([path])
            _beam(path).rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(Exception):
            _beam(path).delete([temporary])
        raise


def sync_files(folder: str, names: Iterable[str]) -> None:
    """Waits until files and their names are on the disk (local ones only). Raises UserError."""
    if not is_remote(folder):
        with translate_errors(folder, "written"):
            safe_paths.sync(folder, names)


def write_bytes(path: str, data: bytes, sync: bool = True) -> None:
    """Writes a small file atomically."""
    with atomic_write(path, sync) as file:
        file.write(data)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(OSError):
        if is_remote(path):
            _beam(path).delete([path])
            return
        with safe_paths.parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)


def remove_tree(folder: str, keep: str = "") -> None:
    """Removes a folder and what is in it, if it is there; of a link to a folder, the link. keep: what is left in the folder."""
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
    """Removes what an earlier run, killed while it wrote this file, left of it (local files only)."""
    for left in [] if is_remote(path) else glob.glob(f"{glob.escape(path)}.tmp-" + "[0-9a-f]" * 32):
        with contextlib.suppress(OSError):
            os.unlink(left)


def remove_temporaries(folder: str) -> None:
    """Removes what an earlier run, killed in the middle, left under temporary names (local folders only)."""
    for path in [] if is_remote(folder) else _files_below(folder):
        if _TEMPORARY.search(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


class Hashed:
    """A file that keeps the size and the SHA-256 of what is written to it."""

    def __init__(self, file: Any) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
