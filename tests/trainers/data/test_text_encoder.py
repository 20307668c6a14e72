"""Texts are encoded like those of the shards, and every token has a position in the original text."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from clozemill.model.inputs import TOKENS as TENSORS
from clozemill.model.inputs import kept_lengths
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.text import cleaning
from clozemill.pipelines.text.single_line import places, plain
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.data import text_encoder
from clozemill.trainers.data.text_encoder import TextEncoder, trimmed

TOKENS = [
    "x",
    "[SEP]",
    "[UNK]",
    "un",
    "##able",
    "mill",
    ".",
    "[PAD]",
    "the",
    "é",
    "e",
    "[MASK]",
    "ü",
    "[CLS]",
    "가",
    "##é",
    "##x",
]
VOCABULARY = Vocabulary.from_tokens(TOKENS)
PAD, CLS, SEP, UNK = 7, 13, 1, 2
UNCASED, CASED = TextEncoder(VOCABULARY, False, 8), TextEncoder(VOCABULARY, True, 8)
# Letters with marks in both forms, decomposed Hangul, controls, breaks, spaces, a lone surrogate, text that NFC expands.
CHARACTERS = st.sampled_from(
    "aexEÉ .,!\u0301\u0308\u0323\u0315\u0344가\u1100\u1161\u11a8東か\u3099Σσ\u200b\xad\x07\ufffd\ud800\n\r\t\x85\u2028"
    "\xa0\ufb1d\u0958😀İ"
)
TEXTS = st.text(CHARACTERS, max_size=12)


def popped(first: int, second: int, room: int) -> tuple[int, int]:
    """Truncate by google-research/bert's rule, one token at a time."""
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_longer_text_is_truncated(first: int, second: int, room: int) -> None:
    assert kept_lengths(first, second, room) == popped(first, second, room)


def test_literal_packed_rows() -> None:
    found = UNCASED.pack([(np.array([5, 6]), None), (np.array([3, 4]), np.array([8])), (np.array([], np.int32), None)])
    assert {name: value.tolist() for name, value in found.items()} == {
        "input_ids": [
            [CLS, 5, 6, SEP, PAD, PAD, PAD, PAD],
            [CLS, 3, 4, SEP, 8, SEP, PAD, PAD],
            [CLS, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
        ],
        "input_mask": [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]],
        "segment_ids": [[0] * 8, [0, 0, 0, 0, 1, 1, 0, 0], [0] * 8],
    }
    assert {value.dtype for value in found.values()} == {np.dtype(np.int32)}


