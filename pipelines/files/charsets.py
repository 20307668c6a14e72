"""Text that isn't UTF-8, where the file itself says so: by its byte order mark, its zeros, or its XML declaration."""

import codecs
import re
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.unicode_rules import category

HEAD = 256  # bytes in which a file says what it is
_LEAST = 16  # bytes from which UTF-16 without a mark is recognized
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]+)")


def _is_utf16(head: bytes, high: bytes, name: str) -> bool:
    """Whether bytes without a mark, of which some `high` ones (every second byte) are zero, are UTF-16.

    The high bytes of most alphabets are below 0x20, those of their spaces 0. Ideographs have any: what they look like in UTF-8
    is malformed, and in UTF-16 assigned characters. A stray zero in other text is neither.
    """
    if sum(byte < 0x20 for byte in high) >= 0.75 * len(high):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return False
    except UnicodeDecodeError as error:
        if error.start >= _LEAST and 0 not in high[: _LEAST // 2]:  # it begins as UTF-8, with a defective line further on
            return False
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return False
    return high.count(0) > 1 and not any(category(char) in ("Cc", "Cn", "Co", "Cs") for char in text if char not in "\t\n\r")


def encoding_of(head: bytes, path: str, xml: bool) -> str:
    """The encoding that a file's first bytes name; "" for UTF-8 and where they name none. Raises UserError for an unknown one.

    Args:
        xml: whether an XML declaration counts.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    for name, high, low in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        zeros = high.count(0)
        if len(head) >= _LEAST and low.count(0) < min(zeros, len(low) / 4) and _is_utf16(head, high, name):
            return name
    found = _DECLARED.match(head.removeprefix(codecs.BOM_UTF8)) if xml else None
    if not found:
        return ""
    try:
        name = codecs.lookup(found[1].decode()).name
        "".encode(name)  # refuses what isn't an encoding of text
    except (LookupError, UnicodeError):
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
