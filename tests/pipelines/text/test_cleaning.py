import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.text.cleaning import clean

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
ANY = st.characters(exclude_categories=())  # lone surrogates too
AWKWARD = st.sampled_from(
    [*BREAKS, *" \t\xa0\u3000\u1680\u2000ae\u0301\u0323\xad\x00\x1f\x7f\ufffd\ufeff\ud800\udc00e\u0301가\u1100\u1161\u037e"]
)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("", ""),
        (" \t\n\x00 \n", ""),
        ("plain text.", "plain text."),
        ("  two  spaces ", "two spaces"),
        ("a\tb\xa0c\u3000d\u2009e", "a b c d e"),
        ("one\n\n \ntwo\n", "one\ntwo"),
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h\x1ci", "a\nb\nc\nd\ne\nf\ng\nh\ni"),
        ("so\xadft\u200b \ufeffhyphen\ufffd\x00\x1f\x7f", "soft hyphen"),
        ("e\u0301 e\u200d\u0301 \u1112\u1161\u11ab Å", "é é 한 Å"),
        ("a\ud800b\udfff", "ab"),
        ("👩\u200d👩\u2066x\u2069", "👩👩x"),
        ("ﬁ ½ … “q”", "ﬁ ½ … “q”"),  # NFC, not NFKC
        ("a \u0301b", "a \u0301b"),
    ],
)
def test_literal(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def cleaned_in_ab(code: int) -> str:
    """Return what is left of a character between a and b."""
    char = chr(code)
    category = unicodedata.category(char)
    if char in BREAKS:
        return "a\nb"
    if char == "\t" or category == "Zs":
        return "a b"
    if category in ("Cc", "Cf", "Cs") or char == "\ufffd":
        return "ab"
    return unicodedata.normalize("NFC", f"a{char}b")


def test_every_character() -> None:
    """Control and format characters are dropped, white space becomes a space or line break, all others are kept in NFC."""
    # Unicode 15 added a few format characters, which this Python may not know.
    codes = [code for code in range(0x110000) if not 0x13439 <= code <= 0x1343F or unicodedata.category(chr(code)) != "Cn"]
    assert all(clean(f"a{chr(code)}b") in ("ab", f"a{chr(code)}b") for code in range(0x13439, 0x13440))
    wrong = []
    # A few hundred in one text, since a call takes 20 microseconds: apart, and in smaller parts, where they differ.
    parts = [codes[at : at + 500] for at in range(0, len(codes), 500)] + [[code] for code in range(0x300)]
    while parts:
        part = parts.pop()
        if clean(" ".join(f"a{chr(code)}b" for code in part)) != " ".join(map(cleaned_in_ab, part)):
            middle = len(part) // 2
            parts += [part[:middle], part[middle:]] if middle else []
            wrong += [] if middle else [hex(part[0])]
    assert wrong == []


@given(st.text(st.one_of(AWKWARD, ANY), max_size=40))
@settings(max_examples=600, deadline=None)
@example("a\r\x00\nb")
@example("e\x00\u0301")
@example("\n\u0301a")
@example("\u0344\u0301 \u0f71\u0f72")
def test_properties_of_clean_text(raw: str) -> None:
    text = clean(raw)
    assert clean(text) == text
    assert unicodedata.is_normalized("NFC", text)
    assert not {unicodedata.category(char) for char in text if char != "\n"} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert "\ufffd" not in text
    assert not any(char.isspace() and char not in " \n" for char in text)
    assert all(line and line == " ".join(line.split(" ")) and "  " not in line for line in text.split("\n")) or not text
    assert all(line == line.strip() for line in text.split("\n"))
    text.encode("utf-8")


@given(st.text(st.sampled_from("aé. \n"), max_size=60))
@settings(deadline=None)
def test_the_fast_path_equals_the_slow_one(raw: str) -> None:
    """A text that needs no cleaning takes a faster path; a soft hyphen forces the other one."""
    assert clean(raw) == clean(raw + "\xad")
