"""A tokenized document as bytes, for the shuffle."""

import struct
from dataclasses import dataclass

import numpy as np

_HEADER = struct.Struct("<BHII")  # bytes per id (+ 128 with character offsets), title bytes, sentences, tokens

_OFFSETS = 128


def pack(title: str, ids: np.ndarray, lengths: np.ndarray, spans: np.ndarray | None = None, record_id: str = "") -> bytes:
    """Return the payload of one document.

    Args:
        title: for the dataset's list of documents; truncated to 1,024 bytes.
        ids: [tokens], already in the smallest type for the vocabulary.
        lengths: [sentences], tokens of each sentence, all positive.
        spans: uint32 [2, tokens], the start and end of each token's word in the cleaned text, for provenance.
        record_id: the document's id, or "". It is last, so that payloads are in the same order with and without ids.
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
    parts.append(record_id.encode())
    return b"".join(parts)


@dataclass(frozen=True)
class Payload:
    """The arguments of `pack`, read back from a payload."""

    title: str
    ids: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray | None
    id: str = ""


def unpack(data: bytes) -> Payload:
    """Read a payload; the arrays are views of `data`."""
    kind, name, sentences, tokens = _HEADER.unpack_from(data)
    width, at = kind & ~_OFFSETS, _HEADER.size + name
    lengths = np.frombuffer(data, "<u4", sentences, at)
    at += 4 * sentences
    ids = np.frombuffer(data, f"<u{width}", tokens, at)
    at += width * tokens
    spans = np.frombuffer(data, "<u4", 2 * tokens, at).reshape(2, -1) if kind & _OFFSETS else None
    at += 8 * tokens if kind & _OFFSETS else 0
    title = data[_HEADER.size : _HEADER.size + name].decode("utf-8", "ignore")
    return Payload(title, ids, lengths, spans, data[at:].decode())
