"""An InputSplit: the piece of a file that one worker reads."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class InputSplit:
    """A piece of an input file that one worker reads: bytes [start, end) of it, or Parquet row groups [start, end)."""

    path: str
    format: str
    compression: str
    start: int
    end: int
    size: int  # bytes on disk that this split stands for, for progress and rates
    stamp: str = ""  # size and modification time of the file, to tell a changed input from the same one


def split_id(split: InputSplit) -> str:
    """A name for a split that changes when its file does."""
    return hashlib.blake2b(repr(split).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
