import gzip
import hashlib
import itertools
import json
import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.text import wordpiece
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.sentences import split
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from clozemill.pipelines.text.wordpiece import Encoded, WordPiece
from tests import reference_tokenizer
from tests.slow import mostly_slow

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("CLOZEMILL_DATA", ROOT.parent / "shared" / "data"))

# A layout like bert-base-uncased's: the special tokens are not the first five.
LAYOUT = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused99]", "[unused100]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGMΑΣασςßéİıñʼкЖ가각가𐐀𐐨", "o\u0308"]
PIECES = [
    *LETTERS,
    *("##" + letter for letter in LETTERS),
    *"中文豈丽.,!?;:'\"“”’—…-#[]()=<`^$。、",
    "🙂",
    "##🙂",
    "½",
    "№",
    "fi",
    "…",
]
PIECES += [
    "un",
    "##aff",
    "##able",
    "the",
    "quick",
    "##ick",
    "qu",
    "st",
    "strasse",
    "straße",
    "##sse",
    "ing",
    "##ing",
    "ed",
    "##ed",
]
TOKENS = LAYOUT + list(dict.fromkeys(PIECES))
VOCABULARY = Vocabulary.from_tokens(TOKENS)
IDS = {token: number for number, token in enumerate(TOKENS)}
ENCODERS = {cased: WordPiece(VOCABULARY, cased) for cased in (False, True)}  # kept, so that their caches are filled


def reference(sentences: list[str], cased: bool, ids: dict[str, int] = IDS) -> list[list[int]]:
    return [reference_tokenizer.tokenize(sentence, ids, cased) for sentence in sentences]


def as_lists(encoded: Encoded) -> list[list[int]]:
    edges = np.concatenate([[0], np.cumsum(encoded.lengths)])
    assert edges[-1] == len(encoded.ids)
    return [encoded.ids[low:high].tolist() for low, high in itertools.pairwise(edges)]


def check(sentences: list[str], cased: bool) -> None:
    plain = ENCODERS[cased].encode(sentences)
    assert plain.starts is None and plain.ends is None
    assert as_lists(plain) == reference(sentences, cased)
    words = ENCODERS[cased].encode(sentences, offsets=True)
    check_offsets(sentences, cased, words, plain)
    pieces = ENCODERS[cased].encode(sentences, offsets=True, by_piece=True)
    assert pieces.ids.tolist() == plain.ids.tolist() and pieces.lengths.tolist() == plain.lengths.tolist()
    assert (words.starts <= pieces.starts).all() and (pieces.ends <= words.ends).all() and (pieces.starts < pieces.ends).all()


def check_offsets(sentences: list[str], cased: bool, encoded: Encoded, plain: Encoded) -> None:
    assert encoded.ids.tolist() == plain.ids.tolist()
    assert encoded.lengths.tolist() == plain.lengths.tolist()
    place = 0
    for sentence, length in zip(sentences, encoded.lengths.tolist(), strict=True):
        spans = list(
            zip(encoded.starts[place : place + length].tolist(), encoded.ends[place : place + length].tolist(), strict=True)
        )
        place += length
        words = reference_tokenizer.basic_tokens(sentence, cased)
        of_pieces = [word for word in words for _ in reference_tokenizer.word_pieces(word, IDS)]
        for (start, end), word in zip(spans, of_pieces, strict=True):
            assert 0 <= start < end <= len(sentence)
            assert word in reference_tokenizer.basic_tokens(lowered_there(sentence, cased)[start:end], cased)
        assert all(a == b or a[1] <= b[0] for a, b in itertools.pairwise(spans))


def lowered_there(sentence: str, cased: bool) -> str:
    """Lower-case a slice in context: the form of a capital sigma depends on its neighbours."""
    if cased or "Σ" not in sentence:
        return sentence
    dropped = {char for char in sentence if unicodedata.category(char) == "Cc" or char == "\ufffd"} - {"\t"}
    seen = ["\xad" if char in dropped else char for char in sentence]
    lowered = "".join(seen).replace("İ", "i").lower()
    return "".join(low if char == "Σ" else char for char, low in zip(sentence, lowered, strict=True))


NO_BREAKS = st.characters(exclude_categories=("Cs",), exclude_characters="\n\r")
SPECIAL_CHARACTERS = st.sampled_from(
    "abAB ΣσςΑαİıßẞéÉñ中文豈丽가각가🙂\t.,'’\"#[]()-—…=≠≮`;·½№ﬁǅ0٣´ʼ\u0301\u0308\u0327\u0345\u200d\xad"
    "\x00\x01\x0b\x1c\x1f\x7f\x85\xa0\u2028\u2029\u3000\ufeff\ufffd\u037e"
    "\u302e\U0001d165\u1fef\u2000\u1680\u180e\U0002f800\u0387\ue000\u0378"
)
LONG = st.builds(
    lambda char, size: char * size, st.sampled_from("aé中Σ가.\u0301"), st.sampled_from([99, 100, 199, 200, 201, 402])
)
PIECE = st.one_of(st.text(NO_BREAKS, max_size=12), st.text(SPECIAL_CHARACTERS, max_size=12), st.sampled_from(PIECES), LONG)
SENTENCE = st.lists(PIECE, max_size=6).flatmap(lambda parts: st.sampled_from([" ", "", "'"]).map(lambda glue: glue.join(parts)))


