"""A tokenizer.json that isn't WordPiece gives the library's ids and offsets; words have no space around them."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data import text_encoder
from clozemill.trainers.data.library_tokenizer import LibraryTokenizer
from clozemill.trainers.data.text_encoder import TextEncoder
from tests.model import byte_level

VOCABULARY = Vocabulary.from_tokens(list(byte_level.tokens()))
TOKENIZER = LibraryTokenizer(byte_level.tokenizer_json())
ENCODER = TextEncoder(VOCABULARY, True, 8, tokenizer=byte_level.tokenizer_json())
PIECES = [
    "the",
    " mill",
    "The ",
    " ",
    "    ",
    "\n",
    "[MASK]",
    "[SEP]",
    "[unused0]",
    "<|padding|>",
    "é",
    "e\u0301",
    "각",
    "😀",
    "👩\u200d🌾",
    "ab1!",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)


def changed(**changes: object) -> bytes:
    return json.dumps(json.loads(byte_level.tokenizer_json()) | changes).encode()


def plain(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def located(text: str, by_piece: bool) -> list[tuple[str, str]]:
    """Return each token and its text."""
    ((ids, starts, ends),) = ENCODER.with_offsets([text], by_piece)
    return [(VOCABULARY.tokens[index], text[begin:end]) for index, begin, end in zip(ids, starts, ends, strict=True)]


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4))
@example(["", "\ud800", "  ", "a\ud800b"])
def test_ids_match_the_library(texts: list[str]) -> None:
    expected = [byte_level.library().encode(plain(text), add_special_tokens=False).ids for text in texts]
    assert [ids.tolist() for ids in ENCODER.ids(texts)] == expected
    assert [ids.tolist() for ids, _, _ in ENCODER.with_offsets(texts)] == expected
    found = TOKENIZER.encode(texts)
    assert found.ids.dtype == np.int32 and found.lengths.tolist() == [len(ids) for ids in expected] and found.starts is None


@settings(deadline=None)
@given(TEXTS)
@example("e\u0301 각\u0301")
def test_offsets_match_the_library_without_white_space(text: str) -> None:
    theirs = byte_level.library().encode(plain(text), add_special_tokens=False)
    ((_, starts, ends),) = ENCODER.with_offsets([text], by_piece=True)
    assert starts.dtype == ends.dtype == np.int64
    seen: set[int] = set()
    for begin, end, (first, last) in zip(starts, ends, theirs.offsets, strict=True):
        assert 0 <= begin < end <= len(text)
        own = text[begin:end]
        assert own.strip() == own or not own.strip()
        assert text[first:last].strip() in own and text[first:begin].strip() == ""
        seen |= set(range(begin, end))
    assert all(char.isspace() for place, char in enumerate(text) if place not in seen)  # no character is lost
    ((_, begins, stops),) = ENCODER.with_offsets([text])
    white = np.array([not text[begin:end].strip() for begin, end in zip(starts, ends, strict=True)], bool)
    assert all((stops >= ends) | white) and all((begins <= starts) | white)
    words = theirs.word_ids
    assert all((begins[n] == begins[n + 1]) for n in range(len(words) - 1) if words[n] == words[n + 1])


def test_literal_spans() -> None:
    text = "The  mill\n\nrotates, e\u0301! 😀"
    pieces = [
        ("The", "The"), ("['  ']", "  "), ("mil", "mil"), ("l", "l"), ("Ċ", "\n"), ("Ċ", "\n"), ("rot", "rot"), ("a", "a"),
        ("t", "t"), ("e", "e"), ("s", "s"), (",", ","), ("Ġ", " "), ("Ã", "e\u0301"), ("©", "e\u0301"), ("!", "!"), ("Ġ", " "),
        ("ð", "😀"), ("Ł", "😀"), ("ĺ", "😀"), ("Ģ", "😀"),
    ]  # fmt: skip
    assert located(text, True) == pieces
    words = ["The", "  ", *["mill"] * 2, "\n", "\n", *["rotates"] * 5, ",", *["e\u0301"] * 3, "!", *["😀"] * 5]
    assert located(text, False) == [(token, word) for (token, _), word in zip(pieces, words, strict=True)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(["the", " mill", "  ", "\n", "[MASK]", "x", "é", " \t ", "    "]), min_size=1, max_size=40),
    st.integers(1, 30),
)
def test_the_beginning_of_a_long_text_fills_a_row(parts: list[str], size: int) -> None:
    text = "".join(parts)
    before, text_encoder._PART = text_encoder._PART, size
    try:
        assert np.array_equal(ENCODER.pairs([ENCODER.beginning(text)])["input_ids"], ENCODER.pairs([text])["input_ids"])
    finally:
        text_encoder._PART = before


def test_a_tokenizer_that_does_not_split_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first tokens may depend on the whole text."""
    encoder = TextEncoder(VOCABULARY, True, 8, tokenizer=changed(pre_tokenizer=None))
    monkeypatch.setattr(text_encoder, "_PART", 10)
    text = "the mill " * 20
    assert encoder.beginning(text) == text and len(ENCODER.beginning(text)) < 100


