"""index.json: where blocks of records begin in each uncompressed shard, so that a reader can enter it without reading.

The trainer permutes these blocks, and each of its hosts reads only its own.
"""

import json
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import INDEX
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.shards.blocks import BLOCK_RECORDS

Index = dict[str, list[int]]  # name of a shard -> byte offsets of its records BLOCK_RECORDS, 2 BLOCK_RECORDS, ...


def dumps(index: Index) -> bytes:
    """Return the bytes of index.json: a line per shard."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(index[name], separators=(',', ':'))}" for name in sorted(index))
    return f"{{\n{lines}\n}}\n".encode()


def loads(data: bytes, name: str, shards: list[dict[str, Any]]) -> Index:
    """Read index.json. Raises UserError unless it has ascending offsets for all blocks of these shards."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    for shard in shards:
        offsets = found.get(shard["name"]) if isinstance(found, dict) else None
        blocks = max(records_of(shard) - 1, 0) // BLOCK_RECORDS
        if not isinstance(offsets, list) or len(offsets) != blocks or not _ascending(offsets, shard["bytes"]):
            raise UserError(f"{name} doesn't match {shard['name']}: restore it, or rebuild the dataset with clozemill prepare")
    if isinstance(found, dict) and len(found) > len(shards):
        raise UserError(f"{name} lists other shards than the dataset has: restore it, or rebuild the dataset")
    return {shard["name"]: found[shard["name"]] for shard in shards}


def _ascending(offsets: list[Any], size: int) -> bool:
    whole = all(type(offset) is int for offset in offsets)
    return whole and all(low < high for low, high in zip([0, *offsets], [*offsets, size or 1], strict=True))


def mismatch(recorded: list[int], real: list[int]) -> str:
    """Return how recorded offsets differ from a shard's, as the end of a sentence; "" if they don't."""
    for number, (told, found) in enumerate(zip(recorded, real, strict=False), 1):
        if told != found:
            return f"its record {number * BLOCK_RECORDS} begins at byte {found:,}, not at {told:,} as in {INDEX}"
    return ""
