"""Input files to documents. A format is two functions in READERS: one plans splits, one reads a split.

Everything that can be split is: plain files at any byte, multistream .bz2 at stream boundaries, Parquet at row groups.
A record belongs to the split in which the delimiter before it begins, so that none is read twice and none is lost.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import jsonl, mediawiki, parquet
from clozemill.pipelines.readers import plain_text as readers_plain_text
from clozemill.pipelines.readers.document import Document, Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.wikitext import converter

MIN_SPLIT, MAX_SPLIT, SPLITS = 1 << 20, 48 << 20, 32  # bytes; how many splits to aim at between these bounds

_PART = re.compile(r"[-_.](?:p\d+p\d+|\d+(?:-of-\d+)?)$")
_ENDINGS = {".xml": "wikixml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_ENDINGS |= {".parquet": "parquet", ".txt": "bert", ".text": "bert"}
_INDEX = re.compile(r"-multistream-index\d*\.txt$")  # Wikipedia's, of the dump beside it


def plan_bytes(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[InputSplit]:
    """Byte ranges of a file, or the whole of it where it can't be entered in the middle."""
    entered = compression in ("none", "bz2")
    if entered and info.size > split_bytes:  # text in another encoding is converted from its start
        entered = not readers_compression.encoding(info.path, format_, compression)
    step = split_bytes if entered else max(info.size, 1)
    starts = range(0, max(info.size, 1), step)
    return [
        InputSplit(info.path, format_, compression, low, min(low + step, info.size), min(step, info.size - low), info.stamp)
        for low in starts
    ]


def plan_whole(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[InputSplit]:
    """One split."""
    return [InputSplit(info.path, format_, compression, 0, info.size, info.size, info.stamp)]


def plain_text(document: Document, options: InputOptions) -> str:
    """A document's text without markup, not cleaned yet."""
    if document.kind != "wikitext":
        return document.text
    return converter.to_text(document.text, headings=options.headings, wiki=document.wiki)


@dataclass(frozen=True)
class Reader:
    """A format: how its files are planned, how a split is read, and clean text per byte of it when uncompressed."""

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
    """(format, compression) of a file by its name, or, for a MediaWiki dump, by how it begins.

    A part's number doesn't count: a.xml-p1p41242.bz2, a.jsonl-00001-of-00010, a.txt.03. Raises UserError when `auto` knows
    neither.
    """
    compression, stem = readers_compression.compression_of(path)
    if format_ == "auto":
        if _INDEX.search(stem):
            raise UserError(f"{path} is the index of a multistream dump, which holds no text: leave it out, or give --format")
        ending = "." + _PART.sub("", stem).rsplit(".", 1)[-1].lower()
        format_ = _ENDINGS.get(ending) or ("wikixml" if mediawiki.is_dump(path, compression) else "")
        if not format_:
            known = ", ".join(sorted(_ENDINGS))
            raise UserError(f"{path}: its name doesn't tell its format ({known}): leave it out, convert it, or give --format")
    if format_ == "parquet" and compression != "none":
        raise UserError(f"{path}: a Parquet file compressed once more can't be read in pieces: decompress it")
    return format_, compression


@dataclass(frozen=True)
class Plan:
    """All splits of the input, its bytes on disk, and about how many bytes of clean text to expect."""

    splits: list[InputSplit]
    files: int
    size: int
    text_estimate: int


def plan(options: InputOptions) -> Plan:
    """Lists the input and cuts it into splits. What is written never depends on how it is cut."""
    files = filesystem.match(options.input)
    total = sum(info.size for info in files)
    split_bytes = min(max(total // SPLITS, MIN_SPLIT), MAX_SPLIT)
    splits, estimate = [], 0.0
    for info in files:
        format_, compression = detect(info.path, options.format)
        splits += READERS[format_].plan(info, format_, compression, split_bytes)
        estimate += info.size * _EXPANSION[compression] * READERS[format_].text_share
    return Plan(splits, len(files), total, int(estimate))


def read(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """The documents of a split, and what is dropped on the way, each with its reason.

    Raises UserError for a file that can't be read, or that has changed since it was planned.
    """
    try:
        if split.size == 0 and split.compression == "none":
            yield Rejected("empty_file", split.path, bad=False)
        else:
            yield from READERS[split.format].read(split, options)
    except UserError:
        filesystem.check_unchanged(split.path, split.stamp)  # which explains what else is wrong
        raise
    filesystem.check_unchanged(split.path, split.stamp)


def file_count(plan: Plan) -> str:
    """'2 files, 31.6 MB'."""
    return f"{formatting.counted(plan.files, 'file')}, {plan.size / 1e6:,.1f} MB"
