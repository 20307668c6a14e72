"""The tokenizer in the graph, compared with that of the training data, for every character and any text."""

import gzip
import json
import unicodedata
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.model.conversion import characters
from clozemill.model.conversion.characters import Characters
from clozemill.model.export.graph_tokenizer import TEXTS, TextOps, clean, dense
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.common.unicode_rules import is_cjk
from clozemill.pipelines.text.cleaning import clean as clean_in_python
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.data.text_encoder import TextEncoder
from tests.corpora import tokens
from tests.slow import mostly_slow_rows

DATA = Path(__file__).parents[4] / "shared/data"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TINY = tuple("a b ##b [MASK] c [SEP] . [UNK] σ ς ##σ ##ς [CLS] 中 = [PAD] é A i [".split())  # noqa: SIM905
PAD, UNK, CLS, SEP, MASK = 15, 7, 12, 5, 3
ODD = (
    "ΣσςİıẞßſKÅéÉ≠≮中〇한글ǅﬁ½…№;`ͅ\u0301\u0338\u0327\u00ad\u200b\u200d\ufffd\ufeff\xa0\u2028\u3000\x85\x1c\x1f\x00\x7f\n\r\t"
    " '#[]aAbB.,-\ue000\U000e0041\u1734\u0897\U0001f600\U00016129"
)
TEXT = st.text(st.one_of(st.sampled_from(ODD), st.characters(codec="utf-8")), max_size=40)


@cache
def ops(vocabulary: tuple[str, ...] = TINY, cased: bool = False, length: int = 12) -> TextOps:
    return TextOps(vocabulary, cased, length)


@cache
def rich() -> tuple[str, ...]:
    """A vocabulary of words and continuations of one character each, without most ideographs: [UNK] hides few differences."""
    none = ("Cn", "Cs", "Cc", "Cf", "Co", "Zs", "Zl", "Zp")
    chars = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) not in none]
    chars = [char for char in chars if ord(char) % 50 == 0 or (not is_cjk(ord(char)) and not "가" <= char <= "힣")]
    return (*SPECIAL, *chars, *("##" + char for char in chars if not characters.is_isolated(char)), "ab", "##ab", "...")


@cache
def reference(vocabulary: tuple[str, ...], cased: bool) -> WordPiece:
    return WordPiece(Vocabulary.from_tokens(list(vocabulary)), cased)


def expected(texts: list[str], vocabulary: tuple[str, ...], cased: bool) -> list[list[int]]:
    found = reference(vocabulary, cased).encode([clean_in_python(text).replace("\n", " ") for text in texts])
    return [part.tolist() for part in np.split(found.ids, np.cumsum(found.lengths)[:-1])] if texts else []


def pieces(texts: list[str], vocabulary: tuple[str, ...] = TINY, cased: bool = False) -> list[list[int]]:
    return ops(vocabulary, cased).tokenize(tf.constant(texts, tf.string)).to_list()


def differing(texts: list[str], vocabulary: tuple[str, ...], cased: bool) -> list[str]:
    """Return the texts for which the two tokenizers differ."""
    found, wanted = pieces(texts, vocabulary, cased), expected(texts, vocabulary, cased)
    return [text for text, one, other in zip(texts, found, wanted, strict=True) if one != other]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("ab A.", [0, 2, 0, 6]),
        ("aB\u00adb", [0, 2, 2]),
        ("a\nb\r\nc", [0, 1, 4]),
        ("a\x00\x07b", [0, 2]),
        ("\x00\x01\x7f", []),
        ("É", [UNK]),
        ("a\u0301 Á", [0, 0]),
        ("ΣΣ Σ", [8, 11, 8]),
        ("ΣΣ'Σ", [8, 10, UNK, 9]),  # the sigma before the apostrophe isn't the last letter of its word
        ("a≠中b", [0, 14, 13, 1]),  # NFD decomposes it into `=` and an overlay
        ("a=b", [0, 14, 1]),
        ("[MASK]", [19, UNK, UNK]),
        ("[SEP] [PAD]", [19, UNK, UNK, 19, UNK, UNK]),
        ("İ", [18]),
        ("b" * 200, [1, *[2] * 199]),
        ("b" * 201, [UNK]),
        ("a " + "b" * 10_000 + ".", [0, UNK, 6]),
        ("b" * 150 + "." + "b" * 150, [1, *[2] * 149, 6, 1, *[2] * 149]),
        ("é" * 200, [UNK]),
    ],
)
def test_token_values(text: str, found: list[int]) -> None:
    assert pieces([text]) == [found]
    assert expected([text], TINY, False) == [found]


def test_cased_token_values() -> None:
    assert pieces(["Aab É é e\u0301 中", "Σ"], cased=True) == [[UNK, UNK, 16, 16, 13], [UNK]]
    assert pieces(["A a É"], cased=True) == expected(["A a É"], TINY, True) == [[17, 0, UNK]]


EVERY = [(cased, private, 1) for cased, private in product((False, True), repeat=2)]


