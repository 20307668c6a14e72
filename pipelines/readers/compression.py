"""Read and decompress the bytes of input files, from the start of a split.

A compression is a file suffix in COMPRESSIONS and a decoder. Decoders yield chunks of bounded size, however much the data
expands, and report where a file is truncated or damaged.
"""

import bz2
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import zstandard

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import charsets
from clozemill.pipelines.files.filesystem import open_read, translate_errors
from clozemill.pipelines.files.safe_paths import CHUNK_BYTES
from clozemill.pipelines.readers.input_split import InputSplit

_ZST_STEP = 4096  # compressed bytes per call: even a zip bomb expands to at most 128 MB
# The window of zstd's --long and --ultra. A frame may ask for 2 GB (--long=31), which each worker would have to allocate.
_ZST_WINDOW = 1 << 27
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zst"}
_BZ2_MAGIC = re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")

# How compressed files begin, and how their names end.
MARKS = {"gzip": (b"\x1f\x8b\x08", ".gz"), "bzip2": (b"BZh91AY&SY", ".bz2"), "Zstandard": (b"\x28\xb5\x2f\xfd", ".zst")}


def compression_of(path: str) -> tuple[str, str]:
    """Return (compression, name without its suffix), from the name of the file."""
    stem, ending = os.path.splitext(path)
    return (COMPRESSIONS[ending.lower()], stem) if ending.lower() in COMPRESSIONS else ("none", path)


def pieces(split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    """Yield decompressed UTF-8 bytes from the start of a split to the end of its file, in chunks.

    The flag is True for chunks that the split owns. A reader continues into the others only to finish a record. A plain file
    can be split at any byte, a .bz2 file at its streams; .gz and .zst files are one split.

    Raises:
        UserError: the file is truncated or isn't what its name says.
    """
    with open_read(split.path) as file, translate_errors(split.path, "read"):
        yield from decoded(file, split)


def encoding(path: str, format_: str, compression: str) -> str:
    """Return the encoding that the first bytes of a file declare; "" for UTF-8. Raise UserError if it is unknown."""
    with open_read(path) as file, translate_errors(path, "read"):
        head = b""
        for piece, _ in _decoded(file, InputSplit(path, format_, compression, 0, charsets.HEAD, charsets.HEAD)):
            head += piece
            if len(head) >= charsets.HEAD:
                break
    return charsets.encoding_of(head[: charsets.HEAD], path, format_ == "wikixml")


def decoded(file: BinaryIO, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    """Like `pieces`, for a file that is open already. The position of the file shows how much was consumed."""
    found = _checked(_decoded(file, split), split)
    return found if split.start else charsets.to_utf8(found, split.path, split.format == "wikixml")


def _checked(found: Iterator[tuple[bytes, bool]], split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    """The pieces of a split. Raise UserError for a file without compression by its name that begins as a compressed one."""
    first = split.start == 0 and split.compression == "none"
    for piece, owned in found:
        if first:
            for kind, (mark, ending) in MARKS.items():
                if piece.startswith(mark):
                    raise UserError(f"{split.path} is compressed with {kind}: rename it to end with {ending}")
            first = False
        yield piece, owned


def _decoded(file: BinaryIO, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    if split.compression == "none":
        yield from _plain(file, split)
    elif split.compression == "bz2":
        begin = stream_start(file, split.start, split.end) if split.start else 0
        yield from _bz2_streams(file, split, begin) if begin >= 0 else ()
    else:
        yield from ((piece, True) for piece in _DECODERS[split.compression](file, split.path))


def _plain(file: BinaryIO, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    file.seek(split.start)
    left = split.end - split.start
    while piece := file.read(min(CHUNK_BYTES, left) if left > 0 else CHUNK_BYTES):
        yield piece, left > 0
        left -= len(piece)


def damaged(path: str, kind: str, why: str) -> UserError:
    """Return the error for a compressed file that can't be read to its end."""
    return UserError(f"{path} is not an intact {kind} file ({why}): download it again or remove it from the input")


def stream_start(file: BinaryIO, start: int, end: int) -> int:
    """Return the offset of the first bz2 stream that begins in [start, end), or -1."""
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


def _bz2_streams(file: BinaryIO, split: InputSplit, position: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the streams from the one at `position` to the end of the file.

    Uses Python's bz2: on Wikipedia text, indexed_bzip2 took 0.7 to 1.3 times its CPU time, depending on the machine.
    """
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
                raise damaged(split.path, "bz2", f"it is truncated in the stream that starts at byte {position}")
            try:
                piece = decoder.decompress(data, CHUNK_BYTES * 4)
            except OSError as error:
                raise damaged(split.path, "bz2", f"from byte {position}: {error}") from None
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
        raise damaged(path, "gzip", "it is truncated")


def _zst_decoder() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_ZST_WINDOW).decompressobj()


def _zst(file: BinaryIO, path: str) -> Iterator[bytes]:
    decoder, data = _zst_decoder(), b""
    fresh = True
    try:
        while data or (data := file.read(CHUNK_BYTES)):
            if decoder.eof:
                decoder = _zst_decoder()
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
        if "too much memory" in str(error):
            raise UserError(
                f"{path} was compressed with a window of more than {_ZST_WINDOW >> 20} MB, which each reader would have to "
                "allocate: compress it again without --long, for example with zstd -d --long=31 -c FILE | zstd"
            ) from None
        raise damaged(path, "zstd", str(error)) from None
    if fresh or not decoder.eof:
        raise damaged(path, "zstd", "it is truncated")


_DECODERS = {"gzip": _gzip, "zst": _zst}
