"""Where examples come from, as Parquet: a row per document of a group, and on request a row per record of a shard."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import filesystem, seeds
from pipelines.groups import Group
from pipelines.pairs import Pairs
from pipelines.schema import UserError


def provenance_name(shard: str) -> str:
    """The Parquet file with a row per record of a shard."""
    return f"provenance/{shard.removesuffix('.tfrecord')}.parquet"


def documents_name(split: str, index: int, num_groups: int) -> str:
    """The Parquet file with a row per document of a group."""
    return f"documents/{split}-{index if split == 'train' else index - num_groups:05d}.parquet"


def documents_table(group: Group) -> pa.Table:
    """key, title, sentences, tokens of each document of a group, in order."""
    keys = [seeds.document_key_of(key) for key in group.keys]
    sentences = np.diff(group.documents)
    tokens = np.diff(group.sentences[group.documents])
    return pa.table(
        {
            "key": pa.array(keys, pa.binary(seeds.HASH_BYTES)),
            "title": pa.array(group.titles, pa.string()),
            "sentences": pa.array(sentences, pa.int64()),
            "tokens": pa.array(tokens, pa.int64()),
        }
    )


def provenance_table(group: Group, pairs: Pairs) -> pa.Table:
    """A row per record: key and title of the documents of A and B, and their character spans in the cleaned text.

    Spans cover whole words: a run that begins within a word starts where the word does. No B: null.
    """
    keys = [seeds.document_key_of(key) for key in group.keys]
    documents, columns = group.sentences[group.documents], {}
    spans = np.zeros((2, 0), np.uint32) if group.spans is None else group.spans  # a group without documents has none
    for side, start, end in (("a", pairs.a_start, pairs.a_end), ("b", pairs.b_start, pairs.b_end)):
        there = end > start
        token = np.where(there, start, 0)
        document = np.searchsorted(documents, token, side="right") - 1
        columns |= {
            f"{side}_key": pa.array([keys[at] for at in document], pa.binary(seeds.HASH_BYTES), mask=~there),
            f"{side}_title": pa.array([group.titles[at] for at in document], pa.string(), mask=~there),
            f"{side}_start": pa.array(spans[0][token].astype(np.int64), mask=~there),
            f"{side}_end": pa.array(spans[1][np.where(there, end - 1, 0)].astype(np.int64), mask=~there),
        }
    return pa.table(columns)


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
        if table.schema.field(name).type != pa.binary(seeds.HASH_BYTES) or table[name].null_count:
            raise UserError(f"{path}: its column {name} holds no document keys: make the dataset anew")
    return [table[name].to_pylist() for name in columns]


def write_parquet(path: str, table: pa.Table) -> str:
    """Writes a Parquet file atomically; returns its SHA-256."""
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    filesystem.write_bytes(path, data.getvalue(), sync=False)  # with all others, before dataset.json is written
    return hashlib.sha256(data.getvalue()).hexdigest()
