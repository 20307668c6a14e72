"""The ids of documents to leave out (`--exclude-ids`): a file with one id per line, compressed or not."""

import hashlib

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers.input_split import InputSplit

NAME = "excluded-ids.txt"  # file from which the workers load them


def read_ids(path: str) -> frozenset[str]:
    """Return the ids in a file, without surrounding spaces and empty lines. Raise UserError if it can't be read."""
    size = filesystem.size(path)
    split = InputSplit(path, "", decompression.compression_of(path)[0], 0, size, size)
    try:
        text = b"".join(piece for piece, _ in readers_compression.pieces(split)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--exclude-ids {path} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv -t utf-8"
        ) from None
    return frozenset(line.strip() for line in text.split("\n")) - {""}


def dump(ids: frozenset[str]) -> bytes:
    """Return bytes for `load`; identical for identical ids, whatever their order in the file."""
    return "".join(f"{each}\n" for each in sorted(ids)).encode()


def load(data: bytes) -> frozenset[str]:
    """Return what `dump` wrote."""
    return frozenset(data.decode().split("\n")) - {""}


def digest(ids: frozenset[str]) -> str:
    """Return the SHA-256 of the ids."""
    return hashlib.sha256(dump(ids)).hexdigest()
