"""Records to a file, a part at a time: JSON lines or Parquet, under its final name only when complete, local or on gs://."""

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
    """Takes records."""

    def write(self, records: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class _Jsonl:
    def __init__(self, file: BinaryIO, columns: pa.Schema) -> None:
        self._file = file

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())

    def close(self) -> None: ...


class _Parquet:
    """What a record lacks is null; columns of lists of a fixed size take numpy arrays."""

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
    """Raises UserError unless a path has one of these endings and nothing is there."""
    if not path.endswith(endings):
        raise UserError(f"--output {path}: give a name that ends in {' or '.join(endings)}")
    if tf.io.gfile.exists(path):
        raise UserError(f"{path} is there already: remove it, or give another --output")


@contextlib.contextmanager
def opened(path: str, columns: pa.Schema) -> Iterator[Sink]:
    """A sink by the path's ending; the file is renamed to its name when the block ends well, and removed otherwise.

    Args:
        columns: their names and types, for the formats that have types.

    Raises UserError when it can't be written.
    """
    made = next(sink for ending, sink in SINKS.items() if path.endswith(ending))
    with storage.writing(path, overwrite=False) as file, contextlib.closing(made(file, columns)) as sink:
        yield sink
