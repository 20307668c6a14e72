"""An InputSplit: the part of a file that one worker reads."""

import hashlib
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class InputSplit:
    """A part of an input file that one worker reads: bytes [start, end), or Parquet row groups [start, end).

    path: as it was typed, for messages. real_path: the same for all names of the file; "": as `path`.
    """

    path: str
    format: str
    compression: str
    start: int
    end: int
    size: int  # bytes on disk that this split represents, for progress and rates
    stamp: str = ""  # size and modification time of the file, to detect changed input
    real_path: str = field(default="", repr=False)  # not in `repr`, which `split_id` hashes


def split_id(split: InputSplit) -> str:
    """Return a name for a split, which changes if its file does, and is the same for all names of the file."""
    named = replace(split, path=split.real_path or split.path)
    return hashlib.blake2b(repr(named).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
