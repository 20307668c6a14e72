"""A group of documents as columns: one token array, with sentence and document offsets.

A payload is one encoded document in bytes. Only payloads pass through the shuffle.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.shuffle import payload as shuffle_payload
from clozemill.pipelines.shuffle.payload import Payload


@dataclass(frozen=True)
class Group:
    """Documents sorted by key, without exact duplicates. T tokens, N sentences, D documents.

    tokens: uint16 or uint32 [T]. sentences: int64 [N + 1], where each sentence starts in `tokens`. documents:
    int64 [D + 1], where each document starts in `sentences`. keys, titles: D each. spans: uint32 [2, T] or None.
    ids: of the documents with each document's text, without repetitions, that of the document itself first; D lists.
    duplicates: number of exact duplicates that were dropped or, if none are dropped, that are in the group.
    """

    tokens: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    keys: list[bytes]
    titles: list[str]
    ids: list[list[str]]
    spans: np.ndarray | None
    duplicates: int

    @cached_property
    def duplicates_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first document with the same text (they are adjacent) and the number of those, int64 [D] each."""
        begins = np.array([not at or self.keys[at - 1] != key for at, key in enumerate(self.keys)], bool)
        first, run = np.flatnonzero(begins), np.cumsum(begins) - 1
        return first[run], np.diff(np.append(first, len(begins)))[run]

    @classmethod
    def build(cls, items: Iterable[tuple[bytes, bytes]], keep_duplicates: bool = False) -> "Group":
        """Build a group from (key, payload) items in any order.

        If several documents have the same key, the one with the smallest payload is kept (they differ in the title, or in
        sentence boundaries), so that their order doesn't matter.
        """
        kept: list[tuple[bytes, Payload]] = []
        ids: list[dict[str, None]] = []  # ordered sets
        ordered = sorted(items)
        for index, (key, payload) in enumerate(ordered):
            document = shuffle_payload.unpack(payload)
            if keep_duplicates or not index or ordered[index - 1][0] != key:
                kept.append((key, document))
                ids.append({})
            if document.id:
                ids[-1][document.id] = None
        payloads = [payload for _, payload in kept]
        sizes = np.array([len(payload.lengths) for payload in payloads], np.int64)
        spans = [payload.spans for payload in payloads if payload.spans is not None]
        return cls(
            tokens=np.concatenate([payload.ids for payload in payloads] or [np.zeros(0, np.uint16)]),
            sentences=_edges(np.concatenate([payload.lengths for payload in payloads] or [sizes])),
            documents=_edges(sizes),
            keys=[key for key, _ in kept],
            titles=[payload.title for payload in payloads],
            ids=[list(each) for each in ids],
            spans=np.concatenate(spans, axis=1) if spans else None,
            duplicates=len(ordered) - len({key for key, _ in kept}),
        )


def items_digest(items: list[tuple[bytes, bytes]]) -> str:
    """Return the SHA-256 of a group's sorted items: groups with equal digests have equal shards."""
    digest = hashlib.sha256()
    for key, payload in items:
        digest.update(key + len(payload).to_bytes(8, "big"))
        digest.update(payload)
    return digest.hexdigest()


def _edges(lengths: np.ndarray) -> np.ndarray:
    """Return int64 [n + 1]: the starts of consecutive runs of these lengths, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
