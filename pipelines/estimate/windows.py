"""Read complete records from any position of an input file, and count the bytes on disk that they represent.

Only a bounded part of a file is read, however large it is: a window of a plain file, some streams of a multistream .bz2, some
rows of a Parquet row group. A .gz, .zst or single-stream .bz2 file can't be read from the middle, so a prefix represents it.
"""

import bz2
import contextlib
import hashlib
import itertools
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import mediawiki
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.readers.parquet import open_parquet, wanted_columns

PREFIX_BYTES = 64 << 20  # decompressed, in total for all files that can't be read from the middle
SEARCH_BYTES = 4 << 20  # on disk, within which a multistream .bz2 starts a stream
MAX_RECORD = 8 << 20  # a longer record is dropped
SKIP_BYTES = 2 << 20  # of a Parquet row group that may be read and skipped
_STEP = 1 << 14  # compressed bytes per read: the precision of the consumed bytes
_CHUNK = 1 << 16
_DELIMITERS = {
    "jsonl": re.compile(rb"\n"),
    "bert": re.compile(rb"\n(?:[ \t\r]*\n)+"),
    "wikixml": re.compile(re.escape(mediawiki.CLOSE)),
}
_LONGEST = 64  # bytes of a delimiter that may span two chunks
_ENDS = {"jsonl": b"\n", "bert": b"\n\n", "wikixml": b""}


@dataclass
class Window:
    """The records that begin within a stretch of a file (or Arrow batches), and the bytes on disk that they represent.

    ended: the file ended before the stretch did. head: for a dump, the head needed to read its pages.
    """

    records: list = field(default_factory=list)
    disk: float = 0.0
    ended: bool = False
    head: bytes = b""


def cut(
    chunks: Iterable[bytes], format_: str, wanted: float, skip: bool = False, whole: bool = True
) -> tuple[list[bytes], bool]:
    """Return the records that begin within `wanted` bytes, with their delimiters; and whether the chunks ended first.

    skip: the chunks begin within a record, which is skipped. whole: the chunks continue to the end of the file, where a record
    needs no delimiter. A record longer than MAX_RECORD ends the window.
    """
    delimiter, records = _DELIMITERS[format_], []
    buffer, base, begin, scan = bytearray(), 0, -1 if skip else 0, 0  # base: position of the buffer in the chunks
    for chunk in chunks:
        buffer += chunk
        while hit := delimiter.search(buffer, scan):
            if begin >= 0:
                records.append(bytes(buffer[begin : hit.end()]))
            begin = scan = hit.end()
            if base + begin > wanted:
                return records, False
        scan = max(scan, len(buffer) - _LONGEST)
        if scan - max(begin, 0) > MAX_RECORD or (begin < 0 and base + scan > wanted):
            return records, False
        if begin > 0:
            del buffer[:begin]
            base, scan, begin = base + begin, scan - begin, 0
    if whole and begin >= 0 and buffer[begin:].strip() and format_ != "wikixml":
        records.append(bytes(buffer[begin:]) + _ENDS[format_])
    return records, True


