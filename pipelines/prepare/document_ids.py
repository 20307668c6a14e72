"""Counts of the ids that `--id-field` keeps: documents without one, and ids that several documents have."""

import hashlib
import json
from typing import Any

import numpy as np

from clozemill.pipelines.quality import statistics
from clozemill.pipelines.shuffle.groups import Group

UNMATCHED = "rejects/unmatched-ids.jsonl"  # ids of --exclude-ids that no record has


def group_ids(group: Group) -> dict[str, Any]:
    """Return the number of a group's documents with an id, and a 64-bit hash of each id, packed for transfer."""
    digests = [hashlib.blake2b(each.encode(), digest_size=8).digest() for ids in group.ids for each in ids]
    hashes = statistics.pack({"hashes": np.frombuffer(b"".join(digests), "<u8")})
    return {"documents": sum(bool(ids) for ids in group.ids), "hashes": hashes}


def total_ids(field: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what dataset.json records: the field, the documents with an id, and the ids of more than one document.

    Args:
        groups: results of `group_ids`. Two of 100 million ids have the same hash with a probability of 0.03 %.
    """
    hashes = [statistics.unpack(group["hashes"])["hashes"] for group in groups]
    _, counts = np.unique(np.concatenate([*hashes, np.zeros(0, "<u8")]), return_counts=True)
    documents = sum(group["documents"] for group in groups)
    return {"field": field, "documents": documents, "repeated": int((counts > 1).sum())}


def unmatched_lines(unmatched: list[str]) -> bytes:
    """Return the content of the file UNMATCHED."""
    rejects = ({"reason": "unmatched_id", "source": "--exclude-ids", "detail": each, "excerpt": ""} for each in unmatched)
    return "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects).encode()
