"""Cut text into chunks, in bulk: maximal runs of word characters, and each punctuation mark or CJK character by itself.

A normalised chunk equals the output of google-research/bert's basic tokenizer. Text is cut with array operations on its UTF-8
bytes; each distinct chunk is normalised once.
"""

import bisect
import itertools
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.common.unicode_rules import category, combining, is_cjk, is_punctuation, lower, normalize

_WORD, _SPACE, _ISOLATED, _UNKNOWN = range(4)


def _char_class(code: int, tokenize_chinese_chars: bool = True) -> int:
    char = chr(code)
    if char in "\t\n\r\u2028\u2029" or category(char) == "Zs":
        return _SPACE
    if is_punctuation(char) or (tokenize_chinese_chars and is_cjk(code)):
        return _ISOLATED
    return _WORD


_BYTE_CLASSES = bytes(_char_class(code) if code < 0x80 else _WORD for code in range(256))
_ASCII_SPACES = b" \t\n\r"
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
# Accents of Latin, Greek and Cyrillic letters, signs above symbols, variation selectors.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
_WIDE_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def _lower_sigmas(text: str, keeps_accents: bool = False) -> str:
    """Lower-case a text that contains a capital sigma, character by character.

    The lower case of a sigma depends on its neighbours, so it can't be determined per chunk like that of other characters. The
    reference removes control characters before that. Here they are replaced by soft hyphens, which Unicode's rule ignores and
    normalising drops. Only `İ` would become two characters, and the second is stripped later. If accents are kept, `normalise`
    lower-cases it, because offsets count the characters of the text.
    """
    lowered = "\n".join([lower(line) for line in _CONTROLS.sub("\xad", text).replace("İ", "i").split("\n")])
    if not keeps_accents or "İ" not in text:
        return lowered
    return "".join("İ" if char == "İ" else low for char, low in zip(text, lowered, strict=True))