@pytest.mark.parametrize("cased", [False, True])
@given(sentences=st.lists(SENTENCE, max_size=4))
@settings(max_examples=12, deadline=None)
@example(sentences=[])
@example(sentences=[""])
@example(sentences=["", "a", "", " ", "\u200b", "b"])
@example(sentences=["ΑΣ ΑΣΑ Σ ΑΣ.Α ΑΣ'Α", "Α\xadΣ", "Α\x01Σ", "Α\x00Σ\ufffdΑ", "ΑΣ\x7fΑ", "Α\u0301Σ\u0301", "中Σ", "ΑΣ中"])
@example(sentences=["İSTANBUL İΣ ΑİΣ", "ẞ Straße", "ǅ ŉ ﬁ ½ № …"])
@example(sentences=["a≠b ≮ a\u0338b =\u0338 <\u0338", "\u037e\u0387\u1fef"])
@example(sentences=["a" * 200 + " " + "a" * 201, "é" * 200, "e\u0301" * 201, "x" * 200 + "," + "x" * 201])
@example(sentences=["a\u302e\u0301b\u0301\u302e", "\U0001d158\U0001d165\u0301"])
@example(sentences=["[CLS] a [MASK] ##a #a", "a\xa0b\u3000c\u2028d\u2029e\x1cf\x85g\th"])
@example(sentences=["가각 \u1100\u1161 豈丽\U0002f800", "🙂🙂 👩\u200d👩 🇩🇪"])
def test_equals_the_reference_on_any_text(sentences: list[str], cased: bool) -> None:
    check(sentences, cased)


@pytest.mark.parametrize("cased", mostly_slow((False, True), False))
def test_equals_the_reference_on_every_character(cased: bool) -> None:
    tokens = [*SPECIAL_TOKENS, "a", "##a", "##b", "b", "i", "##i", "=", "<", ";", "·", "`"]
    ids = {token: number for number, token in enumerate(tokens)}
    chars = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code not in (10, 13)]
    sentences = ["".join(f"a{char}b " for char in chars[low : low + 500]) for low in range(0, 0x31000, 500)]
    sentences += ["".join(f"a{char}b " for char in chars[0xE0000 - 0x800 - 2 :][:1000])]
    assert as_lists(WordPiece(Vocabulary.from_tokens(tokens), cased).encode(sentences)) == reference(sentences, cased, ids)


ENGLISH = [
    "The quick brown fox jumps over the lazy dog.",
    "“Unaffable,” she said — didn't she? — “but un-affable, too…”",
    "It cost $3.50 (about €3.20) in 1999; by 2024, it's #1 at 100%!",
    "Visit http://example.org/a_b?c=d&e=[f] or write to a.b@example.org.",
    "Café, naïve, façade, Zoë and the São Paulo/Kraków flights.",
    "He muttered: 'Mr. O'Neill's e.g. U.S. A.B.C. affair^2 ~ <tag> {x|y} \\ `z`'",
    "Temperatures of −5 °C to ½ × 10³ m², №7, ™ and ©.",
    "中文 and 日本語 and 한국어 and Ελληνικά, all in one line",
    "a" * 150 + " " + "b" * 200 + " " + "c" * 201,
]


@pytest.mark.parametrize("cased", [False, True])
def test_equals_hugging_face_on_english(cased: bool) -> None:
    peer = Tokenizer(models.WordPiece(vocab=IDS, unk_token="[UNK]", max_input_chars_per_word=200))
    peer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    peer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    expected = [peer.encode(sentence, add_special_tokens=False).ids for sentence in ENGLISH]
    assert as_lists(WordPiece(VOCABULARY, cased).encode(ENGLISH)) == expected == reference(ENGLISH, cased)


def real_sentences(limit: int) -> list[str]:
    path = DATA / "vital-articles.jsonl.gz"
    if not path.exists():
        pytest.skip("no real data: set CLOZEMILL_DATA to its folder")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [clean(json.loads(line)["text"]) for line in itertools.islice(file, limit)]
    return [text[low:high] for text in texts for low, high in split(text, "sentencex")]


