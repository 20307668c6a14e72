"""Which pieces are appended to a vocabulary: literal cases, and a reference that tries every piece with the real tokenizer."""

import string
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.vocab import piece_selection
from clozemill.pipelines.vocab.piece_selection import PieceSelection

LETTERS = [*string.ascii_lowercase, *("##" + char for char in string.ascii_lowercase)]
BASE = [*SPECIAL_TOKENS, *LETTERS]


def cost(tokens: list[str], counts: dict[str, int]) -> int:
    """Count the tokens of all words with the project's tokenizer; an unknown word counts as its characters and one more."""
    tokenizer = WordPiece(Vocabulary.from_tokens(tokens))
    total = 0
    for word, count in counts.items():
        pieces = tokenizer.pieces(word)
        total += count * (len(word) + 1 if pieces == [tokenizer.vocabulary.unk_id] else len(pieces))
    return total


def reference(tokens: list[str], counts: dict[str, int], add: int) -> list[str]:
    """Try every part of every word in each step."""
    found: list[str] = []
    spans = ((word, low, high) for word in counts for low in range(len(word)) for high in range(low + 1, len(word) + 1))
    parts = {("##" if low else "") + word[low:high] for word, low, high in spans}
    for _ in range(add):
        now = [*tokens, *found]
        gains = {piece: cost(now, counts) - cost([*now, piece], counts) for piece in sorted(parts - set(now))}
        best = min(gains, key=lambda piece: (-gains[piece], -len(piece), piece), default="")
        if not best or gains[best] <= 0:
            break
        found.append(best)
    return found


@pytest.mark.parametrize(
    ("base", "counts", "expected"),
    [
        # "whal" saves 3 tokens of 16 words (48), more than "whale" (4 of 10) and "whaling" (6 of 6); then 3 of 6, 1 of 10.
        (BASE, {"whale": 10, "whaling": 6, "ship": 3}, ["whal", "whaling", "whale", "ship"]),
        # A continuation that several words share: "##ing" saves 2 of 9, "seeing" 3 of 5.
        (["do", "see", *BASE], {"doing": 4, "seeing": 5}, ["##ing", "seeing", "doing"]),
        # The longest piece from the left wins: with "ab", "abc" is ab ##c, so "##bc" would save nothing.
        (["ab", *BASE], {"abc": 2, "xbc": 1}, ["abc", "xbc"]),
        # Equal gains: the longer piece, then code points.
        (BASE, {"ab": 1, "cd": 1}, ["ab", "cd"]),
        # An unknown word is worth more than its letters: "é" is in no entry.
        (BASE, {"café": 4, "abcdef": 3}, ["café", "abcdef"]),
        (BASE, {"é": 2, "ab": 1}, ["é", "ab"]),
        # "ac" would cost "accb" (a ##ccb) as much as it saves, until "accb" is one token.
        (["##ccb", *BASE], {"ac": 1, "accb": 1}, ["accb", "ac"]),
        (BASE, {"z": 9}, []),
        (BASE, {"a\ud800": 9}, []),
    ],
)
def test_known_vocabularies(base: list[str], counts: dict[str, int], expected: list[str]) -> None:
    assert list(PieceSelection(base, counts.items())) == expected


WORDS = st.dictionaries(st.text("abcé", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=12)
EXTRA = st.lists(st.text("abc", min_size=2, max_size=4), max_size=4, unique=True)


@settings(max_examples=60, deadline=None)
@given(WORDS, EXTRA, EXTRA)
def test_every_piece_saves_tokens(counts: dict[str, int], begin: list[str], inside: list[str]) -> None:
    """Old entries stay, no entry repeats, and the tokens of the corpus fall with every piece, until each word is one token."""
    tokens = [*BASE, *begin, *("##" + piece for piece in inside)]
    ordered = list(PieceSelection(tokens, counts.items()))
    assert ordered == list(PieceSelection(tokens, reversed(counts.items())))
    costs = [cost([*tokens, *ordered[:number]], counts) for number in range(len(ordered) + 1)]
    assert costs == sorted(set(costs), reverse=True)
    assert costs[-1] == sum(counts.values())
    assert PieceSelection([*tokens, *ordered], counts.items()).tokens("zz") == 2


@pytest.mark.parametrize(
    "counts",
    [
        {"banana": 5, "bandana": 3, "ananas": 4, "nanas": 1, "band": 2, "ban": 7},
        {"abab": 3, "ababab": 2, "bab": 5, "baba": 1, "cab": 4, "abc": 1},
        {"mississippi": 2, "missing": 5, "sipping": 3, "ping": 4, "sip": 1},
    ],
)
def test_the_selection_is_that_of_trying_everything(counts: dict[str, int]) -> None:
    expected = reference(BASE, counts, 8)
    assert list(islice(PieceSelection(BASE, counts.items()), 8)) == expected


def test_the_most_frequent_words_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_selection, "MAX_WORDS", 1)
    assert list(PieceSelection(BASE, {"ab": 1, "cde": 2}.items())) == ["cde"]