def test_single_texts_are_truncated() -> None:
    found = UNCASED.pairs(["Unable mill.", "the " * 20 + "mill", ""])
    assert found["input_ids"].tolist() == [
        [CLS, 3, 4, 5, 6, SEP, PAD, PAD],
        [CLS, 8, 8, 8, 8, 8, 8, SEP],
        [CLS, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
    ]
    assert not found["segment_ids"].any()


def test_truncated_texts_are_counted() -> None:
    """Six tokens fit into eight with [CLS] and [SEP]; five with a second [SEP]."""
    assert UNCASED.truncated_pairs(["the " * 6, "the " * 7, ""])[1] == 1
    assert UNCASED.truncated_pairs(["the the", "the " * 3, "the " * 6], ["the " * 3, "the " * 3, ""])[1] == 1


def test_literal_pairs_and_empty_second_texts() -> None:
    """As in google-research/bert and exported graphs, an empty second text has no [SEP]."""
    found = UNCASED.pairs(["mill the unable", "mill", "the " * 9], ["the mill the", ".\n.", " \u200b"])
    assert found["input_ids"].tolist() == [
        [CLS, 5, 8, 3, SEP, 8, 5, SEP],
        [CLS, 5, SEP, 6, 6, SEP, PAD, PAD],
        [CLS, 8, 8, 8, 8, 8, 8, SEP],
    ]
    assert found["segment_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0], [0] * 8]


def test_no_texts_are_no_rows() -> None:
    assert UNCASED.ids([]) == [] and UNCASED.pairs([])["input_ids"].shape == (0, 8)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.booleans())
def test_tokens_match_the_shards(text: str, cased: bool) -> None:
    encoder = CASED if cased else UNCASED
    expected = WordPiece(VOCABULARY, cased).encode(cleaning.clean(text).split("\n")).ids
    assert encoder.ids([text])[0].tolist() == expected.tolist() == encoder.with_offsets([text])[0][0].tolist()


def test_ordinary_text_is_tokenized_as_literal_pieces() -> None:
    """A separate accent character, a control before it, decomposed Hangul, line breaks of several kinds."""
    text = "The mill.\r\nE\u0301\u2028e\u200b\u0301 \u1100\u1161\n\nun\u00adable x\u0308"
    assert CASED.ids([text])[0].tolist() == [UNK, 5, 6, UNK, 9, 14, 3, 4, UNK]
    assert UNCASED.ids([text])[0].tolist() == [8, 5, 6, 10, 10, UNK, 3, 4, 0]  # without accents, with Hangul decomposed


def test_masks() -> None:
    """[MASK] is the mask only if it is asked for, and ends a word."""
    texts = ["the [MASK]mill", "[MASK]", "un[MASK][MASK]able", "", "the"]
    found = [ids.tolist() for ids in UNCASED.ids(texts, masks=True)]
    assert found == [[8, 11, 5], [11], [3, 11, 11, UNK], [], [8]]
    assert UNCASED.ids(["[MASK]"])[0].tolist() == [UNK] * 3
    with pytest.raises(ValueError, match="offsets weren't requested"):
        UNCASED.tokenizer.encode(texts).split(None)


def test_literal_offsets() -> None:
    _, starts, ends = UNCASED.with_offsets(["The\nunable mill."])[0]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [(0, 3), (4, 10), (4, 10), (11, 15), (15, 16)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("e\u0301 mill", ["e\u0301", "mill"]),
        ("e\u0301e\u0301.e\u0301", ["e\u0301e\u0301", ".", "e\u0301"]),
        ("\u1100\u1161\u11a8 mill", ["\u1100\u1161\u11a8", "mill"]),
        ("\ufb1d.mill", ["\ufb1d", ".", "mill"]),
        ("\u200bthe\u200b \ud800mill\x07.", ["the", "mill", "."]),
        ("か\u3099 x", ["か\u3099", "x"]),
        ("a\u0315\u0323\u0300b", ["a\u0315\u0323\u0300b"]),
    ],
)
def test_offsets_refer_to_the_original_text(text: str, words: list[str]) -> None:
    _, starts, ends = CASED.with_offsets([text])[0]
    found = dict.fromkeys((int(begin), int(end)) for begin, end in zip(starts, ends, strict=True))
    assert [text[begin:end] for begin, end in found] == words


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_places_map_back_to_the_text(text: str) -> None:
    """Each group of characters, normalised by itself, equals that part of the normalised text."""
    begins, ends = places(text)
    one = plain(text)
    assert len(begins) == len(ends) == len(one)
    assert (np.diff(begins) >= 0).all() and (np.diff(ends) >= 0).all() and (begins < ends).all()
    groups = dict.fromkeys(zip(begins.tolist(), ends.tolist(), strict=True))
    assert "".join(plain(text[begin:end]) for begin, end in groups) == one


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example("E\ufffd\u0301")  # must be removed first, because its neighbours might compose afterwards
def test_a_plain_text_keeps_its_offsets(text: str) -> None:
    kept = "".join(char for char in text if (char.isprintable() or char in "\n\r\t\x85\u2028\xa0") and char != "\ufffd")
    kept = unicodedata.normalize("NFC", kept)
    assert len(plain(kept)) == len(kept) and plain(plain(kept)) == plain(kept)
    starts, ends = UNCASED.with_offsets([kept])[0][1:]
    found = UNCASED.tokenizer.encode([plain(kept)], offsets=True)
    assert (starts == found.starts).all() and (ends == found.ends).all()


@pytest.mark.parametrize(("longest", "length"), [(2, 8), (8, 8), (9, 16), (17, 20), (20, 20)])
def test_trimmed_rows_keep_their_tokens(longest: int, length: int) -> None:
    """With as many rows as tokens: a column with one value per row must not be treated as a sequence."""
    mask = np.arange(20) < np.minimum(np.arange(20), longest)[:, None]
    mask[3, :longest] = 1
    rows = {name: (mask * (place + 2)).astype(np.int32) for place, name in enumerate(TENSORS)} | {
        "input_mask": mask.astype(np.int32)
    }
    rows |= {"labels": mask.astype(np.int32), "weights": np.arange(20.0), "starts": np.arange(20)}
    found = trimmed(rows)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys([*TENSORS, "labels"], (20, length)) | {
        "weights": (20,),
        "starts": (20,),
    }
    for name, value in found.items():
        assert (value == (rows[name] if value.ndim == 1 else rows[name][:, :length])).all() and value.sum() == rows[name].sum()