class _Stepwise:
    """A file that is read in small steps."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, _STEP))


def _chunks(path: str, start: int) -> Generator[bytes, None, None]:
    with filesystem.open_read(path) as file, filesystem.translate_errors(path, "read"):
        file.seek(start)
        while chunk := file.read(_CHUNK):
            yield chunk


@dataclass
class TextFile:
    """A file of lines, pages or paragraphs, plain or compressed.

    budget: decompressed bytes to read if the file can't be read from the middle; `folder` stores them. seconds: time of
    decompression, and `unpacked` the bytes on disk that took it. share: fraction of the file that positions can be in.
    """

    info: FileInfo
    format: str
    compression: str
    folder: str
    budget: int
    seconds: float = 0.0
    unpacked: float = 0.0
    share: float = 1.0
    _text: tuple[str, int, float] | None = None  # path and size of a file, and the bytes on disk per byte
    _multistream: bool | None = None
    _head: bytes | None = None
    _encoded: bool | None = None  # whether its encoding isn't UTF-8

    def window(self, place: float, wanted: float) -> Window:
        """Return the records that begin within `wanted` bytes on disk of a position in [0, 1), or up to the end of the file."""
        if self._encoded is None:
            self._encoded = bool(readers_compression.encoding(self.info.path, self.format, self.compression))
        if self.compression == "bz2" and not self._encoded and self._streams_begin():
            return self._streams(int(place * self.info.size), wanted)
        if self._text is None:
            plain = self.compression == "none" and not self._encoded
            self._text = (self.info.path, self.info.size, 1.0) if plain else self._unpack()
        path, size, rate = self._text
        start = int(place * size)
        with contextlib.closing(_chunks(path, start)) as chunks:
            records, ended = cut(chunks, self.format, wanted / rate, start > 0, self.share == 1)
        return self._checked(Window(records, sum(map(len, records)) * rate, ended and self.share == 1), start)

    def _streams_begin(self) -> bool:
        """Return whether a .bz2 file has more than one stream, with the second within reach."""
        if self._multistream is None:
            with filesystem.open_read(self.info.path) as file, filesystem.translate_errors(self.info.path, "read"):
                at = readers_compression.stream_start(file, 1, min(SEARCH_BYTES, self.info.size))
            self._multistream = at > 0
        return self._multistream

    def _checked(self, window: Window, start: int) -> Window:
        if self.format == "wikixml":
            if not start and window.records:
                mediawiki.check_header(window.records[0], self.info.path)
            pages = [mediawiki.cut_page(record) for record in window.records]
            window.records = [page + b"\n" for page in pages if page]
            if self._head is None:
                self._head = mediawiki.read_head(self.info.path, self.compression)
            window.head = self._head + b"\n" if b"<mediawiki" in self._head else b"<mediawiki>\n"
        return window

    def _unpack(self) -> tuple[str, int, float]:
        """Decompress the beginning of the file to a temporary file."""
        begin, size = time.process_time(), 0
        name = os.path.join(self.folder, hashlib.blake2b(self.info.path.encode("utf-8", "surrogateescape")).hexdigest()[:32])
        path, whole = (
            self.info.path,
            InputSplit(self.info.path, self.format, self.compression, 0, self.info.size, self.info.size),
        )
        with filesystem.open_read(path) as raw, filesystem.translate_errors(path, "read"), open(name, "wb") as out:
            consumed = self.info.size
            for piece, _ in readers_compression.decoded(_Stepwise(raw), whole):
                size += out.write(piece)
                if size >= self.budget:
                    consumed = raw.tell()
                    break
        self.seconds += time.process_time() - begin
        self.unpacked += consumed
        self.share = consumed / max(self.info.size, 1)
        return name, size, consumed / max(size, 1)

    def _streams(self, start: int, wanted: float) -> Window:
        """Return records from the bz2 streams that begin at byte `start` or soon after; none if no stream begins there."""
        begin = time.process_time()
        with filesystem.open_read(self.info.path) as file, filesystem.translate_errors(self.info.path, "read"):
            at = readers_compression.stream_start(file, start, min(start + SEARCH_BYTES, self.info.size))
            if at < 0:
                return Window(ended=start + SEARCH_BYTES >= self.info.size)
            streams = _Streams(file, at, self.info.path)
            pieces = iter(streams)
            first = next(pieces, b"")
            rate = streams.size / max(streams.disk, 1)
            records, ended = cut(itertools.chain([first], pieces), self.format, wanted * rate, at > 0)
        self.seconds += time.process_time() - begin
        self.unpacked += streams.disk
        return self._checked(Window(records, sum(map(len, records)) / max(rate, 1e-9), ended), at)


class _Streams:
    """Complete bz2 streams from `start` on: chunks of text; `disk` and `size`: their compressed and decompressed bytes."""

    def __init__(self, file: BinaryIO, start: int, path: str) -> None:
        self._file, self._start, self._path, self.disk, self.size = file, start, path, 0, 0

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        data = b""
        while data or (data := self._file.read(_STEP)):
            decoder, text = bz2.BZ2Decompressor(), []
            while not decoder.eof:
                if not data and not (data := self._file.read(_STEP)):
                    raise decompression.damaged(self._path, "bz2", "it is truncated within a stream")
                try:
                    text.append(decoder.decompress(data))
                except OSError as error:
                    raise decompression.damaged(self._path, "bz2", str(error)) from None
                data = decoder.unused_data.lstrip(b"\0")
                if decoder.eof or sum(map(len, text)) > MAX_RECORD:
                    self.disk = self._file.tell() - len(data) - self._start
                    self.size += sum(map(len, text))
                    yield b"".join(text)
                    text = []


@dataclass
class ParquetFile:
    """A Parquet file, read at row groups and, if that is cheap, within them."""

    info: FileInfo
    options: InputOptions
    seconds: float = 0.0
    unpacked: float = 0.0
    share: float = 1.0

    def window(self, place: float, wanted: float) -> Window:
        """Return Arrow batches of the rows from a position in [0, 1); each row represents an equal share of the bytes."""
        found = Window()
        with contextlib.closing(open_parquet(self.info.path, _CHUNK)) as file:
            rows = file.metadata.num_rows
            columns = wanted_columns(file, self.info.path, self.options)
            begin, left = int(place * rows), int((place + wanted / max(self.info.size, 1)) * rows) - int(place * rows)
            for batch in _batches(file, begin, columns, self.info.path) if left else ():
                found.records.append(batch.slice(0, left))
                found.disk += len(found.records[-1]) * self.info.size / rows
                left -= len(found.records[-1])
                if not left:
                    break
        found.ended = left > 0 or not rows
        return found


def _batches(file: pq.ParquetFile, begin: int, columns: list[str], path: str) -> Iterator[pa.RecordBatch]:
    """Yield batches of rows from row `begin`, or in a large row group from a row within its first SKIP_BYTES."""
    for index in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(index)
        if begin >= group.num_rows:
            begin -= group.num_rows
            continue
        skipped = int(begin * min(1.0, SKIP_BYTES / max(group.total_byte_size, 1)))
        begin = 0
        try:
            for batch in file.iter_batches(64, row_groups=[index], columns=columns, use_threads=False):
                if skipped < len(batch):
                    yield batch.slice(skipped)
                skipped = max(0, skipped - len(batch))
        except (pa.ArrowException, OSError) as error:
            raise decompression.damaged(path, "Parquet", str(error).splitlines()[0][:200]) from None
