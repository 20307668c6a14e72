"""Writes records to JSON lines or Parquet incrementally, local or on gs://; the file gets its name when complete."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage


class Sink(Protocol):
    """Receives records."""

    def write(self, records: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class _Jsonl:
    def __init__(self, file: BinaryIO, columns: pa.Schema) -> None:
        self._file = file

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())

    def close(self) -> None: ...


class _Parquet:
    """Writes Parquet. Missing values are null; columns of fixed-size lists accept numpy arrays."""

    def __init__(self, file: BinaryIO, columns: pa.Schema) -> None:
        self._columns, self._writer = columns, pq.ParquetWriter(pa.PythonFile(file, mode="w"), columns)

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        if records:
            arrays = [_column([record.get(column.name) for record in records], column.type) for column in self._columns]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._columns))

    def close(self) -> None:
        self._writer.close()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values), kind.value_type), kind.list_size)
    return pa.array(values, kind)


SINKS = {".jsonl": _Jsonl, ".parquet": _Parquet}


def check(path: str, endings: tuple[str, ...] = tuple(SINKS)) -> None:
    """Raise UserError unless a path has one of these endings and doesn't exist yet."""
    if not path.endswith(endings):
        raise UserError(f"--output {path}: give a name that ends in {' or '.join(endings)}")
    if tf.io.gfile.exists(path):
        raise UserError(f"{path} already exists: remove it, or give another --output")


@contextlib.contextmanager
def opened(path: str, columns: pa.Schema) -> Iterator[Sink]:
    """Yield a sink by the path's ending. The file gets its final name if the block succeeds, and is removed otherwise.

    Args:
        columns: names and types of the columns, for formats that have types.

    Raises UserError if it can't be written.
    """
    made = next(sink for ending, sink in SINKS.items() if path.endswith(ending))
    with storage.writing(path, overwrite=False) as file, contextlib.closing(made(file, columns)) as sink:
        yield sink