@pytest.mark.parametrize(("cased", "private", "step"), mostly_slow_rows([*EVERY, (False, False, 5)], (False, False, 5)))
def test_every_character(cased: bool, private: bool, step: int) -> None:
    """Alone, within a word, and before an accent. `private`: those for private use, which are half of them."""
    kinds = {chr(code): unicodedata.category(chr(code)) for code in range(0x110000)}
    chars = [char for char, kind in kinds.items() if kind not in ("Cn", "Cs") and (kind == "Co") == private][::step]
    texts = [" ".join(f"{char} a{char}b {char}\u0301\u0323" for char in chars[at : at + 50]) for at in range(0, len(chars), 50)]
    assert differing(texts, rich(), cased) == []


def located(texts: list[str], vocabulary: tuple[str, ...], cased: bool) -> list[list[tuple[int, int, int]]]:
    """Return (piece, start, end) of each piece of clean texts, from the Python tokenizer."""
    found = reference(vocabulary, cased).encode(texts, offsets=True, by_piece=True)
    rows = list(zip(found.ids.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True))
    return [rows[end - length : end] for length, end in zip(found.lengths, np.cumsum(found.lengths), strict=True)]


@cache
def places(cased: bool):
    """The pieces with their places as a graph, as in an export: eagerly, each text takes many times as long."""
    return tf.function(ops(rich(), cased).tokenize_with_places, input_signature=[TEXTS], autograph=False)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(TEXT, min_size=1, max_size=4), st.booleans(), st.sampled_from([0, 199, 201, 300]))
def test_piece_offsets_match_the_python_tokenizer(texts: list[str], cased: bool, long: int) -> None:
    texts = [text.decode() for text in clean(tf.constant([*texts, "é" * long + "a.b"])).numpy()]
    columns = places(cased)(tf.constant(texts))
    found = [list(zip(*row, strict=True)) for row in zip(*(column.to_list() for column in columns), strict=True)]
    assert found == located(texts, rich(), cased)


@settings(max_examples=75, deadline=None, derandomize=True)
@given(st.lists(TEXT, max_size=12), st.booleans())
def test_any_text(texts: list[str], cased: bool) -> None:
    assert differing(texts, rich(), cased) == []
    assert differing(texts, TINY, cased) == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.text("ΣΑασς'ʰ\u0345. \u0301İ1-中\u200b", max_size=12), min_size=1, max_size=20))
def test_final_sigmas(texts: list[str]) -> None:
    assert differing(texts, rich(), False) == []


WORDS = st.lists(st.text("aébς中≠.", min_size=1, max_size=4), unique=True, max_size=8)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(WORDS, WORDS, st.lists(TEXT, min_size=1), st.booleans())
def test_any_vocabulary(words: list[str], parts: list[str], texts: list[str], cased: bool) -> None:
    vocabulary = tuple(dict.fromkeys([*words, *SPECIAL, *("##" + part for part in parts), "##"]))
    texts = [*texts, "".join(words) + "".join(parts), " ".join(words), *("".join(words[:1]) + part for part in parts)]
    found = TextOps(vocabulary, cased, 9).tokenize(tf.constant(texts)).to_list()
    assert found == expected(texts, vocabulary, cased)


