"""tokenizer.json gives the ids of the shards and of `predict`, for every character and any text.

Testing all assigned characters takes minutes: `python -m pytest -m slow tests/model/conversion/test_tokenizer_rules_json.py`.
"""

import unicodedata
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clozemill.model.conversion.tokenizer_json import build
from clozemill.pipelines.common.unicode_rules import category, normalize
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.data.text_encoder import TextEncoder
from tests.model.export.test_graph_tokenizer import SPECIAL, TEXT, TINY, rich
from tests.slow import mostly_slow

# Characters of each kind for which the library's tables differ: private use, punctuation, marks, format characters, unassigned
# ones of newer versions (an accent, capital letters, punctuation, emoji), a composition, marks newer than Unicode 9.
EXCEPTIONS = (
    "\uf0b7\ue000\U000f0000\U0010fffd\u0a76\u061d\u166d\u09fd\u0c77\u1734\U000111c9\u0890\u0891\u08e2\u180e\u200b\u200d\ufeff"
    "\u0897\U0001fae8\u1c89\ua7cb\U00010d50\u1b4e\U00011938\u1715\U0001193d\U00016ff0\u0898\u0899\u09fe\u0c3c\u1abf\u1df6"
    "\ufffd\ufffe\u0345\u0130\u0131\u1e9e\u03c2\u03a3\u212a\u2126\u1f88\u2260\u037e\uf900\ufa0e\U0002f800\U0002a6df\U0002a6de"
    "\U0002b73a\U00031350\u1100\u1161\u11a8\uac00\uac01\ud7a3\u302e\U0001d165\u0d4e\u0e33\u0f43\x00\x07\x1c\x1f\x7f\x85\xa0\u2028"
)
WORDS = "a b ##b c ab ##ab sep mask cls [ ] . = é ##é å o ##o ó σ ς ##σ ##ς 中 i ##i k ss ##ss ß 가 ##가"
MARKS = (
    "\ue001 ##\ue001 \u1715 ##\u1715 \U00011930 ##\u0898 \u0898 ##\u0301 ##\u0327 ##\u0323 ##\u0c3c \U0001fae8 ##\ua7cb ##ɤ "
    "\U00011938 \U00011935 ##\U00011938 ##\U00011930 ##\u11a8 \u1100 ##\u1161 ##\u302e ##\u093e"
)
VOCABULARY = (*SPECIAL, *WORDS.split(), *MARKS.split())


def forms(char: str) -> tuple[str, ...]:
    """Return a character alone, within, at both ends of and between words, and before and after accents, composed and not."""
    return (
        f"a{char}b a {char} b {char}b A{char} {char}",
        f"a{char}\u0301b o{char}\u0323\u0301 a\u0301{char}\u0327c",
        normalize("NFD", f"é{char}B Å{char} \u1161{char}가"),
        f"ΑΣ{char} {char}Σ Α{char}Σ {char}'Σ'{char}",
    )


class Same:
    """The tokenizers of a vocabulary: that of the shards and `predict`, and the written tokenizer.json."""

    def __init__(self, tokens: tuple[str, ...], cased: bool) -> None:
        vocabulary = Vocabulary.from_tokens(list(tokens))
        self.pieces, self.encoder = WordPiece(vocabulary, cased), TextEncoder(vocabulary, cased, 16)
        self.theirs = Tokenizer.from_str(build(tokens, cased).to_str())

    def differing(self, texts: list[str]) -> list[str]:
        """Return the texts with different ids."""
        found = self.pieces.encode([clean(text).replace("\n", " ") for text in texts])
        shards = np.split(found.ids, np.cumsum(found.lengths)[:-1]) if texts else []
        encodings = self.theirs.encode_batch_fast(texts, add_special_tokens=False)
        rows = zip(texts, shards, self.encoder.ids(texts), encodings, strict=True)
        return [text for text, *ids, theirs in rows if any(one.tolist() != theirs.ids for one in ids)]


@cache
def same(tokens: tuple[str, ...] = VOCABULARY, cased: bool = False) -> Same:
    return Same(tokens, cased)


