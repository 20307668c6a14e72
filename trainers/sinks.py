"""Records to a file, a part at a time: JSON lines or Parquet, under its final name only when whole, local or on gs://."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from pipelines.schema import UserError


class Sink(Protocol):
    """Takes records."""

    def write(self, records: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class _Jsonl:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())

    def close(self) -> None: ...


class _Parquet:
    """The first records decide the columns' types; columns of numpy arrays become lists of a fixed size."""

    def __init__(self, file: Any) -> None:
        self._file, self._writer = file, None

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        if not records:
            return
        names = list(records[0])
        columns = {name: _column([record[name] for record in records]) for name in names}
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, pa.schema([]))
        self._writer.close()


def _column(values: list[Any]) -> pa.Array:
    if isinstance(values[0], np.ndarray):
        stacked = np.stack(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked.shape[1])
    return pa.array(values)


SINKS = {".jsonl": _Jsonl, ".parquet": _Parquet}


def check(path: str, endings: tuple[str, ...] = tuple(SINKS)) -> None:
    """Raises UserError unless a path has one of these endings and nothing is there."""
    if not path.endswith(endings):
        raise UserError(f"--output {path}: give a name that ends in {' or '.join(endings)}")
    if tf.io.gfile.exists(path):
        raise UserError(f"{path} is there already: remove it, or give another --output")


@contextlib.contextmanager
def opened(path: str) -> Iterator[Sink]:
    """A sink by the path's ending; the file is renamed to its name when the block ends well, and removed otherwise."""
    part = path + ".tmp"
    try:
        if "/" in path:
            tf.io.gfile.makedirs(path.rsplit("/", 1)[0])
        with tf.io.gfile.GFile(part, "wb") as file:
            wrapped = pa.PythonFile(_Writable(file), mode="w")
            sink = next(made for ending, made in SINKS.items() if path.endswith(ending))(wrapped)
            yield sink
            sink.close()
        tf.io.gfile.rename(part, path)
    except tf.errors.OpError as error:
        raise UserError(f"{path} can't be written ({error.message}): mend that and run it again") from None
    finally:
        if tf.io.gfile.exists(part):
            tf.io.gfile.remove(part)


class _Writable:
    """A GFile as pyarrow wants a file: it asks whether it is closed."""

    closed = False

    def __init__(self, file: tf.io.gfile.GFile) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        self._file.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None: ...
