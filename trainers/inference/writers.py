"""Writes records to JSON lines, CSV, TSV or Parquet incrementally, local or on gs://; the file gets its name when complete."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.trainers.common import storage
from clozemill.trainers.common.config import check_ending


class Sink(Protocol):
    """Receives records."""

    def write(self, records: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class _Jsonl:
    def __init__(self, file: storage.Part, columns: pa.Schema) -> None:
        self._file = file

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())

    def close(self) -> None: ...


class _Parquet:
    """Writes Parquet. Missing values are null; columns of fixed-size lists accept numpy arrays."""

    def __init__(self, file: storage.Part, columns: pa.Schema) -> None:
        self._columns, self._writer = columns, pq.ParquetWriter(pa.PythonFile(file, mode="w"), columns)

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        if records:
            arrays = [_column([record.get(column.name) for record in records], column.type) for column in self._columns]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._columns))

    def close(self) -> None:
        self._writer.close()


class _Table:
    """Writes CSV: a dict as a column per key, a list as JSON, a missing value as an empty cell."""

    _delimiter = ","

    def __init__(self, file: storage.Part, columns: pa.Schema) -> None:
        self._file = file
        self._columns: list[tuple[str, str]] = []  # name, key of a dict
        for column in columns:
            keys = [field.name for field in column.type] if pa.types.is_struct(column.type) else [""]
            self._columns += [(column.name, key) for key in keys]
        self._write([f"{name}.{key}" if key else name for name, key in self._columns])

    def _write(self, cells: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue().encode())

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            values = [record.get(name) for name, _ in self._columns]
            found = [value[key] if key and value else value for value, (_, key) in zip(values, self._columns, strict=True)]
            self._write([json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in found])

    def close(self) -> None: ...


class _Tsv(_Table):
    """Writes TSV without quotes, as finetune and predict read it: tabs and line breaks in cells become spaces."""

    def _write(self, cells: Sequence[Any]) -> None:
        plain = (re.sub(r"[\t\r\n]", " ", "" if cell is None else str(cell)) for cell in cells)
        self._file.write(("\t".join(plain) + "\n").encode())


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values), kind.value_type), kind.list_size)
    return pa.array(values, kind)


SINKS: dict[str, Callable[[storage.Part, pa.Schema], Sink]] = {
    ".jsonl": _Jsonl,
    ".csv": _Table,
    ".tsv": _Tsv,
    ".parquet": _Parquet,
}


def check(path: str, overwrite: bool = False, endings: tuple[str, ...] = tuple(SINKS)) -> None:
    """Raise UserError unless a path has one of these endings and can be written. overwrite: whether a file may be there."""
    check_ending(path, endings)
    storage.check_new_file(path, overwrite)


@contextlib.contextmanager
def opened(path: str, columns: pa.Schema, overwrite: bool = False) -> Iterator[Sink]:
    """Yield a sink by the path's ending. The file gets its final name if the block succeeds, and is removed otherwise.

    Args:
        overwrite: replace a file of that name at the end of the block, instead of raising UserError.
        columns: names and types of the columns, for formats that have types.

    Raises UserError if it can't be written.
    """
    made = next(sink for ending, sink in SINKS.items() if path.endswith(ending))
    with storage.writing(path, overwrite) as file, contextlib.closing(made(file, columns)) as sink:
        yield sink
