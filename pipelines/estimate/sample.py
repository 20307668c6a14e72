"""Write a deterministic sample of a corpus as small files that the stages of `prepare` read like any input.

The corpus is treated as one string of bytes on disk, with files sorted by path. WINDOWS positions are spread evenly over it,
each shifted by a stable hash within its stretch. From each position, complete records that begin within an equal number of
bytes are taken. So every record is equally likely to be taken, and results are scaled by bytes on disk. The windows are
distributed over PARTS, whose differences give the uncertainty of the estimate.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.estimate.windows import MAX_RECORD, PREFIX_BYTES, ParquetFile, TextFile, Window
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.input_split import InputSplit

PARTS, WINDOWS = 8, 64
_HOPS = 1000  # maximum number of files that a window spans
_ENDINGS = {"jsonl": "jsonl", "bert": "txt", "wikixml": "xml"}
_TAILS = {"wikixml": b"</mediawiki>\n"}  # after the last record of a file


@dataclass
class Part:
    """Some windows: the files with their records, and the bytes of the corpus on disk that they represent."""

    splits: list[InputSplit] = field(default_factory=list)
    disk: float = 0.0


@dataclass
class Sample:
    """The parts of a sample; CPU seconds to decompress the complete corpus; and `prefixes`: (file, fraction of it that was
    accessible) for files that are represented by their beginning."""

    parts: list[Part]
    unpacking: float
    prefixes: list[tuple[str, float]]


def _fraction(*words: object) -> float:
    """Return a number in [0, 1) that depends only on the words."""
    digest = hashlib.blake2b(" ".join(map(str, words)).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def split_of(path: str, format_: str) -> InputSplit:
    """Return one split for a plain file, or for all row groups of a Parquet file."""
    size = os.path.getsize(path)
    end = pq.read_metadata(path).num_row_groups if format_ == "parquet" else size
    return InputSplit(path, format_, "none", 0, end, size)


class _Writer:
    """Writes windows to the files of a part: one per format, and one per Parquet window, because schemas differ."""

    def __init__(self, folder: str) -> None:
        self._folder, self.part, self._count = folder, Part(), 0
        os.makedirs(folder, exist_ok=True)

    def add(self, window: Window, format_: str) -> None:
        self.part.disk += window.disk
        if not window.records:
            return
        self._count += 1
        if format_ == "parquet":
            path = os.path.join(self._folder, f"{self._count}.parquet")
            pq.write_table(pa.Table.from_batches(window.records), path)
        elif format_ == "document":
            path = os.path.join(self._folder, f"{self._count}.txt")
            filesystem.write_bytes(path, window.records[0])
        else:
            wiki = hashlib.blake2b(window.head, digest_size=8).hexdigest()  # dumps of different wikis stay separate
            self._append(os.path.join(self._folder, f"sample-{wiki}.{_ENDINGS[format_]}"), window, format_)
            return
        self.part.splits.append(split_of(path, format_))

    def _append(self, path: str, window: Window, format_: str) -> None:
        tail = _TAILS.get(format_, b"")
        with open(path, "ab") as file:
            if file.tell():
                file.truncate(file.tell() - len(tail))
            else:
                file.write(window.head)
            file.writelines([*window.records, tail])
        self.part.splits = [split for split in self.part.splits if split.path != path] + [split_of(path, format_)]


def _document(info: FileInfo, compression: str) -> Window:
    """Return a file that is one document, or its beginning."""
    whole = InputSplit(info.path, "document", compression, 0, info.size, info.size)
    data, consumed = bytearray(), info.size
    with filesystem.open_read(info.path) as file, filesystem.translate_errors(info.path, "read"):
        for piece, _ in readers_compression.decoded(file, whole):
            data += piece
            if len(data) > MAX_RECORD:
                consumed = file.tell()
                break
    return Window([bytes(data) if consumed == info.size else data.decode("utf-8", "ignore").encode()], consumed)


def _documents(files: list[tuple[FileInfo, str]], writers: list[_Writer], wanted: float) -> None:
    """Take complete files in the order of a hash, up to `wanted` bytes on disk: each is equally likely."""
    taken = 0.0
    for number, (info, compression) in enumerate(sorted(files, key=lambda file: _fraction("document", file[0].path))):
        if taken >= wanted and number >= PARTS:
            return
        window = _document(info, compression)
        writers[number % PARTS].add(window, "document")
        taken += window.disk


def _windows(files: list[TextFile | ParquetFile], writers: list[_Writer], wanted: float, tick: Callable[[], object]) -> None:
    """Take WINDOWS windows from files with many records each, `wanted` bytes on disk in total."""
    starts = list(accumulate((file.info.size for file in files), initial=0))
    for number in range(WINDOWS if files and starts[-1] else 0):
        place = (number + _fraction("window", number)) * starts[-1] / WINDOWS
        index, left = bisect_right(starts, place, hi=len(files)) - 1, wanted / WINDOWS
        within = (place - starts[index]) / files[index].info.size
        for _ in range(min(_HOPS, len(files))):  # at the end of a file, the window continues with the next
            file = files[index]
            window = file.window(within, left) if file.info.size else Window(ended=True)
            writers[number % PARTS].add(window, getattr(file, "format", "parquet"))
            left -= (1 - within) * file.info.size
            if not window.ended or left <= 0:
                break
            index, within = (index + 1) % len(files), 0.0
        tick()


def draw(files: list[FileInfo], options: InputOptions, fraction: float, folder: str, tick: Callable[[], object]) -> Sample:
    """Take a sample of about `fraction` of the corpus, and write it to a folder.

    Args:
        files: sorted by path. tick: called WINDOWS times.
    Raises UserError if a file can't be read.
    """
    many: list[TextFile | ParquetFile] = []
    single = []
    total = sum(info.size for info in files)
    for info in files:
        format_, compression = formats.detect(info.path, options.format)
        if format_ == "document":
            single.append((info, compression))
        elif format_ == "parquet":
            many.append(ParquetFile(info, options))
        else:
            budget = max(PREFIX_BYTES * info.size // max(total, 1), PREFIX_BYTES // WINDOWS)
            many.append(TextFile(info, format_, compression, folder, budget))
    writers = [_Writer(os.path.join(folder, f"part-{number}")) for number in range(PARTS)]
    _windows(many, writers, fraction * sum(file.info.size for file in many), tick)
    _documents(single, writers, fraction * sum(info.size for info, _ in single))
    now = {info.path: info.stamp for info in filesystem.match(options.input)}
    for info in files:
        if now.get(info.path) != info.stamp:
            filesystem.check_unchanged(info.path, info.stamp)
    unpacked, seconds = sum(file.unpacked for file in many), sum(file.seconds for file in many)
    packed = sum(file.info.size for file in many if getattr(file, "compression", "none") != "none")
    return Sample(
        [writer.part for writer in writers],
        seconds * packed / unpacked if unpacked else 0.0,
        [(file.info.path, file.share) for file in many if file.share < 1],
    )
