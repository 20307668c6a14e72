"""Document keys and the order of documents, from stable hashes of content.

A document's key is a hash of its cleaned text, so neither its path nor its position in the input matters. Its group, its
side (train or eval) and its position within the group are functions of that key and the seed.
"""

import hashlib

from clozemill.pipelines.common import hashing

KEY_BYTES = 2 * hashing.HASH_BYTES  # bytes of a sort key: a seeded hash for the order, then the document key itself


def document_key(text: str) -> bytes:
    """Return 16 bytes that depend only on the cleaned text (BLAKE2b); equal texts have equal keys."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=hashing.HASH_BYTES).digest()


def _seeded(key: bytes, seed: int, purpose: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=hashing.HASH_BYTES, salt=seed.to_bytes(8, "big"), person=purpose).digest()


def assign_group(
    key: bytes, seed: int, num_groups: int, num_eval_groups: int, eval_fraction: float, side: bytes = b""
) -> tuple[int, bytes]:
    """Return (group, sort key) of a document by its key; eval groups are numbered from `num_groups` on.

    side: key of another document that decides between train and eval, for documents that must stay together.

    The group is a range partition of the sort key's first 64 bits, so sorting by (group, sort key) equals sorting
    by sort key alone, and a group is a simple random sample of the corpus.
    """
    sort_key = _seeded(key, seed, b"shuffle") + key
    point = int.from_bytes(sort_key[:8], "big")
    if num_eval_groups and int.from_bytes(_seeded(side or key, seed, b"eval")[:8], "big") < eval_fraction * 2.0**64:
        return num_groups + (point * num_eval_groups >> 64), sort_key
    return point * num_groups >> 64, sort_key


def document_key_of(sort_key: bytes) -> bytes:
    """Return the document key within a sort key."""
    return sort_key[hashing.HASH_BYTES :]
