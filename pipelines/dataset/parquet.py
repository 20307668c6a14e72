"""Read and write Parquet files of a dataset, and their columns of document keys."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common import hashing
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem


def read_parquet(path: str) -> pa.Table:
    """Read a Parquet file as a table. Raise UserError or pa.ArrowException.

    Doesn't use pyarrow's threads: if they still run when a process exits, the process is sometimes aborted.
    """
    data = pa.BufferReader(filesystem.read_bytes(path))
    return pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True).read(use_threads=False)


def read_keys(path: str, *columns: str) -> list[list[bytes]]:
    """Return columns of document keys, each a list of 16-byte values.

    Raises UserError, pa.ArrowException, or KeyError if the file has no such column.
    """
    table = read_parquet(path)
    for name in columns:
        if table.schema.field(name).type != pa.binary(hashing.HASH_BYTES) or table[name].null_count:
            raise UserError(f"{path}: its column {name} doesn't contain document keys: rebuild the dataset")
    return [table[name].to_pylist() for name in columns]


def with_ids(path: str) -> int:
    """Return the number of documents with an id. Raise UserError, pa.ArrowException, or KeyError without ids."""
    column = read_parquet(path)["id"]
    return len(column) - column.null_count


def write_parquet(path: str, table: pa.Table) -> str:
    """Write a Parquet file atomically; return its SHA-256."""
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    filesystem.write_bytes(path, data.getvalue(), sync=False)  # synced with all other files, before dataset.json is written
    return hashlib.sha256(data.getvalue()).hexdigest()
