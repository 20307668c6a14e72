"""Documents as they travel, and a group of them as columns: one token array, sentence and document offsets.

A payload is one encoded document in bytes: what crosses the shuffle, and nothing else does.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_HEADER = struct.Struct("<BHII")  # bytes per id (+ 128 with character offsets), title bytes, sentences, tokens
_OFFSETS = 128


def pack(title: str, ids: np.ndarray, lengths: np.ndarray, spans: np.ndarray | None = None) -> bytes:
    """One document's payload.

    Args:
        title: for the dataset's list of documents; cut at 1,024 bytes.
        ids: [tokens], already in the vocabulary's narrowest type.
        lengths: [sentences], tokens of each sentence, all positive.
        spans: uint32 [2, tokens], where each token's word starts and ends in the cleaned text, for provenance.
    """
    name = title.encode("utf-8", "replace")[:1024]
    kind = ids.dtype.itemsize + (0 if spans is None else _OFFSETS)
    parts = [
        _HEADER.pack(kind, len(name), len(lengths), len(ids)),
        name,
        lengths.astype("<u4").tobytes(),
        ids.tobytes(),
    ]
    if spans is not None:
        parts.append(spans.astype("<u4").tobytes())
    return b"".join(parts)


@dataclass(frozen=True)
class Payload:
    """What `pack` was given, read back."""

    title: str
    ids: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray | None


def unpack(data: bytes) -> Payload:
    """Reads a payload; the arrays are views of `data`."""
    kind, name, sentences, tokens = _HEADER.unpack_from(data)
    width, at = kind & ~_OFFSETS, _HEADER.size + name
    lengths = np.frombuffer(data, "<u4", sentences, at)
    at += 4 * sentences
    ids = np.frombuffer(data, f"<u{width}", tokens, at)
    spans = np.frombuffer(data, "<u4", 2 * tokens, at + width * tokens).reshape(2, -1) if kind & _OFFSETS else None
    return Payload(data[_HEADER.size : _HEADER.size + name].decode("utf-8", "ignore"), ids, lengths, spans)


@dataclass(frozen=True)
class Group:
    """Some documents, sorted by key, exact duplicates gone. T tokens, N sentences, D documents.

    tokens: uint16 or uint32 [T]. sentences: int64 [N + 1], where each sentence starts in `tokens`. documents:
    int64 [D + 1], where each document starts in `sentences`. keys, titles: D each. spans: uint32 [2, T] or None.
    duplicates: how many documents were dropped as exact duplicates, or, where none are dropped, stand there besides.
    """

    tokens: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    keys: list[bytes]
    titles: list[str]
    spans: np.ndarray | None
    duplicates: int

    @cached_property
    def twins(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each document, int64 [D] both: the first with the same text, which lie side by side, and how many they are."""
        begins = np.array([not at or self.keys[at - 1] != key for at, key in enumerate(self.keys)], bool)
        first, run = np.flatnonzero(begins), np.cumsum(begins) - 1
        return first[run], np.diff(np.append(first, len(begins)))[run]

    @classmethod
    def build(cls, items: Iterable[tuple[bytes, bytes]], keep_duplicates: bool = False) -> "Group":
        """Builds a group from (key, payload) items in any order.

        Of several documents with one key, the one with the smallest payload survives (they differ in the title, or in where
        sentences were cut),
        so that the order in which they arrive doesn't matter.
        """
        kept: list[tuple[bytes, Payload]] = []
        ordered = sorted(items)
        for index, (key, payload) in enumerate(ordered):
            if keep_duplicates or not index or ordered[index - 1][0] != key:
                kept.append((key, unpack(payload)))
        payloads = [payload for _, payload in kept]
        sizes = np.array([len(payload.lengths) for payload in payloads], np.int64)
        spans = [payload.spans for payload in payloads if payload.spans is not None]
        return cls(
            tokens=np.concatenate([payload.ids for payload in payloads] or [np.zeros(0, np.uint16)]),
            sentences=_edges(np.concatenate([payload.lengths for payload in payloads] or [sizes])),
            documents=_edges(sizes),
            keys=[key for key, _ in kept],
            titles=[payload.title for payload in payloads],
            spans=np.concatenate(spans, axis=1) if spans else None,
            duplicates=len(ordered) - len({key for key, _ in kept}),
        )


def items_digest(items: list[tuple[bytes, bytes]]) -> str:
    """SHA-256 of a group's sorted items: two groups with the same one have the same shards."""
    digest = hashlib.sha256()
    for key, payload in items:
        digest.update(key + len(payload).to_bytes(8, "big"))
        digest.update(payload)
    return digest.hexdigest()


def _edges(lengths: np.ndarray) -> np.ndarray:
    """int64 [n + 1]: where consecutive runs of these lengths start, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