def sample() -> list[str]:
    """The first and last of each run of characters of one category, and the exceptions."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    kinds = [category(chr(code)) for code in codes]
    edges = [code for code, one, other in zip(codes[1:], kinds, kinds[1:], strict=False) if one != other and other != "Cn"]
    first = {kind: code for code, kind in zip(codes[::-1], kinds[::-1], strict=True)}
    return [*map(chr, [*edges[::9], *first.values()]), *EXCEPTIONS]


@pytest.mark.parametrize("cased", mostly_slow((False, True), True))
def test_a_sample_of_all_characters(cased: bool) -> None:
    chars = sample()
    assert {category(char) for char in chars} == {unicodedata.category(chr(c)) for c in range(0x110000)} - {"Cs"}
    assert same(cased=cased).differing([form for char in chars for form in forms(char)]) == []


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(TEXT | st.text(EXCEPTIONS + "aé\u0301\u0327\u0323 ΣΑσ.", max_size=12), max_size=8), st.booleans())
def test_any_text(texts: list[str], cased: bool) -> None:
    assert same(cased=cased).differing(texts) == []
    assert same(TINY, cased).differing(texts) == []


@pytest.mark.parametrize("cased", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "a [SEP] b", "[CLS]a[SEP]", "[MASK] [PAD] [UNK]", "x[MASK]x", "[sep]", "b" * 200 + " a", "b" * 201 + " a",
        "a " + "é" * 400 + ".b", "a\nb\r\nc\u2028d\u2029e\x0bf", " \t ", "", "가각\u1100\u1161\u11a8힣", "中文、ab。",
        "##b a##b",
    ],
)  # fmt: skip
def test_particular_texts(text: str, cased: bool) -> None:
    assert same(cased=cased).differing([text]) == []


def test_special_tokens_in_a_text_are_plain_text() -> None:
    found = same().theirs.encode("a [SEP] [MASK]")
    assert found.tokens == ["[CLS]", "a", "[", "sep", "]", "[", "mask", "]", "[SEP]"]
    assert found.special_tokens_mask == [1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_offsets_refer_to_the_original_text() -> None:
    text = "A\u0301b\u200b \uf0b7 ÅΣ\u0301.中\u3000[SEP]"
    found = same().theirs.encode(text, add_special_tokens=False)
    places = [text[start:end].strip("\u0301\u200b") for start, end in found.offsets]
    assert found.tokens[:2] == ["ab", "[UNK]"]
    assert places == ["A\u0301b", "\uf0b7", "Å", "Σ", ".", "中", "[", "SEP", "]"]


def test_a_vocabulary_without_a_free_replacement_is_rejected() -> None:
    """A vocabulary with every accent, so that none is free to replace those unknown to the library."""
    marks = [chr(code) for code in range(0x110000) if unicodedata.combining(chr(code))]
    with pytest.raises(ValueError, match=r"^the vocabulary has the character U\+07FD, which tokenizer.json can't express$"):
        build((*TINY, *("##" + mark for mark in marks)), True)


@pytest.mark.slow
@pytest.mark.parametrize("cased", [False, True])
def test_every_character(cased: bool) -> None:
    """With a vocabulary of all characters except ideographs, syllables and half of the accents, which may replace others."""
    left = {chr(code) for code in range(0, 0x1AB0, 2) if unicodedata.combining(chr(code)) and not 0x898 <= code <= 0x8D3}
    both = same(tuple(token for token in rich() if token[-1] not in left), cased)
    chars = [chr(code) for code in range(0x110000) if category(chr(code)) not in ("Cn", "Cs")]
    chars += [chr(code) for code in range(0, 0x110000, 97) if category(chr(code)) == "Cn"]
    bad = []
    for at in range(0, len(chars), 500):
        bad += both.differing([form for char in chars[at : at + 500] for form in forms(char)])
    print(f"{len(chars):,} characters in {4 * len(chars):,} texts, {len(bad):,} differ")
    assert bad == []
