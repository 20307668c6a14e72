"""Cut the bytes of a split into records, each of which belongs to exactly one split.

A record belongs to the split that contains the start of the delimiter before it, so each record is read exactly once.
"""

from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files.likely_encoding import SAMPLE, conversion_hint
from clozemill.pipelines.readers import compression, document
from clozemill.pipelines.readers.document import Rejected
from clozemill.pipelines.readers.input_split import InputSplit


def invalid_utf8(source: str, error: UnicodeDecodeError, data: bytes) -> Rejected:
    """Return the rejected record for bytes that aren't UTF-8, in a file that declares no other encoding."""
    around = data[max(0, error.start - SAMPLE // 2) : error.start + SAMPLE]
    return Rejected("invalid_utf8", source, f"{error}: {conversion_hint(around)}", document.excerpt_of(data))


class _Pieces:
    """The parts of an incomplete record. They are dropped once the record is longer than MAX_RECORD."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > document.MAX_RECORD:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def take(self, last: bytes) -> bytes | None:
        """Complete and return the record (None if it is too long), and start an empty one."""
        self.add(last)
        record = b"".join(self._pieces) if self._size <= document.MAX_RECORD else None
        self._pieces, self._size = [], 0
        return record


def delimited(split: InputSplit, delimiter: bytes) -> Iterator[tuple[bytes | None, bool, bool]]:
    """Yield (record, owned, closed) for the bytes between delimiters, from the first delimiter within the split.

    Records continue to the end of the file: take them while they are owned. The time is linear in the bytes read, whatever
    the length of a record. The last record, not closed, is what follows the last delimiter, and may be empty. A record longer
    than MAX_RECORD is None.
    """
    overlap = len(delimiter) - 1
    pieces = _Pieces()
    owner: bool | None = True if split.start == 0 else None  # None: the record before the first delimiter
    tail, seen, limit = b"", 0, None  # `limit`: number of decompressed bytes that the split owns, once known
    for chunk, owned in compression.pieces(split):
        if not owned and limit is None:
            limit = seen
        data, base, position = tail + chunk, seen - len(tail), 0
        seen += len(chunk)
        if limit is None and owner and delimiter in data:  # fast path for the usual case: the split owns all of it
            head, *whole, rest = data.split(delimiter)
            yield pieces.take(head), True, True
            yield from ((record if len(record) <= document.MAX_RECORD else None, True, True) for record in whole)
            position = len(data) - len(rest)
        while (hit := data.find(delimiter, position)) >= 0:
            if owner is not None:
                yield pieces.take(data[position:hit]), owner, True
            owner = limit is None or base + hit < limit
            position = hit + len(delimiter)
        cut = max(position, len(data) - overlap)
        if owner is not None:
            pieces.add(data[position:cut])
        elif limit is not None and base + cut >= limit:
            return  # no delimiter begins within the split, so it owns no record
        tail = data[cut:]
    if owner is not None:
        yield pieces.take(tail), owner, False


def lines(split: InputSplit) -> Iterator[tuple[bytes | None, bool]]:
    """Yield (line, owned) of a split, without line ends; None for a line that is too long. The last one may be empty."""
    for number, (line, owned, closed) in enumerate(delimited(split, b"\n")):
        if not (number or split.start or closed) and line and b"\r" in line.rstrip(b"\r"):
            raise UserError(
                f"{split.path} ends its lines with a carriage return alone, as old Mac files do: convert it with "
                "tr '\\r' '\\n' < FILE > NEW"
            )
        yield line if line is None else line.removesuffix(b"\r"), owned
