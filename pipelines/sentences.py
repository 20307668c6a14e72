"""Clean text to sentences, as character spans; a splitter is a function in SPLITTERS.

Splitters see one paragraph (line) at a time: the library is twenty times faster so than on whole documents.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import sentencex

# sentencex keeps quoted speech whole, so that novels hold "sentences" of a thousand words. A longer one is cut again
# after the last end of a sentence (or else clause, or else word) within the limit.
MAX_CHARS = 600
# On a paragraph of a megabyte sentencex loses a quarter of the sentences, and takes minutes where quotes are never closed.
MAX_PARAGRAPH = 10_000
# Possessive, and from the first mark of a run on: else a long row of dots would take quadratic time.
_ENDS = (re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+"), re.compile(r"[;:,—–]\s+"), re.compile(r"\s+"))

Span = tuple[int, int]


def _sentencex(paragraph: str, language: str) -> Iterator[Span]:
    start = 0
    for low, high in _short_enough(paragraph, 0, len(paragraph), MAX_PARAGRAPH):
        for sentence in sentencex.segment(language, paragraph[low:high]):  # lossless: the pieces concatenate to the whole
            yield start, start + len(sentence)
            start += len(sentence)


def _none(paragraph: str, language: str) -> Iterator[Span]:
    yield 0, len(paragraph)


SPLITTERS: dict[str, Callable[[str, str], Iterator[Span]]] = {
    "sentencex": _sentencex,
    "none": _none,
}


def _short_enough(text: str, start: int, end: int, limit: int) -> Iterator[Span]:
    """[start, end) in pieces of at most `limit`, cut where it hurts least."""
    while end - start > limit:
        for pattern in _ENDS:
            cuts = [match.end() for match in pattern.finditer(text, start + 1, start + limit)]
            if cuts:
                break
        cut = cuts[-1] if cuts else start + limit
        yield start, cut
        start = cut
    yield start, end


def split(text: str, splitter: str, language: str = "en") -> np.ndarray:
    """Spans, int64 [sentences, 2], in characters of the sentences of a cleaned text: stripped, none empty, in order.

    Nothing but white space lies between them.
    """
    find, edges, offset = SPLITTERS[splitter], [], 0
    for paragraph in text.split("\n"):
        for start, end in find(paragraph, language):
            for low, high in _short_enough(paragraph, start, end, MAX_CHARS):
                while low < high and paragraph[low].isspace():
                    low += 1
                while low < high and paragraph[high - 1].isspace():
                    high -= 1
                if low < high:
                    edges += (offset + low, offset + high)
        offset += len(paragraph) + 1
    return np.array(edges, np.int64).reshape(-1, 2)


def lines(text: str) -> np.ndarray:
    """The spans, int64 [sentences, 2], of the lines of a cleaned text: sentences already, so none is cut."""
    lengths = np.fromiter(map(len, text.split("\n") if text else ()), np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return np.stack([ends - lengths, ends], axis=1)