@pytest.mark.slow
@pytest.mark.parametrize("cased", [False, True])
@pytest.mark.skipif(not DATA.exists(), reason="needs the data for measurements")
def test_real_text(cased: bool) -> None:
    with gzip.open(DATA / "vital-articles.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(400), strict=False)]
    assert differing(texts, tuple(dict.fromkeys([*rich(), *tokens()])), cased) == []


def test_clean_values() -> None:
    texts = ["  a\u0301\t\n\x00b\u3000 c\u200b ", "", "\x00", "a b", b"a\xff\xc3b"]
    assert clean(tf.constant(texts)).numpy().tolist() == [s.encode() for s in ("á b c", "", "", "a b", "ab")]


def test_invalid_utf8_is_dropped() -> None:
    assert pieces([b"a\xffb", b"\xc3", b"ab"]) == [[0, 2], [], [0, 2]]


def test_newer_unicode_characters_do_not_affect_their_neighbours() -> None:
    """The library treats U+0897 (Unicode 16) as an accent, and would combine `=` with the overlay after it."""
    texts = ["=\u0897\u0338", "a\u0897\u0338b a"]
    assert pieces(texts, TINY, True) == expected(texts, TINY, True) == [[14, UNK], [UNK, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("char", ["\u1b4e", "\u1b7f", "\U00010ed0"])
def test_newer_unicode_punctuation_does_not_split_words(char: str) -> None:
    """Punctuation in Unicode 16 or 17, unassigned in Python: in the vocabulary it is replaced by another character."""
    vocabulary = (*SPECIAL, "a", "##" + char, "##a", char)
    assert pieces([f"a{char}a {char}"], vocabulary) == expected([f"a{char}a {char}"], vocabulary, False) == [[5, 6, 7, 8]]


def test_mask_values() -> None:
    texts = ["a [MASK].", "b[MASK]b[MASK]", "", "[MASK]", "[mask]", "中[MASK] "]
    found = [[0, MASK, 6], [1, MASK, 1, MASK], [], [MASK], [19, UNK, UNK], [13, MASK]]
    assert ops().tokenize_masked(tf.constant(texts)).to_list() == found


def packed(first: list[list[int]], second: list[list[int]], length: int = 0, longest: int = 7) -> dict[str, list]:
    ragged = (tf.ragged.constant(rows, tf.int32, ragged_rank=1) for rows in (first, second))
    return {name: value.numpy().tolist() for name, value in ops(TINY, False, longest).pack(*ragged, length).items()}


def test_pack_values() -> None:
    found = packed([[1], [1, 1], []], [[], [4], []])
    assert found == {
        "input_ids": [[CLS, 1, SEP, PAD, PAD, PAD], [CLS, 1, 1, SEP, 4, SEP], [CLS, SEP, PAD, PAD, PAD, PAD]],
        "input_mask": [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]],
        "segment_ids": [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
    }
    assert packed([[1] * 9], [[]])["input_ids"] == [[CLS, *[1] * 5, SEP]]
    assert packed([[1]], [[]], 5)["input_ids"] == [[CLS, 1, SEP, PAD, PAD]]
    assert packed([[1] * 9], [[]], 4)["input_ids"] == [[CLS, 1, 1, SEP]]
    assert packed([], []) == {"input_ids": [], "input_mask": [], "segment_ids": []}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8), st.integers(5, 16))
def test_a_pair_loses_pieces_from_the_longer_one(sizes: list[tuple[int, int]], longest: int) -> None:
    first, second = ([[4 + side] * size[side] for size in sizes] for side in (0, 1))
    found = packed(first, second, 0, longest)
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        a, b = list(a), list(b)
        paired = bool(b)
        while len(a) + len(b) > longest - 2 - paired:
            (a if len(a) > len(b) else b).pop()
        ids = [CLS, *a, SEP, *b, *[SEP] * paired]
        kinds = [0] * (len(a) + 2) + [1] * (len(b) + paired)
        fill = len(found["input_ids"][row]) - len(ids)
        assert found["input_ids"][row] == ids + [PAD] * fill
        assert found["segment_ids"][row] == kinds + [0] * fill
        assert found["input_mask"][row] == [1] * len(ids) + [0] * fill
    assert min(row.count(0) for row in found["input_mask"]) == 0


def test_dense_of_strings() -> None:
    ragged = tf.RaggedTensor.from_row_lengths(["x", "y", "z"], [2, 0, 1])
    assert dense(ragged, 2, "").numpy().tolist() == [[b"x", b"y"], [b"", b""], [b"z", b""]]


def test_invalid_vocabularies_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"lacks \[SEP\], \[MASK\]"):
        TextOps(("[PAD]", "[UNK]", "[CLS]"), False, 8)
    with pytest.raises(ValueError, match="256 bytes"):
        TextOps((*SPECIAL, "中" * 10, "é" * 150), False, 8)


@pytest.mark.slow
def test_private_characters_differ_from_the_vocabulary() -> None:
    assert Characters(("\ue000a", "##\ue001"), False, {}).unknown == "\ue002"
    vocabulary = (*SPECIAL, "\ue000")
    assert pieces(["\ue000 \ue001 é"], vocabulary) == expected(["\ue000 \ue001 é"], vocabulary, False) == [[5, 1, 1]]


RULES = [
    (True, TextRules(strip_accents=True, max_word_chars=5)),
    (False, TextRules(strip_accents=False, tokenize_chinese_chars=False, library=True, max_word_chars=100)),
]
MIXED = (
    *SPECIAL,
    *"aAéÉeEiIİσςΣ中水b.,ñ",
    *(f"##{char}" for char in "aAéÉeE\u0301\u0307iİσςΣ中水bñ"),
    "\u0301",
    "水中",
    "##中水",
)


@pytest.mark.parametrize(("cased", "rules"), mostly_slow_rows(RULES, RULES[1]))
def test_other_rules_match_the_python_tokenizer(cased: bool, rules: TextRules) -> None:
    texts = [
        *(
            "aé É e\u0301 İ iİΣ ΣaΣ. Σ",
            "a中b 水中a水 中水",
            "\ue000a \x0bb\x85 \x1ca",
            "b" * 5 + " " + "b" * 6 + " " + "é" * 101,
        ),
        *("".join(ODD[at : at + 5]) for at in range(0, len(ODD), 5)),
    ]
    graph = TextOps(MIXED, cased, 64, rules, segments=1)
    found = graph.tokenize(tf.constant(texts)).to_list()
    assert found == [ids.tolist() for ids in TextEncoder(Vocabulary.from_tokens(list(MIXED)), cased, 64, rules).ids(texts)]
    none, pair = graph.tokenize(tf.constant([""])), graph.tokenize(tf.constant(["a"]))
    assert graph.pack(pair, none)["segment_ids"].numpy().sum() == 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="only one segment"):
        graph.pack(pair, pair)