def test_trimmed_to_another_multiple_and_no_rows() -> None:
    rows = UNCASED.pairs(["the mill"])
    assert trimmed(rows, 3)["input_ids"].tolist() == [[CLS, 8, 5, SEP, PAD, PAD]]
    assert {value.shape for value in trimmed(UNCASED.pairs([])).values()} == {(0, 8)}


LONG = ("the mill " * 50, " " * 90 + "the mill " * 50, "\u200b " * 70 + "the", "x" * 300, "the", "", "abc the " + "y" * 99)


def test_the_beginning_of_a_long_text_fills_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """For any amount of text without tokens; a text without spaces is used unchanged."""
    monkeypatch.setattr(text_encoder, "_PART", 4)
    texts = TextEncoder(VOCABULARY, True, 6)
    for text in LONG:
        begin = texts.beginning(text)
        one, other = texts.ids([begin, text])
        assert text.startswith(begin) and one[:6].tolist() == other[:6].tolist()
    assert texts.beginning(LONG[0]) == LONG[0][:66]


HARD = [  # for foreign models: every Unicode form of texts
    "Ünde ÀÉ e\u0301 E\u0323\u0301 \u1e69 İstanbul I\u0307 Å \u212b ﬁ Ⅷ ß ẞ",
    "ΟΔΟΣ ΑΣ. Σ σΣ ΣΣ' Σίσυφος ς",
    "水车在 a水b ﾊ 東か\u3099 が 가 \u1100\u1161 \uf900 \u8c48",
    "x\u000by \u000c \x1c\x1d\x1e \x85 \u2028 \u2029 \u200b\u200d\xad \ufeff\ufffd \x00\x07 \xa0\u3000 tab\there\r\nline",
    "\ue000 a\uf8ffb \U000f0000 \U00100000c",
    "don't (stop) [CLS-] #1 $5 a_b ~ «x» — … ¿que? x²½",
    "w" * 100 + " " + "w" * 101 + " " + "é" * 100 + " " + "e\u0301" * 51 + " " + "水" * 120,
    "हिन्दी தமிழ் ไทย עברית שָׁלוֹם العَرَبِيَّة 😀👩\u200d🌾",
]


def everything(texts: list[str]) -> list[str]:
    """Return a vocabulary of every character that occurs in any form of the texts, alone and within words."""
    forms = ("NFC", "NFD")
    cases = {part for text in texts for case in (text, text.lower(), text.upper()) for part in case} - {" "}
    chars = sorted({part for form in forms for part in unicodedata.normalize(form, "".join(sorted(cases)))} | cases | {"ς"})
    chars = [char for char in chars if char.strip() and unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp")]
    return [*SPECIAL_TOKENS, *chars, *("##" + char for char in chars)]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_library_rules_give_the_ids_of_the_library(lower: bool, strip: bool, chinese: bool) -> None:
    """Compared with the library that transformers uses, for every combination of flags in tokenizer files."""
    tokens = everything(HARD)
    theirs = Tokenizer(models.WordPiece(vocab={token: row for row, token in enumerate(tokens)}, unk_token="[UNK]"))
    theirs.normalizer = normalizers.BertNormalizer(True, chinese, strip, lower)
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules = TextRules(strip, chinese, library=True, max_word_chars=100)
    ours = TextEncoder(Vocabulary.from_tokens(tokens), not lower, 8, rules)
    for text, found in zip(HARD, ours.ids(HARD), strict=True):
        encoded = theirs.encode(text)
        assert [tokens[row] for row in found] == encoded.tokens, text
    for text in HARD[:6]:
        _, starts, ends = ours.with_offsets([text], by_piece=True)[0]
        assert ends.max() <= len(text) and (starts < ends).all()


def test_pairs_for_a_model_with_one_segment_are_rejected() -> None:
    single = TextEncoder(VOCABULARY, False, 8, segments=1)
    assert single.pairs(["the mill"], [""])["segment_ids"].sum() == 0
    for refused in (lambda: single.pairs(["the"], ["mill"]), lambda: single.pack([(np.array([8]), np.array([5]))])):
        with pytest.raises(
            UserError, match=r"has only one segment .type_vocab_size 1. and doesn't support pairs: give single texts"
        ):
            refused()
