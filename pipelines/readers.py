"""Input files to documents. A format is two functions in READERS: one plans splits, one reads a split.

Everything that can be split is: plain files at any byte, multistream .bz2 at stream boundaries, Parquet at row groups.
A record belongs to the split in which the delimiter before it begins, so that none is read twice and none is lost.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import decompression, filesystem, records, wikitext, wikixml
from pipelines.config import InputOptions
from pipelines.filesystem import FileInfo
from pipelines.json_objects import TooManyValues, parse_object
from pipelines.records import EXCERPT_CHARS, Record
from pipelines.schema import Document, Dropped, Split, UserError

MIN_SPLIT, MAX_SPLIT, SPLITS = 1 << 20, 48 << 20, 32  # bytes; how many splits to aim at between these bounds

MAX_TITLE = 1000  # characters: it is kept with every document, and a field of that name may hold anything
_READ_BYTES = 1 << 20  # of a Parquet column at a time: a row group may be as large as the file
_SUSPECT = 500  # times: a row group that expands so far holds no text

_PART = re.compile(r"[-_.](?:p\d+p\d+|\d+(?:-of-\d+)?)$")
_ENDINGS = {".xml": "wikixml", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_ENDINGS |= {".parquet": "parquet", ".txt": "bert", ".text": "bert"}
_INDEX = re.compile(r"-multistream-index\d*\.txt$")  # Wikipedia's, of the dump beside it


def plan_bytes(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[Split]:
    """Byte ranges of a file, or the whole of it where it can't be entered in the middle."""
    entered = compression in ("none", "bz2")
    if entered and info.size > split_bytes:  # text in another encoding is converted from its start
        entered = not decompression.encoding(info.path, format_, compression)
    step = split_bytes if entered else max(info.size, 1)
    starts = range(0, max(info.size, 1), step)
    return [
        Split(info.path, format_, compression, low, min(low + step, info.size), min(step, info.size - low), info.stamp)
        for low in starts
    ]


