import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.unicode_rules import is_cjk, is_punctuation
from clozemill.pipelines.text.pretokenizer import Chunker
from tests import reference_tokenizer

SURROGATES = range(0xD800, 0xE000)
TEXT = st.one_of(
    st.text(max_size=60),
    st.text(
        st.sampled_from("abAB ΣσİßéÉ中가🙂\n\t.,'=≠\u0301\x00\x1c\x85\xa0\u2028\u3000\xad\ufffd\U0002f800\u2000\u037e"),
        max_size=60,
    ),
)


def test_every_character_has_the_class_of_the_reference() -> None:
    for code in (*range(0x32000), *range(0xE0000, 0xE0200)):  # no character is assigned between these
        if code not in SURROGATES:
            char = chr(code)
            isolated = reference_tokenizer.basic_tokens(f"a{char}b", cased=True) == ["a", char, "b"]
            assert isolated == (is_punctuation(char) or is_cjk(code)), hex(code)


def test_literal() -> None:
    chunker = Chunker(cased=False)
    text = "Don't  stop,\n中文x… Ünï\u200bcode ≠ \U0001f642"
    chunks = chunker(text)
    assert chunks.words.to_pylist() == ["don", "'", "t", "stop", ",", "中", "文", "x", "…", "Ünï\u200bcode", "≠", "🙂"]
    words = [word for chunk in chunks.words.to_pylist() for word in chunker.normalise(chunk)]
    assert words == ["don", "'", "t", "stop", ",", "中", "文", "x", "…", "unicode", "=", "🙂"]
    spans = zip(chunks.characters(chunks.starts).tolist(), chunks.characters(chunks.ends).tolist(), strict=True)
    assert [text[low:high].lower() for low, high in spans] == [word.lower() for word in chunks.words.to_pylist()]


def test_cased_text_keeps_case_and_accents() -> None:
    chunker = Chunker(cased=True)
    chunks = chunker("Ünï\xadcode ΑΣ İ ≠").words.to_pylist()
    assert [chunker.normalise(chunk) for chunk in chunks] == [["Ünïcode"], ["ΑΣ"], ["İ"], ["≠"]]


@pytest.mark.parametrize("cased", [False, True])
@given(text=TEXT)
@settings(max_examples=300, deadline=None)
@example(text="")
@example(text="\n\n")
@example(text="Α\x01Σ ΑΣ\x7fΑ")
@example(text="İ\u2028İ a\x0bb")
def test_normalised_chunks_match_the_reference(text: str, cased: bool) -> None:
    chunker = Chunker(cased)
    chunks = chunker(text)
    words = [word for chunk in chunks.words.to_pylist() for word in chunker.normalise(chunk)]
    assert words == reference_tokenizer.basic_tokens(text, cased)
    for chunk in chunks.words.to_pylist():
        located = chunker.normalise_with_places(chunk)
        assert [word for word, _, _ in located] == chunker.normalise(chunk)
        for word, begins, ends in located:
            assert len(word) == len(begins) == len(ends) and sorted(begins) == list(begins)
            assert all(0 <= begin < end <= len(chunk) for begin, end in zip(begins, ends, strict=True))
    assert (chunks.starts[1:] >= chunks.ends[:-1]).all()
    assert (chunks.starts < chunks.ends).all()
    found = [bytes(chunks.data[low:high]).decode() for low, high in zip(chunks.starts, chunks.ends, strict=True)]
    assert found == chunks.words.to_pylist()
    places = list(zip(chunks.characters(chunks.starts).tolist(), chunks.characters(chunks.ends).tolist(), strict=True))
    assert [high - low for low, high in places] == [len(word) for word in found]
    assert all(0 <= low < high <= len(text) for low, high in places)
    if cased:
        assert [text[low:high] for low, high in places] == found


@pytest.mark.parametrize(
    ("chunk", "cased", "located"),
    [
        ("mill", False, [("mill", (0, 1, 2, 3), (1, 2, 3, 4))]),
        ("Ünï\u200bc", False, [("unic", (0, 1, 2, 4), (1, 2, 4, 5))]),
        ("u\u0308\u0323ni\u0308", False, [("uni", (0, 3, 4), (3, 4, 6))]),
        ("u\u0308n", True, [("u\u0308n", (0, 1, 2), (1, 2, 3))]),
        ("\u0301ab", False, [("ab", (1, 2), (2, 3))]),
        ("가각", False, [("\u1100\u1161\u1100\u1161\u11a8", (0, 0, 1, 1, 1), (1, 1, 2, 2, 2))]),
        ("a≠b", False, [("a", (0,), (1,)), ("=", (1,), (2,)), ("b", (2,), (3,))]),
        ("İx", False, [("ix", (0, 1), (1, 2))]),
        ("\u0301\u0308", False, []),
        ("a\u302e\u0323b", False, [("a\u302eb", (0, 1, 3), (1, 3, 4))]),  # the tone mark is sorted after the dot below
    ],
)
def test_literal_offsets_of_normalised_characters(chunk: str, cased: bool, located: list) -> None:
    assert Chunker(cased).normalise_with_places(chunk) == located


def test_a_long_chunk_is_normalised_in_linear_time() -> None:
    """Very many characters without a space: a quadratic loop would take hours."""
    ((word, begins, _),) = Chunker(False).normalise_with_places("é" * 200_000)
    assert word == "e" * 200_000 and begins == tuple(range(200_000))


def test_texts_joined_by_line_breaks_don_t_influence_each_other() -> None:
    texts = ["ΑΣ", "Α", "a\u0301", "\u0301b", "x" * 100, "", "Σ"]
    chunker = Chunker(cased=False)

    def words(text: str) -> list[str]:
        return [word for chunk in chunker(text).words.to_pylist() for word in chunker.normalise(chunk)]

    assert words("\n".join(texts)) == [word for text in texts for word in words(text)]


def test_lone_surrogates_are_dropped() -> None:
    assert Chunker(cased=False)("a\ud800b").words.to_pylist() == ["ab"]
