"""Character properties of Unicode 14.0, independent of the Python version; shared by cleaning, tokenizing and exports.

Python 3.11 has Unicode 14.0, Python 3.12 has 15.0. Characters newer than 14.0 count as unassigned, so that datasets and token
ids are identical with both. (No other character properties changed from 14.0 to 15.0.)
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

UNICODE = "14.0.0"
CJK = (  # the ideograph blocks of the reference, including unassigned code points
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
# Cc and Cf except white space, and the replacement character. Cleaning drops them. (U+13439 to U+1343F are newer than 14.0.)
CONTROLS = (
    (0x0, 0x8), (0xE, 0x1B), (0x1F, 0x1F), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C),
    (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x180E, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E),
    (0x2060, 0x2064), (0x2066, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xFFFD, 0xFFFD), (0x110BD, 0x110BD),
    (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001), (0xE0020, 0xE007F),
)  # fmt: skip
SPACES = (  # all kinds, including line breaks
    (0x9, 0xD), (0x1C, 0x1E), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_NEWER = {  # by Unicode version: code points that 14.0 doesn't have
    UNICODE: (),
    "15.0.0": (
        (0xCF3, 0xCF3), (0xECE, 0xECE), (0x10EFD, 0x10EFF), (0x1123F, 0x11241), (0x11B00, 0x11B09), (0x11F00, 0x11F10),
        (0x11F12, 0x11F3A), (0x11F3E, 0x11F59), (0x1342F, 0x1342F), (0x13439, 0x13455), (0x1B132, 0x1B132), (0x1B155, 0x1B155),
        (0x1D2C0, 0x1D2D3), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D), (0x1E08F, 0x1E08F), (0x1E4D0, 0x1E4F9), (0x1F6DC, 0x1F6DC),
        (0x1F774, 0x1F776), (0x1F77B, 0x1F77F), (0x1F7D9, 0x1F7D9), (0x1FA75, 0x1FA77), (0x1FA87, 0x1FA88), (0x1FAAD, 0x1FAAF),
        (0x1FABB, 0x1FABD), (0x1FABF, 0x1FABF), (0x1FACE, 0x1FACF), (0x1FADA, 0x1FADB), (0x1FAE8, 0x1FAE8), (0x1FAF7, 0x1FAF8),
        (0x2B739, 0x2B739), (0x31350, 0x323AF),
    ),
}  # fmt: skip

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]  # Unicode normal forms


def character_class(ranges: Iterable[tuple[int, int]]) -> str:
    """Return a character class for any regular expression engine; code points are written as (escaped) literals."""
    return "[" + "".join(re.escape(chr(low)) + (f"-{re.escape(chr(high))}" if high > low else "") for low, high in ranges) + "]"


NEWER = _NEWER[unicodedata.unidata_version]
_newer = re.compile(f"({character_class(NEWER)}+)") if NEWER else None
is_control = re.compile(character_class(CONTROLS)).match


def category(char: str) -> str:
    """Return the general category of a character; Cn if it is newer than Unicode 14.0."""
    return "Cn" if _newer and _newer.match(char) else unicodedata.category(char)


def combining(char: str) -> int:
    """Return the canonical combining class of a character, by which accents are sorted; 0 except for accents."""
    return 0 if _newer and _newer.match(char) else unicodedata.combining(char)


def normalize(form: Form, text: str) -> str:
    """Return the Unicode normal form of a text. Characters newer than 14.0 are neither letters nor accents: they stay."""
    if not _newer or text.isascii() or not _newer.search(text):
        return unicodedata.normalize(form, text)
    return "".join(
        unicodedata.normalize(form, part) for part in _newer.split(text)
    )  # normalization doesn't change parts made of newer characters


def lower(text: str) -> str:
    """Return the text in lower case. The form of a capital sigma depends on its neighbours; newer characters don't count."""
    if not _newer or text.isascii() or not _newer.search(text):
        return text.lower()
    return "".join(part.lower() for part in _newer.split(text))


def is_cjk(code: int) -> bool:
    """Return whether the reference isolates this code point as a CJK ideograph."""
    return 0x3400 <= code <= 0x2FA1F and any(low <= code <= high for low, high in CJK)


def is_punctuation(char: str) -> bool:
    """The reference's rule: all ASCII characters except letters, digits and space, and Unicode's P categories."""
    code = ord(char)
    if code < 0x80:
        return 32 < code < 127 and not char.isalnum()
    return category(char)[0] == "P"
