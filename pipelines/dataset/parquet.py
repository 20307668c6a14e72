"""Parquet files of a dataset, and columns of document keys in them."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common import hashing
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem


def read_parquet(path: str) -> pa.Table:
    """A Parquet file as a table. Raises UserError or pa.ArrowException.

    Without pyarrow's threads: where they are still about when a process ends, it is now and then aborted.
    """
    data = pa.BufferReader(filesystem.read_bytes(path))
    return pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True).read(use_threads=False)


def read_keys(path: str, *columns: str) -> list[list[bytes]]:
    """Columns of document keys, each a list of 16 bytes.

    Raises UserError, pa.ArrowException, or KeyError when the file has no such column.
    """
    table = read_parquet(path)
    for name in columns:
        if table.schema.field(name).type != pa.binary(hashing.HASH_BYTES) or table[name].null_count:
            raise UserError(f"{path}: its column {name} holds no document keys: make the dataset anew")
    return [table[name].to_pylist() for name in columns]


def write_parquet(path: str, table: pa.Table) -> str:
    """Writes a Parquet file atomically; returns its SHA-256."""
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    filesystem.write_bytes(path, data.getvalue(), sync=False)  # with all others, before dataset.json is written
    return hashlib.sha256(data.getvalue()).hexdigest()
