"""Reads lines of text files, local or on gs://, plain or compressed (.gz, .bz2, .zst), with bounded memory.

Text is UTF-8, with or without a byte order mark. Lines end in LF, CR LF, or, in a file whose first megabyte has no LF, in CR.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.json_objects import loads_once
from clozemill.pipelines.files import charsets, decompression
from clozemill.pipelines.files.likely_encoding import conversion_hint
from clozemill.trainers.common import storage

MAX_LINE = 128 << 20  # bytes; the limit of a record in `prepare`
MAX_ITEMS = 8_000_000  # commas and brackets of a JSON value, or of a row's cells: each item needs some 60 to 200 bytes
MAX_EXPANSION = 300  # ratio of compression; text is compressed to a third, tables of identical rows to a hundredth
_BLOCK = 1 << 20
_SURE = 256 << 20  # bytes: a compressed file may expand to this size at any ratio
_JSON_ITEM = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[,\[{]', re.DOTALL)


def plain_name(path: str) -> str:
    """Return a path in lower case without the ending of a compression, to detect the format: Windows writes DATA.CSV."""
    return decompression.compression_of(path.lower())[1]


def _pieces(path: str) -> Iterator[bytes]:
    """Yield a file's bytes, decompressed. Raises UserError for a damaged file, an implausible ratio, and a wrong name."""
    compression, _ = decompression.compression_of(path)
    with storage.open_to_read(path) as raw:
        if compression == "none":
            head = raw.read(_BLOCK)
            decompression.check_uncompressed(head, path)
            yield from itertools.chain([head] if head else [], iter(lambda: raw.read(_BLOCK), b""))
            return
        size, allowed = 0, max(_SURE, MAX_EXPANSION * storage.size(path))
        for piece in decompression.DECODERS[compression](raw, path):
            size += len(piece)
            if size > allowed:
                raise UserError(
                    f"{path} expands to more than {MAX_EXPANSION} times its size, too much for text: give another file"
                )
            yield piece


def _blocks(path: str) -> Iterator[bytes]:
    """Yield a file's bytes, decompressed, in blocks of at least _BLOCK bytes; the last one may be shorter."""
    kept: list[bytes] = []
    for piece in _pieces(path):
        kept.append(piece)
        if sum(map(len, kept)) >= _BLOCK:
            yield b"".join(kept)
            kept = []
    if kept:
        yield b"".join(kept)


def _check_encoding(begin: bytes, path: str) -> None:
    """Raise UserError for UTF-16 or UTF-32, with a byte order mark or without (Latin letters have a NUL beside them)."""
    encoding = charsets.encoding_of(begin[: charsets.HEAD], path, xml=False).upper()
    if encoding or b"\0" in begin[:2]:
        raise UserError(f"{path} is {encoding or 'UTF-16 or binary'}, not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)")


def _split(path: str) -> Iterator[bytes]:
    """Yield a file's lines without line ends."""
    parts: list[bytes] = []  # of the current, incomplete line
    end, size, number = b"", 0, 1
    for block in _blocks(path):
        if not end:
            _check_encoding(block, path)
            end = b"\r" if b"\r" in block[:-1] and b"\n" not in block else b"\n"  # the last may be half of a CR LF
        first, *more = block.split(end)
        for piece in more:
            yield b"".join((*parts, first))
            parts, size, first, number = [], 0, piece, number + 1
        parts.append(first)
        size += len(first)
        if size > MAX_LINE:
            raise UserError(f"{path}, line {number}: it is longer than {MAX_LINE >> 20} MB: split it into several lines")
    if size:
        yield b"".join(parts)


def lines(path: str) -> Iterator[str]:
    """Yield a text file's lines without line ends. Raises UserError if it can't be read, isn't UTF-8 or has a huge line."""
    number, line = 1, b""
    if storage.is_folder(path):
        raise UserError(f"{path} is a folder: give a file of texts")
    try:
        for line in _split(path):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
            number += 1
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number}: it is not UTF-8: {conversion_hint(line, path)}") from None
    except FileNotFoundError:
        raise UserError(f"{path} doesn't exist: give a file of texts") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({storage.cause(error)}): fix that, or give another file") from None


def exceeds(text: str, separators: str, pattern: re.Pattern, limit: int = MAX_ITEMS) -> bool:
    """Return whether a text has more than `limit` items; separators in quotes don't count.

    Args:
        separators: the characters that separate items.
        pattern: matches one separator, or a quoted part as a unit.
    """
    if sum(text.count(char) for char in separators) <= limit:  # fast path for nearly all texts
        return False
    found = 0
    for match in pattern.finditer(text):
        found += match.group()[0] != '"'
        if found > limit:
            return True
    return False


def parse_json(text: str, wanted: tuple[str, ...] = ()) -> Any:
    """Parse a JSON value; lone surrogates, which can't be encoded, are replaced.

    Raises RepeatedField for an object with one of the fields `wanted` twice, RecursionError, and ValueError, also for more
    than MAX_ITEMS values, which would exhaust memory.
    """
    if exceeds(text, ",[{", _JSON_ITEM):
        raise ValueError(f"it has more than {MAX_ITEMS:,} values")
    if r"\ud" in text or r"\uD" in text:
        joined = json.dumps(loads_once(text, wanted), ensure_ascii=False)
        text = joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return loads_once(text, wanted)


def same_column(name: str, column: str) -> bool:
    """Return whether a name matches a column, ignoring case and surrounding blanks."""
    return name.strip().casefold() == column.strip().casefold()


def column_of(names: Sequence[str], column: str) -> str | None:
    """Return the name of a column: `column` itself, or the only name that differs just in case or outer blanks; else None.

    Raises ValueError if several names match.
    """
    found = [name for name in names if name == column]
    found = found or [name for name in names if same_column(name, column)]
    if len(found) > 1:
        raise ValueError(f"{len(found)} columns are named {column!r}")
    return found[0] if found else None


def parse_row(line: str, columns: Sequence[str]) -> Any:
    """Parse a line's JSON value. Raises as `parse_json`; names that differ only in case also count as repeated."""
    row = parse_json(line, tuple(columns))
    names = {name for name in row for column in columns if same_column(name, column)} if isinstance(row, dict) else set()
    return row if names <= set(columns) else parse_json(line, tuple(sorted(names)))
