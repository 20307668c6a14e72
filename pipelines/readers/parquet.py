"""Read Parquet files; a split is a range of row groups."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import document
from clozemill.pipelines.readers.document import Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit

_READ_BYTES = 1 << 20  # per read of a Parquet column: a row group may be as large as the file

_SUSPECT = 500  # times: a row group that expands this much contains no text


def open_parquet(path: str, buffer: int = 0) -> pq.ParquetFile:
    """Open a Parquet file. `buffer`: bytes per read; 0: a complete column of a row group. Raise UserError."""
    try:
        return pq.ParquetFile(filesystem.open_read(path), pre_buffer=False, buffer_size=buffer, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise decompression.damaged(path, "Parquet", str(error).splitlines()[0][:200]) from None


def plan_parquet(info: FileInfo, format_: str, compression: str, split_bytes: int) -> list[InputSplit]:
    """Plan runs of row groups of about `split_bytes` on disk; one empty split for a file without row groups."""
    metadata = open_parquet(
        info.path
    ).metadata  # of complete row groups: pyarrow aborts the process on the metadata of a damaged column
    weights = [max(metadata.row_group(index).total_byte_size, 1) for index in range(metadata.num_row_groups)]
    total, splits, low, size = sum(weights), [], 0, 0
    for index, weight in enumerate(weights):
        size += info.size * weight // total
        if size >= split_bytes or index == len(weights) - 1:
            # A size of 0 means that there is nothing to read: few rows may be less than a byte of a very compressible file.
            splits.append(InputSplit(info.path, format_, compression, low, index + 1, max(size, 1), info.stamp))
            low, size = index + 1, 0
    return splits or [InputSplit(info.path, format_, compression, 0, 0, 0, info.stamp)]


def wanted_columns(file: pq.ParquetFile, path: str, options: InputOptions) -> list[str]:
    """Return the columns to read. Raise UserError if the file has no text column."""
    names = set(file.schema_arrow.names)
    if options.text_field not in names:
        raise UserError(f"{path} has no column {options.text_field!r} (it has {document.shown_value(names)}): see --text-field")
    if options.id_field and options.id_field not in names:
        raise UserError(f"{path} has no column {options.id_field!r} (it has {document.shown_value(names)}): see --id-field")
    wanted = [
        name for name in (options.text_field, options.title_field, options.id_field or document.ID_FIELD) if name in names
    ]
    for name in wanted:
        if (count := file.schema_arrow.names.count(name)) > 1:
            raise UserError(f"{path} has {count} columns named {name!r}: rename all but one of them")
    return wanted


def _parquet_record(batch: pa.RecordBatch, source: str, options: InputOptions) -> Record:
    """Return the record in a batch of one row."""
    try:
        values = batch.to_pylist()[0]
    except (ValueError, OverflowError, LookupError) as error:  # invalid UTF-8; a date or time zone that Python can't represent
        reason = "invalid_utf8" if isinstance(error, UnicodeDecodeError) else "unreadable_value"
        return Rejected(reason, source, str(error).splitlines()[0][:200])
    return document.fields_record(values.get, set(values), source, options)


def read_parquet(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield the rows of some row groups. Only the needed columns are read."""
    file = open_parquet(split.path, _READ_BYTES)
    wanted = wanted_columns(file, split.path, options)
    for index in range(split.start, split.end):
        row, size, source = 0, file.metadata.row_group(index).total_byte_size, f"{split.path}, row group {index}"
        if size > document.MAX_RECORD and size > _SUSPECT * split.size:
            detail = f"{split.size:,} bytes on disk expand to {size:,}, which is not plausible for text: write the file again"
            yield Rejected("too_long", source, detail)
            continue
        rows = max(1, min(64, 2 * document.MAX_RECORD // max(size, 1)))  # a single row may be as large as the row group
        try:
            for batch in file.iter_batches(rows, row_groups=[index], columns=wanted, use_threads=False):
                for at in range(len(batch)):
                    yield _parquet_record(batch.slice(at, 1), f"{source}, row {row + at}", options)
                row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise decompression.damaged(split.path, "Parquet", str(error).splitlines()[0][:200]) from None
