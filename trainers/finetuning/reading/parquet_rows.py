"""Reads rows of Parquet files, local or on gs://, with bounded memory."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.lines import MAX_LINE, column_of
from clozemill.trainers.finetuning.task_presets import Layout

MAX_RATIO = 500  # compression ratio: a row group above it can't be text
_BUFFER = 1 << 20  # bytes of a Parquet column to read at a time, instead of the complete row group


def _projection(file: pq.ParquetFile, layout: Layout, answers: bool, path: str) -> list[str] | None:
    """Return the columns to read; None for all, if a needed one is missing. Raises UserError for an ambiguous name."""
    names = file.schema_arrow.names
    try:
        found = [column_of(names, column) for column, _ in layout.columns(answers)]
    except ValueError as error:
        options = ", ".join(dict.fromkeys(option for _, option in layout.columns(answers)))
        raise UserError(f"{path}: {error}: rename one of them, or give {options}") from None
    return None if None in found else [name for name in names if name in found]


def _rows_at_once(group: pq.RowGroupMetaData, disk: int, path: str) -> int:
    """Return how many rows of a row group fit into memory in the worst case. Raises UserError if not even one does.

    Uses only the size of the row group: pyarrow aborts the process on the metadata of a corrupt column.

    Args:
        disk: size of the file in bytes.
    """
    size = group.total_byte_size
    if size > MAX_LINE and (size > MAX_RATIO * disk or size > MAX_LINE * group.num_rows):
        raise UserError(
            f"{path} can't be read ({disk:,} bytes expand to {size:,} in a row group, too much for text): give another file"
        )
    return max(1, min(4096, 2 * MAX_LINE // max(size, 1)))


def parquet_rows(path: str, layout: Layout, answers: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield rows with the needed columns, reading some rows at a time."""
    try:
        if "://" in path:
            system, inner = pa.fs.FileSystem.from_uri(path)
            source = system.open_input_file(inner)
        else:
            source = pa.OSFile(path)
        file = pq.ParquetFile(source, buffer_size=_BUFFER, page_checksum_verification=True)
        number, columns = 0, _projection(file, layout, answers, path)
        for index in range(file.num_row_groups):
            size = _rows_at_once(file.metadata.row_group(index), source.size(), path)
            for batch in file.iter_batches(size, row_groups=[index], columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except FileNotFoundError:
        raise UserError(f"{path} doesn't exist: give a file of texts") from None
    except KeyError as error:  # raised by both pytz and zoneinfo
        raise UserError(f"{path}: unknown time zone {error.args[0]!r}: store times as text") from None
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # not UTF-8, or a date out of Python's range
        raise UserError(f"{path} can't be read ({' '.join(str(error).split())[:200]}): give an intact Parquet file") from None
