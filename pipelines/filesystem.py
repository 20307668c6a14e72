"""Files, local or on any filesystem that Beam knows: globs, reads, decompression, and writes that are whole or absent.

Local paths never load Beam; `gs://…` and the like go through Beam's FileSystems.
"""

import bz2
import contextlib
import glob
import os
import re
import shutil
import stat
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import zstandard

from pipelines.schema import Split, UserError

CHUNK_BYTES = 1 << 20
_ZST_STEP = 4096  # compressed bytes a call: even a bomb expands to 128 MB at most
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zst"}
_BZ2_MAGIC = re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")


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

    try:
        FileSystems.get_filesystem(path)
    except ValueError:
        scheme = path.split("://")[0]
        extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
        how = f"pip install 'clozemill[{extra}]'" if extra else "check the scheme"
        raise UserError(f"{path}: the filesystem {scheme}:// isn't installed: {how}") from None
    return FileSystems


@contextlib.contextmanager
def _telling(path: str, verb: str) -> Iterator[None]:
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
        with _telling(pattern, "listed"):
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
    names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    for name in names:
        if os.path.isdir(name):
            raise UserError(f"{name} is a folder: give files or a glob such as '{os.path.join(name, '*')}'")
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"{name} is no regular file, and a pipe or device can't be read in pieces: write it to a file first"
            )
        yield FileInfo(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def open_read(path: str) -> BinaryIO:
    """Opens a file's raw bytes. Raises UserError."""
    with _telling(path, "read"):
        if is_remote(path):
            from apache_beam.io.filesystem import CompressionTypes

            return _beam(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        return open(path, "rb")


def read_bytes(path: str) -> bytes:
    """A whole file. Raises UserError."""
    with open_read(path) as file, _telling(path, "read"):
        return file.read()


def join(folder: str, name: str) -> str:
    """A path within a folder; `name` uses forward slashes."""
    return f"{folder.rstrip('/')}/{name}"


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


def holds_files(folder: str) -> bool:
    """Whether a folder is there and holds a file, at any depth; what a killed or failed write left doesn't count."""
    return any(".tmp-" not in path for path in _files_below(folder))


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is whole: written to PATH.tmp-<unique>, then renamed."""
    temporary = f"{path}.tmp-{uuid.uuid4().hex}"
    try:
        with _telling(path, "written"):
            if is_remote(path):
                from apache_beam.io.filesystem import CompressionTypes

                file = _beam(path).create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
            else:
                os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
                file = open(temporary, "wb", buffering=CHUNK_BYTES)  # noqa: SIM115 (closed below, like the other)
            with file:
                yield file
            if is_remote(path):
                if exists(path):
                    _beam(path).delete([path])
                _beam(path).rename([temporary], [path])
            else:
                os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            _beam(path).delete([temporary]) if is_remote(path) else os.unlink(temporary)
        raise


def write_bytes(path: str, data: bytes) -> None:
    """Writes a small file atomically."""
    with atomic_write(path) as file:
        file.write(data)


def remove_tree(folder: str) -> None:
    """Removes a folder and what is in it, if it is there."""
    if is_remote(folder):
        with contextlib.suppress(OSError):
            _beam(folder).delete(_files_below(folder))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def remove_temporaries(folder: str) -> None:
    """Removes what an earlier run, killed in the middle, left under temporary names (local folders only)."""
    for path in [] if is_remote(folder) else _files_below(folder):
        if ".tmp-" in os.path.basename(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def compression_of(path: str) -> tuple[str, str]:
    """(compression, the name without its ending) by the file's name."""
    stem, ending = os.path.splitext(path)
    return (COMPRESSIONS[ending.lower()], stem) if ending.lower() in COMPRESSIONS else ("none", path)


def chunks(split: Split) -> Iterator[tuple[bytes, bool]]:
    """Decompressed bytes from a split's start to the end of its file, in pieces.

    The flag is True for pieces that the split owns; a reader goes on into the others only to finish a record. A plain
    file is cut at any byte, a .bz2 at the streams that begin within the split; .gz and .zst are one split.
    Raises UserError for a file that is truncated or isn't what its name says.
    """
    with open_read(split.path) as file, _telling(split.path, "read"):
        if split.compression == "none":
            yield from _plain(file, split)
        elif split.compression == "bz2":
            yield from _bz2_streams(file, split)
        else:
            yield from ((piece, True) for piece in _DECODERS[split.compression](file, split.path))


def _plain(file: BinaryIO, split: Split) -> Iterator[tuple[bytes, bool]]:
    file.seek(split.start)
    left = split.end - split.start
    while piece := file.read(min(CHUNK_BYTES, left) if left > 0 else CHUNK_BYTES):
        yield piece, left > 0
        left -= len(piece)


def damaged(path: str, kind: str, why: str) -> UserError:
    """The sentence for a compressed file that can't be read to its end."""
    return UserError(f"{path} is not a whole {kind} file ({why}): fetch it again or leave it out")


def _stream_start(file: BinaryIO, start: int, end: int) -> int:
    """Where the first bz2 stream at or after `start` and before `end` begins, or -1."""
    file.seek(start)
    base, tail = start, b""
    while base - len(tail) < end and (piece := file.read(CHUNK_BYTES)):
        window = tail + piece
        if found := _BZ2_MAGIC.search(window):
            at = base - len(tail) + found.start()
            return at if at < end else -1
        tail = window[-9:]
        base += len(piece)
    return -1


def _bz2_streams(file: BinaryIO, split: Split) -> Iterator[tuple[bytes, bool]]:
    position = _stream_start(file, split.start, split.end) if split.start else 0
    if position < 0:
        return
    file.seek(position)
    if not split.size:
        raise damaged(split.path, "bz2", "it is empty")
    data = b""
    while data or (data := file.read(CHUNK_BYTES)):
        if not data.strip(b"\0"):  # padding after the last stream
            data = b""
            continue
        decoder, owned = bz2.BZ2Decompressor(), position < split.end
        while not decoder.eof:
            if not data and decoder.needs_input and not (data := file.read(CHUNK_BYTES)):
                raise damaged(split.path, "bz2", f"it ends in the middle of the stream that begins at byte {position}")
            try:
                piece = decoder.decompress(data, CHUNK_BYTES * 4)
            except OSError as error:
                raise damaged(split.path, "bz2", f"byte {position} on: {error}") from None
            data = b""
            if piece:
                yield piece, owned
        data = decoder.unused_data
        position = file.tell() - len(data)


def _gzip(file: BinaryIO, path: str) -> Iterator[bytes]:
    decoder, data, empty = zlib.decompressobj(31), b"", True
    try:
        while data or (data := file.read(CHUNK_BYTES)):
            if decoder.eof:  # another member, or padding after the last
                if not (data := data.lstrip(b"\0")):
                    continue
                decoder = zlib.decompressobj(31)
            empty = False
            if piece := decoder.decompress(data, CHUNK_BYTES * 4):
                yield piece
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        if piece := decoder.flush():
            yield piece
    except zlib.error as error:
        raise damaged(path, "gzip", str(error)) from None
    if empty or not decoder.eof:
        raise damaged(path, "gzip", "it ends in the middle")


def _zst(file: BinaryIO, path: str) -> Iterator[bytes]:
    decoder, data = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(), b""
    fresh = True
    try:
        while data or (data := file.read(CHUNK_BYTES)):
            if decoder.eof:
                decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            fresh = False
            for low in range(0, len(data), _ZST_STEP):
                if piece := decoder.decompress(data[low : low + _ZST_STEP]):
                    yield piece
                if decoder.eof:
                    data = decoder.unused_data + data[low + _ZST_STEP :]
                    break
            else:
                data = b""
    except zstandard.ZstdError as error:
        raise damaged(path, "zstd", str(error)) from None
    if fresh or not decoder.eof:
        raise damaged(path, "zstd", "it ends in the middle")


_DECODERS = {"gzip": _gzip, "zst": _zst}
