"""Text to chunks, in bulk: maximal runs of word characters, and each punctuation mark or CJK character by itself.

A chunk, normalised, is what google-research/bert's basic tokenizer makes of it; cutting is done with array operations over
a text's characters, and normalising once per distinct chunk.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_WORD, _SPACE, _ISOLATED, _UNKNOWN = range(4)
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def is_punctuation(char: str) -> bool:
    """The reference's rule: every ASCII character that is no letter, digit or space, and Unicode's P categories."""
    code = ord(char)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(char)[0] == "P"


def is_cjk(code: int) -> bool:
    """Whether the reference isolates this code point as a CJK ideograph."""
    return any(low <= code <= high for low, high in _CJK)


def _char_class(code: int) -> int:
    char = chr(code)
    if char in "\t\n\r\u2028\u2029" or unicodedata.category(char) == "Zs":
        return _SPACE
    if is_punctuation(char) or is_cjk(code):
        return _ISOLATED
    return _WORD


class CharClasses:
    """Code point -> word, space or isolated, looked up for whole arrays; a code point is classified when first met."""

    def __init__(self) -> None:
        self._table = np.full(0x110000, _UNKNOWN, np.uint8)
        self._table[:128] = [_char_class(code) for code in range(128)]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        classes = self._table[codes]
        if codes.dtype != np.uint8 and (new := classes == _UNKNOWN).any():
            for code in np.unique(codes[new]).tolist():
                self._table[code] = _char_class(code)
            classes = self._table[codes]
        return classes


def _lower_sigmas(text: str) -> str:
    """Capital sigmas in their lower-case form: it depends on the whole white-space token, which chunks don't show."""

    def lower(word: str) -> str:
        if "Σ" not in word:
            return word
        lowered = word.replace("İ", "I").lower()  # the one character whose lower case is longer
        return "".join(low if char == "Σ" else char for char, low in zip(word, lowered, strict=True))

    return " ".join(lower(word) for word in text.split(" "))


@dataclass(frozen=True)
class Chunks:
    """The chunks of a text, in order: `words` pyarrow strings, and `starts`, `ends` (int64) in characters."""

    words: pa.StringArray
    starts: np.ndarray
    ends: np.ndarray


class Chunker:
    """Cuts text into chunks; what comes out in bulk is what the reference's basic tokenizer would split."""

    def __init__(self, cased: bool) -> None:
        self.cased = cased
        self._classes = CharClasses()

    def __call__(self, text: str) -> Chunks:
        if not self.cased and "Σ" in text:
            text = "\n".join(_lower_sigmas(line) for line in text.split("\n"))
        ascii_only = text.isascii()
        codes = (
            np.frombuffer(text.encode("ascii"), np.uint8)
            if ascii_only
            else np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        )
        classes = self._classes(codes)
        isolated, word = classes == _ISOLATED, classes == _WORD
        edge = np.zeros(len(codes) + 1, bool)
        np.not_equal(word[1:], word[:-1], out=edge[1:-1])
        if len(codes):
            edge[0], edge[-1] = word[0], word[-1]
        starts = np.flatnonzero(isolated | (edge[:-1] & word))
        ends = np.flatnonzero(isolated | (edge[1:] & word)) + 1
        kept = codes[classes != _SPACE].tobytes()
        offsets = np.zeros(len(starts) + 1, np.int32)
        np.cumsum(ends - starts, out=offsets[1:])
        if not ascii_only:
            kept = kept.decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogatepass")
            first_bytes = np.flatnonzero((np.frombuffer(kept, np.uint8) & 0xC0) != 0x80)  # of each character
            offsets = np.append(first_bytes, len(kept)).astype(np.int32)[offsets]
        words = pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(kept))
        return Chunks(words, starts, ends)

    def normalise(self, chunk: str) -> list[str]:
        """The reference's basic tokens of one chunk: none, one, or several where normalising brings out punctuation."""
        if chunk.isascii() and chunk.isalnum():
            return [chunk if self.cased else chunk.lower()]
        chunk = "".join(c for c in chunk if c not in "\x00\ufffd" and unicodedata.category(c) not in ("Cc", "Cf"))
        if not self.cased:
            chunk = chunk.lower()
            if not chunk.isascii():
                chunk = "".join(c for c in unicodedata.normalize("NFD", chunk) if unicodedata.category(c) != "Mn")
        if chunk.isalnum():
            return [chunk]
        return "".join(f" {c} " if is_punctuation(c) else c for c in chunk).split()
