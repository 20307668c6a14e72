"""Read input files into documents. A format is an entry in READERS with two functions: plan splits, and read a split.

Plain files are split at any byte, multistream .bz2 files at stream boundaries, and Parquet files at row groups.
A record belongs to the split that contains the start of the delimiter before it, so each record is read exactly once.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import jsonl, mediawiki, parquet
from clozemill.pipelines.readers import plain_text as readers_plain_text
from clozemill.pipelines.readers.document import Document, Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.wikitext import converter

MIN_SPLIT, MAX_SPLIT, SPLITS = 1 << 20, 48 << 20, 32  # bytes; the number of splits to aim for within these bounds

_PART = re.compile(r"[-_.](?:p\d+p\d+|\d+(?:-of-\d+)?)$")
_ENDINGS = {".xml": "wikixml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_ENDINGS |= {".parquet": "parquet", ".txt": "bert", ".text": "bert"}
_INDEX = re.compile(r"-multistream-index\d*\.txt$")  # the index of a Wikipedia dump


def plan_bytes(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[InputSplit]:
    """Plan byte ranges of a file, or one split for a file that can't be read from the middle."""
    entered = compression in ("none", "bz2")
    if entered and info.size > split_bytes:  # text in another encoding must be converted from its start
        entered = not readers_compression.encoding(info.path, format_, compression)
    step = split_bytes if entered else max(info.size, 1)
    starts = range(0, max(info.size, 1), step)
    return [
        InputSplit(info.path, format_, compression, low, min(low + step, info.size), min(step, info.size - low), info.stamp)
        for low in starts
    ]


def plan_whole(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[InputSplit]:
    """Plan one split for a file."""
    return [InputSplit(info.path, format_, compression, 0, info.size, info.size, info.stamp)]


def plain_text(document: Document, options: InputOptions) -> str:
    """Return a document's text without markup, before cleaning."""
    if document.kind != "wikitext":
        return document.text
    return converter.to_text(document.text, headings=options.headings, wiki=document.wiki)


@dataclass(frozen=True)
class Reader:
    """A format: functions to plan its files and to read a split, and the bytes of clean text per byte of raw text."""

    plan: Callable[[FileInfo, str, str, int], list[InputSplit]]
    read: Callable[[InputSplit, InputOptions], Iterator[Record]]
    text_share: float = 1.0


READERS: dict[str, Reader] = {
    "wikixml": Reader(plan_bytes, mediawiki.read_pages, 0.25),
    "jsonl": Reader(plan_bytes, jsonl.read_jsonl),
    "parquet": Reader(parquet.plan_parquet, parquet.read_parquet, 2.0),
    "bert": Reader(plan_bytes, readers_plain_text.read_bert),
    "document": Reader(plan_whole, readers_plain_text.read_document),
}
_EXPANSION = {"none": 1.0, "gzip": 2.7, "bz2": 3.5, "zst": 3.0}


def detect(path: str, format_: str) -> tuple[str, str]:
    """Return (format, compression) of a file by its name, or for a MediaWiki dump, by its first bytes.

    Part numbers in the name are ignored: a.xml-p1p41242.bz2, a.jsonl-00001-of-00010, a.txt.03.

    Raises:
        UserError: the format is `auto` and can't be detected.
    """
    compression, stem = decompression.compression_of(path)
    if format_ == "auto":
        if _INDEX.search(stem):
            raise UserError(
                f"{path} is the index of a multistream dump and contains no text: remove it from --input, or give --format"
            )
        ending = "." + _PART.sub("", stem).rsplit(".", 1)[-1].lower()
        format_ = _ENDINGS.get(ending) or ("wikixml" if mediawiki.is_dump(path, compression) else "")
        if not format_:
            known = ", ".join(sorted(_ENDINGS))
            raise UserError(f"{path}: unknown file format ({known}): remove it from --input, convert it, or give --format")
    if format_ == "parquet" and compression != "none":
        raise UserError(f"{path}: a Parquet file with additional compression can't be read in parts: decompress it")
    return format_, compression


@dataclass(frozen=True)
class Plan:
    """All splits of the input, its size on disk, and an estimate of its clean text in bytes."""

    splits: list[InputSplit]
    files: int
    size: int
    text_estimate: int


def input_files(patterns: Sequence[str]) -> dict[str, FileInfo]:
    """Return the files that globs match, by their real paths.

    A local file that is given under several names, as a relative and an absolute path or through a link, is read once.
    """
    files: dict[str, FileInfo] = {}
    for info in filesystem.match(patterns):
        files.setdefault(filesystem.real_path(info.path), info)
    return files


def plan(options: InputOptions) -> Plan:
    """List the input files and cut them into splits. The output never depends on the splits."""
    files = input_files(options.input)
    total = sum(info.size for info in files.values())
    split_bytes = min(max(total // SPLITS, MIN_SPLIT), MAX_SPLIT)
    splits, estimate = [], 0.0
    for real_path, info in files.items():
        format_, compression = detect(info.path, options.format)
        planned = READERS[format_].plan(info, format_, compression, split_bytes)
        splits += [replace(split, real_path=real_path) for split in planned]
        estimate += info.size * _EXPANSION[compression] * READERS[format_].text_share
    return Plan(splits, len(files), total, int(estimate))


def read(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield the documents of a split, and the rejected records with their reasons.

    Raises:
        UserError: the file can't be read, or has changed since it was planned.
    """
    try:
        if split.size == 0 and split.compression == "none":
            yield Rejected("empty_file", split.path, bad=False)
        else:
            yield from READERS[split.format].read(split, options)
    except UserError:
        filesystem.check_unchanged(split.path, split.stamp)  # a changed file explains other errors
        raise
    filesystem.check_unchanged(split.path, split.stamp)


def file_count(plan: Plan) -> str:
    """Return a summary of the input: '2 files, 31.6 MB'."""
    return f"{formatting.counted(plan.files, 'file')}, {plan.size / 1e6:,.1f} MB"
