"""Provenance of examples as Parquet: a row per document of a group, and optionally a row per example of a shard."""

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common import hashing
from clozemill.pipelines.examples.pairs import Pairs
from clozemill.pipelines.shuffle import keys as shuffle_keys
from clozemill.pipelines.shuffle.groups import Group


def _first_ids(group: Group) -> list[str | None]:
    return [ids[0] if ids else None for ids in group.ids]


def documents_table(group: Group, ids: bool = False) -> pa.Table:
    """Return key, title, sentences and tokens of each document of a group, in order.

    ids: add the document's id, or null, and those of other records with the same text.
    """
    keys = [shuffle_keys.document_key_of(key) for key in group.keys]
    sentences = np.diff(group.documents)
    tokens = np.diff(group.sentences[group.documents])
    columns = {
        "key": pa.array(keys, pa.binary(hashing.HASH_BYTES)),
        "title": pa.array(group.titles, pa.string()),
        "sentences": pa.array(sentences, pa.int64()),
        "tokens": pa.array(tokens, pa.int64()),
    }
    if ids:
        columns |= {
            "id": pa.array(_first_ids(group), pa.string()),
            "other_ids": pa.array([ids[1:] for ids in group.ids], pa.list_(pa.string())),
        }
    return pa.table(columns)


def provenance_table(group: Group, pairs: Pairs, ids: bool = False, starts: np.ndarray | None = None) -> pa.Table:
    """Return a row per example: key and title of the documents of A and B, and their character spans in the clean text.

    Spans cover complete words: a run that begins within a word starts at the start of the word. Without B: null.

    ids: add the documents' ids, or null. starts: int64 [R + 1] if packed, where record r has the examples starts[r] to
    starts[r + 1]: add `row`, the number of the record, and `example`, the example's number in it, from 1.
    """
    keys = [shuffle_keys.document_key_of(key) for key in group.keys]
    documents = group.sentences[group.documents]
    columns: dict[str, pa.Array] = {}
    spans = np.zeros((2, 0), np.uint32) if group.spans is None else group.spans  # a group without documents has none
    for side, start, end in (("a", pairs.a_start, pairs.a_end), ("b", pairs.b_start, pairs.b_end)):
        there = end > start
        token = np.where(there, start, 0)
        document = np.searchsorted(documents, token, side="right") - 1
        columns |= {
            f"{side}_key": pa.array([keys[at] for at in document], pa.binary(hashing.HASH_BYTES), mask=~there),
            f"{side}_title": pa.array([group.titles[at] for at in document], pa.string(), mask=~there),
            f"{side}_start": pa.array(spans[0][token].astype(np.int64), mask=~there),
            f"{side}_end": pa.array(spans[1][np.where(there, end - 1, 0)].astype(np.int64), mask=~there),
        }
        if ids:
            first = _first_ids(group)
            columns[f"{side}_id"] = pa.array([first[at] for at in document], pa.string(), mask=~there)
    if starts is not None:
        row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        columns |= {"row": pa.array(row), "example": pa.array(np.arange(len(row)) - starts[:-1][row] + 1)}
    return pa.table(columns)
