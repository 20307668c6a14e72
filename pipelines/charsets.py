"""Text that isn't UTF-8, where the file itself says so: by its byte order mark, its zeros, or its XML declaration."""

import codecs
import re
from collections.abc import Iterator

from pipelines.schema import UserError

HEAD = 256  # bytes in which a file says what it is
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]+)")


def encoding_of(head: bytes, path: str, xml: bool) -> str:
    """The encoding that a file's first bytes name; "" for UTF-8 and where they name none. Raises UserError for an unknown one.

    Args:
        xml: whether an XML declaration counts.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    # Without a mark: no UTF-8 text holds zeros, and every second byte of UTF-16 is one where the text is ASCII.
    first, second = head[:16:2], head[1:16:2]
    if len(second) == 8 and not any(second) and all(first):
        return "utf-16-le"
    if len(second) == 8 and not any(first) and all(second):
        return "utf-16-be"
    found = _DECLARED.match(head.removeprefix(codecs.BOM_UTF8)) if xml else None
    if not found:
        return ""
    try:
        name = codecs.lookup(found[1].decode()).name
        "".encode(name)  # refuses what isn't an encoding of text
    except LookupError:
        raise UserError(f"{path} declares the unknown encoding {found[1].decode()!r}: convert it to UTF-8") from None
    return "" if name in ("utf-8", "ascii") else name


def to_utf8(pieces: Iterator[tuple[bytes, bool]], path: str, xml: bool) -> Iterator[tuple[bytes, bool]]:
    """The (piece, owned) pairs of a file from its start in UTF-8, without a byte order mark.

    Text in another encoding is one split, which owns all of it. Raises UserError for text that isn't what the file says.
    """
    first: list[tuple[bytes, bool]] = []
    try:
        for pair in pieces:
            first.append(pair)
            if sum(len(piece) for piece, _ in first) >= HEAD:
                break
    except UserError:
        yield from first
        raise
    head = b"".join(piece for piece, _ in first)
    if encoding := encoding_of(head[:HEAD], path, xml):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for piece in (head, *(piece for piece, _ in pieces), None):
                text = decoder.decode(piece or b"", piece is None)
                if text:
                    yield text.encode("utf-8", "surrogatepass"), True
        except UnicodeError as error:
            why = getattr(error, "reason", error)
            raise UserError(f"{path} is not intact {encoding.upper()} text ({why}): convert it to UTF-8") from None
        return
    mark = 3 if head.startswith(codecs.BOM_UTF8) else 0
    for piece, owned in first:
        if rest := piece[mark:]:
            yield rest, owned
        mark = max(0, mark - len(piece))
    yield from pieces
