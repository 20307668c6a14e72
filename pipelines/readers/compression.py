"""Read and decompress the bytes of input files, from the start of a split.

Decoders (files/decompression.py) yield chunks of bounded size, however much the data expands, and report where a file is
truncated or damaged.
"""

import re
from collections.abc import Generator, Iterator

from clozemill.pipelines.files import charsets, decompression
from clozemill.pipelines.files.filesystem import open_read, translate_errors
from clozemill.pipelines.files.safe_paths import CHUNK_BYTES
from clozemill.pipelines.readers.input_split import InputSplit

_BZ2_MAGIC = re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")


def pieces(split: InputSplit) -> Generator[tuple[bytes, bool], None, None]:
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


def decoded(file: decompression.Readable, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    """Like `pieces`, for a file that is open already. The position of the file shows how much was consumed."""
    found = _checked(_decoded(file, split), split)
    return found if split.start else charsets.to_utf8(found, split.path, split.format == "wikixml")


def _checked(found: Iterator[tuple[bytes, bool]], split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    """Yield the pieces of a split. Raise UserError if the name says uncompressed, but the content is compressed."""
    first = split.start == 0 and split.compression == "none"
    for piece, owned in found:
        if first:
            decompression.check_uncompressed(piece, split.path)
            first = False
        yield piece, owned


def _decoded(file: decompression.Readable, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    if split.compression == "none":
        yield from _plain(file, split)
    elif split.compression == "bz2":
        begin = stream_start(file, split.start, split.end) if split.start else 0
        found = decompression.bz2_pieces(file, split.path, begin) if begin >= 0 else ()
        yield from ((piece, stream < split.end) for piece, stream in found)
    else:
        yield from ((piece, True) for piece in decompression.DECODERS[split.compression](file, split.path))


def _plain(file: decompression.Readable, split: InputSplit) -> Iterator[tuple[bytes, bool]]:
    file.seek(split.start)
    left = split.end - split.start
    while piece := file.read(min(CHUNK_BYTES, left) if left > 0 else CHUNK_BYTES):
        yield piece, left > 0
        left -= len(piece)


def stream_start(file: decompression.Readable, start: int, end: int) -> int:
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