@pytest.mark.slow
@pytest.mark.parametrize("cased", [False, True])
def test_equals_the_reference_on_real_text(cased: bool) -> None:
    sentences = real_sentences(700)
    words = Counter(word for sentence in sentences for word in reference_tokenizer.basic_tokens(sentence, cased))
    chars = sorted({char for word in words for char in word if words[word] > 2})
    tokens = [*SPECIAL_TOKENS, *chars, *("##" + char for char in chars)]
    tokens += [word for word, _ in words.most_common(6000) if len(word) > 1]
    tokens += [f"##{word[-3:]}" for word, _ in words.most_common(3000) if len(word) > 4]
    tokens = list(dict.fromkeys(tokens))
    expected = reference(sentences, cased, {token: number for number, token in enumerate(tokens)})
    encoder = WordPiece(Vocabulary.from_tokens(tokens), cased)
    found = [ids for low in range(0, len(sentences), 1000) for ids in as_lists(encoder.encode(sentences[low : low + 1000]))]
    assert sum(mine != theirs for mine, theirs in zip(found, expected, strict=True)) == 0


def test_literal_ids() -> None:
    encoded = WordPiece(VOCABULARY).encode(["Unaffable,", "", "The QUICK xx 漢"], offsets=True)
    names = [TOKENS[number] for number in encoded.ids]
    assert names == ["un", "##aff", "##able", ",", "the", "quick", "x", "##x", "[UNK]"]
    assert encoded.lengths.tolist() == [4, 0, 5]
    assert encoded.starts.tolist() == [0, 0, 0, 9, 0, 4, 10, 10, 13]
    assert encoded.ends.tolist() == [9, 9, 9, 10, 3, 9, 12, 12, 14]
    assert (encoded.ids.dtype, encoded.lengths.dtype) == (np.int32, np.int64)
    assert (encoded.starts.dtype, encoded.ends.dtype) == (np.int64, np.int64)


