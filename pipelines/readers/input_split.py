"""An InputSplit: the part of a file that one worker reads."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class InputSplit:
    """A part of an input file that one worker reads: bytes [start, end), or Parquet row groups [start, end)."""

    path: str
    format: str
    compression: str
    start: int
    end: int
    size: int  # bytes on disk that this split represents, for progress and rates
    stamp: str = ""  # size and modification time of the file, to detect changed input


def split_id(split: InputSplit) -> str:
    """Return a name for a split, which changes if its file does."""
    return hashlib.blake2b(repr(split).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