def test_masks() -> None:
    """As in transformers, the space before [MASK] is part of it; the space after it belongs to the next word."""
    mask = VOCABULARY.mask_id
    texts = ["The [MASK] is", "[MASK][MASK]", "a[MASK]", "", "[SEP] is text"]
    found = [ids.tolist() for ids in ENCODER.ids(texts, masks=True)]
    ids = {text: TOKENIZER.encode([text]).ids.tolist() for text in ("The", " is", "a", "[SEP] is text")}
    assert found == [[*ids["The"], mask, *ids[" is"]], [mask, mask], [*ids["a"], mask], [], ids["[SEP] is text"]]
    assert mask not in TOKENIZER.encode(texts).ids
    surfaces = {"Ġthe": " the", "['  ']": "  ", "[SEP]": "[SEP]", "[unused1]": "[unused1]"}
    assert {token: ENCODER.surface(VOCABULARY.ids[token]) for token in surfaces} == surfaces


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}


def replace(text: str, content: str) -> dict:
    return {"type": "Replace", "pattern": {"String": text}, "content": content}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "can't be read (Expecting value"),
        (b"[]", "is not a JSON object: copy it again"),
        (b"\xff", "can't be read ("),
        (b"[" * 100_000, "can't be read ("),
        (b'{"model": {"type": "BPE"}, "decoder": ' + b'{"type": "Sequence", "decoders": [' * 900 + b"]}" * 900 + b"}",
         ""),  # Python's versions have different limits
        (changed(model={"type": "X"}), "has the model 'X', which"),
        (changed(model=json.loads(byte_level.tokenizer_json())["model"] | {"dropout": 0.1}), "has a dropout of 0.1, which"),
        (changed(a="\ud800"), "can't be read ("),
        (changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "has the normalizer 'Precompiled'"),
        (changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [{}]}), "has the pre_tokenizer None, which clozemill"),
        (changed(normalizer={"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}), "has a Replace of {'Regex'"),
        (changed(normalizer={"type": "Prepend", "prepend": ""}), "has a Prepend of '', and clozemill accepts only texts there"),
        (changed(normalizer=replace("", "x")), "has a Replace of {'String': ''}, and clozemill accepts only texts there"),
        (changed(normalizer={"type": "Sequence", "normalizers": [replace("a", "a" * 10)] * 4}), "replaces characters by more"),
        (changed(model=json.loads(byte_level.tokenizer_json())["model"] | {"continuing_subword_prefix": "##"}),
         "has the continuing_subword_prefix '##', which clozemill doesn't support"),
    ],
)  # fmt: skip
def test_damaged_and_hostile_files(data: bytes, sentence: str) -> None:
    """Some of them would make the library end the process, or fill the memory."""
    with pytest.raises(UserError) as refused:
        LibraryTokenizer(data, "folder/x")
    assert str(refused.value).startswith(f"folder/x: tokenizer.json {sentence}") and "\n" not in str(refused.value)


def test_an_expression_that_takes_too_long() -> None:
    with pytest.raises(UserError, match=r"can't tokenize a text .*retry-limit"):
        LibraryTokenizer(changed(pre_tokenizer=SPLIT)).encode(["a" * 60 + "b"])


def test_a_tokenizer_that_fails_on_a_text() -> None:
    told = changed(model={"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}, added_tokens=[])
    with pytest.raises(UserError, match=r"can't tokenize a text .*unk_id"):
        LibraryTokenizer(told).encode(["b"])