def test_literal_offsets_of_pieces() -> None:
    encoded = WordPiece(VOCABULARY).encode(["Unaffable,", "", "The QU\u00ed\u0301ck xx 漢xyж가"], offsets=True, by_piece=True)
    names = [TOKENS[number] for number in encoded.ids]
    assert names == ["un", "##aff", "##able", ",", "the", "quick", "x", "##x", "[UNK]", "[UNK]"]
    assert encoded.starts.tolist() == [0, 2, 5, 9, 0, 4, 11, 12, 14, 15]
    assert encoded.ends.tolist() == [2, 5, 9, 10, 3, 10, 12, 13, 15, 19]
    assert (encoded.starts.dtype, encoded.ends.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize("sentences", [[], [""], ["", ""], [" "], ["\u200b", "\x00"]])
def test_sentences_without_pieces(sentences: list[str]) -> None:
    encoded = WordPiece(VOCABULARY).encode(sentences, offsets=True)
    assert encoded.lengths.tolist() == [0] * len(sentences)
    assert len(encoded.ids) == len(encoded.starts) == len(encoded.ends) == 0


def test_a_new_cache_does_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [ENGLISH[low : low + 2] * 2 for low in range(0, len(ENGLISH), 2)] * 2
    expected = [as_lists(WordPiece(VOCABULARY).encode(batch)) for batch in batches]
    monkeypatch.setattr(wordpiece, "CACHE_CHUNKS", 5)
    encoder = WordPiece(VOCABULARY)
    assert [as_lists(encoder.encode(batch)) for batch in batches] == expected
    fresh = [WordPiece(VOCABULARY) for _ in batches]
    for batch, other in zip(batches, fresh, strict=True):
        one, two = (each.encode(batch, offsets=True, by_piece=True) for each in (encoder, other))
        assert one.starts.tolist() == two.starts.tolist() and one.ends.tolist() == two.ends.tolist()


def test_special_tokens_are_found_by_name() -> None:
    v = VOCABULARY
    assert (v.pad_id, v.unk_id, v.cls_id, v.sep_id, v.mask_id) == (0, 100, 101, 102, 103)
    assert v.special_ids.tolist() == [0, 100, 101, 102, 103] == np.flatnonzero(v.is_special).tolist()
    assert len(v) == len(v.is_special) == len(v.is_continuation) == len(TOKENS)
    assert np.flatnonzero(v.is_continuation).tolist() == [n for n, token in enumerate(TOKENS) if token.startswith("##")]
    assert TOKENS[v.random_ids.min()] == "a"
    assert v.random_ids.tolist() == list(range(len(LAYOUT), len(TOKENS)))
    last = Vocabulary.from_tokens(["a", "##", "[MASK]", "b", "[SEP]", "[CLS]", "[UNK]", "[unused1]", "[PAD]"])
    assert (last.pad_id, last.mask_id, last.random_ids.tolist()) == (8, 2, [0, 1, 3])
    assert not last.is_continuation.any()
    only = Vocabulary.from_tokens(list(SPECIAL_TOKENS))
    assert only.random_ids.tolist() == [0, 1, 2, 3, 4]


def test_the_narrowest_dtype() -> None:
    for size, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        tokens = [*SPECIAL_TOKENS, *(f"t{number}" for number in range(size - 5))]
        assert Vocabulary.from_tokens(tokens).dtype == np.dtype(dtype)


FIVE = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


@pytest.mark.parametrize("data", [FIVE + b"a\n", FIVE + b"a", (FIVE + b"a\n").replace(b"\n", b"\r\n"), FIVE + b"a\r\n"])
def test_line_ends_of_a_vocabulary(data: bytes) -> None:
    vocabulary = Vocabulary.from_bytes(data, "v.txt")
    assert vocabulary.tokens == (*SPECIAL_TOKENS, "a")
    assert vocabulary.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (FIVE + b"a\n\nb\n", "v.txt, line 7: the token is empty"),
        (FIVE + b"a\n \n", "v.txt, line 7: the token is empty"),
        (FIVE + b"a\r\n\r\n", "v.txt, line 7: the token is empty"),
        (FIVE + b"a\nb\na\n", "v.txt, line 8: 'a' repeats line 6"),
        (FIVE + b"[CLS]\n", "v.txt, line 6: '[CLS]' repeats line 3"),
        (FIVE + b"\xff\n", "v.txt is not UTF-8 (byte 31)"),
        (FIVE.decode().encode("utf-16"), "v.txt is not UTF-8 (byte 0)"),
        (b"[PAD]\n[UNK]\n[SEP]\n", "v.txt lacks [CLS], [MASK]"),
        (b"", "v.txt lacks [PAD], [UNK], [CLS], [SEP], [MASK]"),
    ],
)
def test_invalid_vocabulary_files_are_rejected(data: bytes, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        Vocabulary.from_bytes(data, "v.txt")
    assert str(error.value).startswith(sentence)


def test_casing_warning() -> None:
    cased = Vocabulary.from_tokens([*SPECIAL_TOKENS, "The", "the", "##s"])
    uncased = Vocabulary.from_tokens([*SPECIAL_TOKENS, "[unused1]", "the", "##s"])
    assert "--cased" in cased.casing_warning(cased=False)
    assert "remove --cased" in uncased.casing_warning(cased=True)
    assert cased.casing_warning(cased=True) == uncased.casing_warning(cased=False) == ""


def test_a_line_break_within_a_sentence_is_rejected() -> None:
    with pytest.raises(ValueError, match="line break"):
        WordPiece(VOCABULARY).encode(["a\nb", "c"])


def test_a_byte_order_mark_is_not_part_of_the_first_token() -> None:
    assert Vocabulary.from_bytes(b"\xef\xbb\xbf" + FIVE, "v.txt").tokens[0] == "[PAD]"


@pytest.mark.parametrize("strip", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
@pytest.mark.parametrize("cased", [True, False])
def test_rules_match_the_reference(cased: bool, strip: bool | None, chinese: bool) -> None:
    """Accents and ideographs, independent of casing. İ, which becomes two characters in lower case, keeps its offsets."""
    texts = ["Ünde ÀÉ İstanbul ΑΣ İΣ ΟΔΟΣ", "a水b 水车 ﾊ一", "e\u0301 E\u0323\u0301 İ", "Σ'Σ İİΣ. naïve-Æ"]
    chars = sorted({part for text in texts for char in text for part in (char, *char.lower(), *char.upper())} - {" "})
    chars = sorted({*chars, *unicodedata.normalize("NFD", "".join(chars)), "ς"})
    tokens = [*SPECIAL_TOKENS, *chars, *("##" + char for char in chars)]
    ids = {token: index for index, token in enumerate(tokens)}
    encoded = WordPiece(Vocabulary.from_tokens(tokens), cased, TextRules(strip, chinese)).encode(texts, offsets=True)
    expected = [
        [
            ids[p]
            for w in reference_tokenizer.basic_tokens(text, cased, strip, chinese)
            for p in reference_tokenizer.word_pieces(w, ids)
        ]
        for text in texts
    ]
    assert as_lists(encoded) == expected
    ends = np.split(encoded.ends, np.cumsum(encoded.lengths)[:-1])
    assert all(found.max() <= len(text) for text, found in zip(texts, ends, strict=True))


def test_the_maximum_word_length_is_a_rule() -> None:
    tokens = Vocabulary.from_tokens([*SPECIAL_TOKENS, "a", "##a", "a" * 6])
    assert as_lists(WordPiece(tokens, False, TextRules(max_word_chars=5)).encode(["aaaaa aaaaaa"])) == [[5, 6, 6, 6, 6, 1]]