def plan_whole(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[Split]:
    """One split."""
    return [Split(info.path, format_, compression, 0, info.size, info.size, info.stamp)]


def read_jsonl(split: Split, options: InputOptions) -> Iterator[Record]:
    """A JSON object a line."""
    for number, (line, owned) in enumerate(records.lines(split)):
        if not owned:
            return
        if line is not None and not line.strip():
            continue
        source = f"{split.path}, line {number + 1}" + (f" after byte {split.start}" if split.start else "")
        yield records.too_long(source) if line is None else _json_record(line, source, options)


def _json_record(line: bytes, source: str, options: InputOptions) -> Record:
    try:
        record = parse_object(line, (options.text_field, options.title_field, options.id_field))
    except UnicodeDecodeError as error:
        return records.invalid_utf8(source, error, line)
    except TooManyValues as error:
        return Dropped("too_many_values", source, str(error), records.excerpt(line))
    except (ValueError, RecursionError) as error:
        return Dropped("malformed_json", source, str(error), records.excerpt(line))
    if not isinstance(record, dict):
        return Dropped(
            "not_an_object",
            source,
            "every line must be a JSON object (jq -c '.[]' takes an array apart)",
            records.excerpt(line),
        )
    return _fields_record(record.get, set(record), source, options, line)


def _fields_record(get: Callable, names: set[str], source: str, options: InputOptions, excerpt: bytes = b"") -> Record:
    """A document from named fields, shared by JSONL and Parquet."""
    text = get(options.text_field)
    if options.text_field not in names:
        detail = f"no field {options.text_field!r} among {_shown(names)}: see --text-field"
        return Dropped("missing_field", source, detail, records.excerpt(excerpt))
    if isinstance(text, str) and len(text) > records.MAX_RECORD:
        return records.too_long(source)
    if not isinstance(text, str):
        return Dropped("field_is_no_text", source, f"{options.text_field} is {type(text).__name__}", records.excerpt(excerpt))
    name, title = get(options.id_field), get(options.title_field)
    return Document(
        text,
        str(title if title is not None else name if name is not None else "")[:MAX_TITLE],
        source if name is None else f"{source} ({str(name)[:EXCERPT_CHARS]})",
    )


def _shown(names: Iterable[str]) -> list[str]:
    """Some names of fields or columns, none of them long, for a message."""
    return [name[:100] for name in sorted(names)[:20]]


def open_parquet(path: str, buffer: int = 0) -> pq.ParquetFile:
    """A Parquet file, its metadata read. `buffer`: bytes a read; 0: a row group's whole column. Raises UserError."""
    try:
        return pq.ParquetFile(filesystem.open_read(path), pre_buffer=False, buffer_size=buffer, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise decompression.damaged(path, "Parquet", str(error).splitlines()[0][:200]) from None


def plan_parquet(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[Split]:
    """Runs of row groups of about `split_bytes` on disk; an empty one for a file without row groups."""
    metadata = open_parquet(info.path).metadata  # of the whole row groups: over a damaged column's pyarrow ends the process
    weights = [max(metadata.row_group(index).total_byte_size, 1) for index in range(metadata.num_row_groups)]
    total, splits, low, size = sum(weights), [], 0, 0
    for index, weight in enumerate(weights):
        size += info.size * weight // total
        if size >= split_bytes or index == len(weights) - 1:
            splits.append(Split(info.path, format_, compression, low, index + 1, size, info.stamp))
            low, size = index + 1, 0
    return splits or [Split(info.path, format_, compression, 0, 0, 0, info.stamp)]


def wanted_columns(file: pq.ParquetFile, path: str, options: InputOptions) -> list[str]:
    """The columns that are read. Raises UserError for a file without the text's."""
    names = set(file.schema_arrow.names)
    if options.text_field not in names:
        raise UserError(f"{path} has no column {options.text_field!r} (it has {_shown(names)}): see --text-field")
    return [name for name in (options.text_field, options.title_field, options.id_field) if name in names]


def _parquet_record(batch: pa.RecordBatch, source: str, options: InputOptions) -> Record:
    """The record that a batch of one row holds."""
    try:
        values = batch.to_pylist()[0]
    except (ValueError, OverflowError, LookupError) as error:  # no UTF-8; a date, a time zone that Python has no room for
        reason = "invalid_utf8" if isinstance(error, UnicodeDecodeError) else "unreadable_value"
        return Dropped(reason, source, str(error).splitlines()[0][:200])
    return _fields_record(values.get, set(values), source, options)


def read_parquet(split: Split, options: InputOptions) -> Iterator[Record]:
    """Rows of some row groups; only the columns needed are read."""
    file = open_parquet(split.path, _READ_BYTES)
    wanted = wanted_columns(file, split.path, options)
    for index in range(split.start, split.end):
        row, size, source = 0, file.metadata.row_group(index).total_byte_size, f"{split.path}, row group {index}"
        if size > records.MAX_RECORD and size > _SUSPECT * split.size:
            detail = f"{split.size:,} bytes on disk expand to {size:,}, as no text does: write the file anew if it is one"
            yield Dropped("too_long", source, detail)
            continue
        rows = max(1, min(64, 2 * records.MAX_RECORD // max(size, 1)))  # any of them may be as long as all
        try:
            for batch in file.iter_batches(rows, row_groups=[index], columns=wanted, use_threads=False):
                for at in range(len(batch)):
                    yield _parquet_record(batch.slice(at, 1), f"{source}, row {row + at}", options)
                row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise decompression.damaged(split.path, "Parquet", str(error).splitlines()[0][:200]) from None


def read_bert(split: Split, options: InputOptions) -> Iterator[Record]:
    """google-research/bert's input: a sentence per line, an empty line between documents.

    A document belongs to the split that owns the empty line before it.
    """
    ours, begun, lines, size, number = split.start == 0, 0, bytearray(), 0, -1
    for number, (line, owned) in enumerate(records.lines(split)):
        if line is None or line.strip():
            if not (ours or owned):
                return
            size += records.MAX_RECORD + 1 if line is None else len(line) + 1
            if ours and size <= records.MAX_RECORD:
                lines += line + b"\n"  # not a list: a short line would take 30 times its bytes
            elif ours:
                lines = bytearray(b"\n")  # stands for what is given up
            continue
        if lines:
            yield _bert_document(lines, size, split, begun)
        ours, begun, lines, size = owned, number + 1, bytearray(), 0
        if not owned:
            return
    if lines:
        yield _bert_document(lines, size, split, begun)


def _bert_document(lines: bytearray, size: int, split: Split, number: int) -> Record:
    source = f"{split.path}, line {number + 1}" + (f" after byte {split.start}" if split.start else "")
    if size > records.MAX_RECORD:
        return records.too_long(source)
    data = bytes(lines[:-1])
    try:
        return Document(data.decode("utf-8"), "", source, kind="sentences")
    except UnicodeDecodeError as error:
        return records.invalid_utf8(source, error, data)


def read_document(split: Split, options: InputOptions) -> Iterator[Record]:
    """The whole file as one document, its name as the title."""
    parts, size = [], 0
    for piece, _ in decompression.pieces(split):
        parts.append(piece)
        size += len(piece)
        if size > records.MAX_RECORD:
            yield records.too_long(split.path)
            return
    data = b"".join(parts)
    try:
        title = decompression.compression_of(split.path.rsplit("/", 1)[-1])[1].rsplit(".", 1)[0]
        yield Document(data.decode("utf-8"), title, split.path)
    except UnicodeDecodeError as error:
        yield records.invalid_utf8(split.path, error, data)


def plain_text(document: Document, options: InputOptions) -> str:
    """A document's text without markup, not cleaned yet."""
    if document.kind != "wikitext":
        return document.text
    return wikitext.to_text(document.text, headings=options.headings, wiki=document.wiki)


@dataclass(frozen=True)
class Reader:
    """A format: how its files are planned, how a split is read, and clean text per byte of it when uncompressed."""

    plan: Callable[[FileInfo, str, str, int], list[Split]]
    read: Callable[[Split, InputOptions], Iterator[Record]]
    text_share: float = 1.0


READERS: dict[str, Reader] = {
    "wikixml": Reader(plan_bytes, wikixml.read_pages, 0.25),
    "jsonl": Reader(plan_bytes, read_jsonl),
    "parquet": Reader(plan_parquet, read_parquet, 2.0),
    "bert": Reader(plan_bytes, read_bert),
    "document": Reader(plan_whole, read_document),
}
_EXPANSION = {"none": 1.0, "gzip": 2.7, "bz2": 3.5, "zst": 3.0}


def detect(path: str, format_: str) -> tuple[str, str]:
    """(format, compression) of a file by its name, or, for a MediaWiki dump, by how it begins.

    A part's number doesn't count: a.xml-p1p41242.bz2, a.jsonl-00001-of-00010, a.txt.03. Raises UserError when `auto` knows
    neither.
    """
    compression, stem = decompression.compression_of(path)
    if format_ == "auto":
        if _INDEX.search(stem):
            raise UserError(f"{path} is the index of a multistream dump, which holds no text: leave it out, or give --format")
        ending = "." + _PART.sub("", stem).rsplit(".", 1)[-1].lower()
        format_ = _ENDINGS.get(ending) or ("wikixml" if wikixml.is_dump(path, compression) else "")
        if not format_:
            known = ", ".join(sorted(_ENDINGS))
            raise UserError(f"{path}: its name doesn't tell its format ({known}): leave it out, convert it, or give --format")
    if format_ == "parquet" and compression != "none":
        raise UserError(f"{path}: a Parquet file compressed once more can't be read in pieces: decompress it")
    return format_, compression


@dataclass(frozen=True)
class Plan:
    """All splits of the input, its bytes on disk, and about how many bytes of clean text to expect."""

    splits: list[Split]
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


def read(split: Split, options: InputOptions) -> Iterator[Record]:
    """The documents of a split, and what is dropped on the way, each with its reason.

    Raises UserError for a file that can't be read, or that has changed since it was planned.
    """
    try:
        if split.size == 0 and split.compression == "none":
            yield Dropped("empty_file", split.path, bad=False)
        else:
            yield from READERS[split.format].read(split, options)
    except UserError:
        filesystem.check_unchanged(split.path, split.stamp)  # which explains what else is wrong
        raise
    filesystem.check_unchanged(split.path, split.stamp)
