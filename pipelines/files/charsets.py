"""Text in other encodings than UTF-8, detected by a byte order mark, by zero bytes, or by an XML declaration."""

import codecs
import re
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.unicode_rules import category

HEAD = 256  # bytes of a file in which its encoding is declared
_LEAST = 16  # bytes needed to recognize UTF-16 without a mark
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, because its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]+)")


def _is_utf16(head: bytes, high: bytes, name: str) -> bool:
    """Return whether bytes without a mark are UTF-16. Some of the `high` ones (every second byte) are zero.

    The high bytes of most alphabets are below 0x20, and those of spaces are 0. Ideographs have arbitrary high bytes; they are
    malformed as UTF-8, and assigned characters as UTF-16. Other text with a stray zero byte is neither.
    """
    if sum(byte < 0x20 for byte in high) >= 0.75 * len(high):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return False
    except UnicodeDecodeError as error:
        if error.start >= _LEAST and 0 not in high[: _LEAST // 2]:  # valid UTF-8 at first, with a malformed line later
            return False
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return False
    return high.count(0) > 1 and not any(category(char) in ("Cc", "Cn", "Co", "Cs") for char in text if char not in "\t\n\r")


def encoding_of(head: bytes, path: str, xml: bool) -> str:
    """Return the encoding declared by the first bytes of a file; "" for UTF-8 or if none is declared.

    Args:
        xml: whether an XML declaration counts.

    Raises:
        UserError: the declared encoding is unknown.
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
        "".encode(name)  # raises if it isn't a text encoding
    except (LookupError, UnicodeError):
        raise UserError(f"{path} declares the unknown encoding {found[1].decode()!r}: convert it to UTF-8") from None
    # A declaration that can be read as ASCII isn't UTF-16: the file was converted, and its declaration wasn't.
    return "" if name in ("utf-8", "ascii") or name.startswith(("utf-16", "utf-32")) else name


def to_utf8(pieces: Iterator[tuple[bytes, bool]], path: str, xml: bool) -> Iterator[tuple[bytes, bool]]:
    """Yield the (piece, owned) pairs of a file from its start as UTF-8, without a byte order mark.

    Text in another encoding is one split, which owns all of it. Raises UserError if the text doesn't match its encoding.
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
            raise UserError(f"{path} is not valid {encoding.upper()} text ({why}): convert it to UTF-8") from None
        return
    mark = 3 if head.startswith(codecs.BOM_UTF8) else 0
    for piece, owned in first:
        if rest := piece[mark:]:
            yield rest, owned
        mark = max(0, mark - len(piece))
    yield from pieces