def _wide_codes(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (index of the first byte, code point, number of bytes) of each non-ASCII character in valid UTF-8."""
    at = np.flatnonzero(data >= 0xC0)
    padded = np.append(data, np.zeros(3, np.uint8))
    lead, second, third, fourth = (padded[at + step].astype(np.uint32) for step in range(4))
    width = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    tails = [second & 0x3F, third & 0x3F, fourth & 0x3F]
    two = (lead & 0x1F) << 6 | tails[0]
    three = (lead & 0x0F) << 12 | tails[0] << 6 | tails[1]
    four = (lead & 0x07) << 18 | tails[0] << 12 | tails[1] << 6 | tails[2]
    return at, np.choose(width - 2, [two, three, four]), width


@dataclass(frozen=True)
class Chunks:
    """The chunks of a text, in order.

    data: the text's UTF-8 bytes, its ASCII letters lower-cased when uncased. words: pyarrow strings.
    starts, ends: int64, in bytes of `data`.
    """

    data: np.ndarray
    words: pa.StringArray
    starts: np.ndarray
    ends: np.ndarray

    def bytes(self, characters: np.ndarray) -> np.ndarray:
        """Convert positions in characters to positions in bytes (the end of the text is allowed)."""
        lead = np.flatnonzero(self.data >= 0xC0)  # only for characters of several bytes: usually few
        extra = 1 + (self.data[lead] >= 0xE0).astype(np.int64) + (self.data[lead] >= 0xF0)
        before = np.concatenate([[0], np.cumsum(extra)])
        return characters + before[np.searchsorted(lead - before[:-1], characters)]

    def characters(self, byte: np.ndarray) -> np.ndarray:
        """Convert positions in bytes to positions in characters (the end of the text is allowed)."""
        before = np.zeros(len(self.data) + 1, np.int64)
        np.cumsum((self.data & 0xC0) != 0x80, out=before[1:])
        return before[byte]


class Chunker:
    """Cuts text into chunks, without a vocabulary. Caches the classes of the characters seen so far."""

    def __init__(self, cased: bool, rules: TextRules = REFERENCE) -> None:
        self.cased, self.rules = cased, rules
        self._strips = rules.strips(cased)
        self._classes = np.full(0x110000, _UNKNOWN, np.uint8)

    def __call__(self, text: str) -> Chunks:
        """Cut text; lone surrogates are dropped."""
        if not self.cased and "Σ" in text:
            text = text.replace("Σ", "σ") if self.rules.library else _lower_sigmas(text, not self._strips)
        encoded = text.encode("utf-8", "ignore")
        if not self.cased:
            encoded = encoded.lower()  # ASCII letters only; `normalise` handles the others
        data = np.frombuffer(encoded, np.uint8)
        classes = np.frombuffer(encoded.translate(_BYTE_CLASSES), np.uint8)  # takes half the time of indexing
        begin, word = classes == _ISOLATED, classes == _WORD
        end = begin
        if not text.isascii():
            end = begin.copy()
            if self._isolate(data, begin, end, word):
                return self(_WIDE_SPACES.sub(" ", text))
        edge = np.zeros(len(data) + 1, bool)
        np.not_equal(word[1:], word[:-1], out=edge[1:-1])
        if len(data):
            edge[0], edge[-1] = word[0], word[-1]
        starts = np.flatnonzero(begin | (edge[:-1] & word))
        ends = np.flatnonzero(end | (edge[1:] & word)) + 1
        offsets = np.zeros(len(starts) + 1, np.int32)
        np.cumsum((ends - starts).astype(np.int32), out=offsets[1:])
        kept = encoded.translate(None, _ASCII_SPACES)
        words = pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(kept))
        return Chunks(data, words, starts, ends)

    def _isolate(self, data: np.ndarray, begin: np.ndarray, end: np.ndarray, word: np.ndarray) -> bool:
        """Mark non-ASCII characters that are chunks by themselves, in place. Return True if there are spaces among them."""
        at, codes, width = _wide_codes(data)
        for code in set(codes[self._classes[codes] == _UNKNOWN].tolist()):
            self._classes[code] = _char_class(code, self.rules.tokenize_chinese_chars)
        alone = self._classes[codes] == _ISOLATED
        at, width = at[alone], width[alone]
        begin[at] = end[at + width - 1] = True
        for step in range(4):
            word[(at + step)[width > step]] = False
        return bool((self._classes[codes] == _SPACE).any())

    def normalise(self, chunk: str) -> list[str]:
        """Return the reference's basic tokens of one chunk: none, one, or several if normalising produces punctuation."""
        if chunk.isascii() and chunk.isalnum():
            return [chunk]
        chunk = "".join(c for c in chunk if not _left_out(c))
        if not chunk.isascii():
            chunk = chunk if self.cased else lower(chunk)
            if self._strips:
                chunk = "".join(c for c in normalize("NFD", chunk) if category(c) != "Mn")
        if chunk.isalnum():
            return [chunk]
        return "".join(f" {c} " if is_punctuation(c) else c for c in chunk).split()

    def marks(self, chunk: str) -> int:
        """Return how many marks other than accents, such as vowel signs, normalising drops from a chunk."""
        if not self._strips or chunk.isascii():
            return 0
        return sum(category(char) == "Mn" and not _ACCENTS.match(char) for char in normalize("NFD", chunk))

    def normalise_with_places(self, chunk: str) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Return basic tokens as `normalise`, with the source of each of their characters in the chunk: (token, begins, ends).

        A character that normalising drops, such as an accent, belongs to the one before it. If one character is decomposed into
        several, such as a Hangul syllable, all come from it. The chunk has no capital sigma: `__call__` replaced it.
        """
        if chunk.isascii() and chunk.isalnum():
            return [(chunk, tuple(range(len(chunk))), tuple(range(1, len(chunk) + 1)))]
        parts = [(char, place) for place, whole in enumerate(chunk) for char in self._taken_apart(whole)]
        if self._strips:
            parts = [part for part in _canonical_order(parts) if category(part[0]) != "Mn"]
        words: list[list[tuple[str, int, int]]] = []
        within = False  # continues the word
        for (char, begin), end in zip(parts, _ends([place for _, place in parts], len(chunk)), strict=True):
            alone, space = is_punctuation(char), char.isspace()
            if not space:
                words += [] if within and not alone else [[]]
                words[-1].append((char, begin, end))
            within = not (alone or space)
        columns = (tuple(zip(*word, strict=True)) for word in words)
        return [("".join(chars), begins, ends) for chars, begins, ends in columns]

    def _taken_apart(self, char: str) -> str:
        """Return the decomposition of one character of a chunk, including marks."""
        if _left_out(char):
            return ""
        char = char if self.cased else lower(char)
        return normalize("NFD", char) if self._strips else char


def _left_out(char: str) -> bool:
    """Return whether normalising drops a character, cased or not."""
    return char in "\x00\ufffd" or category(char) in ("Cc", "Cf")


def _canonical_order(parts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Sort each run of marks among decomposed characters by combining class, as NFD does."""
    found: list[tuple[str, int]] = []
    for _, run in itertools.groupby(parts, lambda part: combining(part[0]) > 0):
        found += sorted(run, key=lambda part: combining(part[0]))
    return found


def _ends(places: list[int], length: int) -> list[int]:
    """Return the end of each kept character of a chunk: the start of the next one, so that there is no gap."""
    later = sorted({*places, length})
    return [later[bisect.bisect_right(later, place)] for place in places]
