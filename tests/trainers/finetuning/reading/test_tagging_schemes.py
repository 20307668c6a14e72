"""Schemes of tags: which are known, which are refused with what to write instead, and the entities that they mark."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.trainers.finetuning.reading.tagging_schemes import UnknownScheme, entities, scheme_of

KINDS = ("PER", "B-LOC")  # a type may hold a hyphen


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-PER I-PER", "IOB"),
        ("O I-PER", "IOB"),
        ("B-NP I-NP B-VP", "IOB"),
        ("O I-PER E-PER", "IOE"),
        ("O B-PER I-PER E-PER S-PER", "BIOES"),
        ("O B-PER E-PER", "BIOES"),
        ("O S-PER", "BIOES"),
        ("O B-名 M-名 E-名", "BIOES"),
        ("O B-PER I-PER L-PER U-PER", "BILOU"),
        ("O U-PER", "BILOU"),
        ("NOUN VERB O", ""),
        ("O", ""),
        ("", ""),
        ("E S", ""),  # parts of speech of one letter
        ("I--------- N---MS S----3MS2-", ""),
        ("O person-actor location-GPE", ""),
        ("n-s---mn- m-p---fa- e--------", ""),
        ("0 1 2", ""),
        ("-LRB- ( * .", ""),
    ],
)
def test_known_schemes(tags: str, scheme: str) -> None:
    assert scheme_of(tags.split()) == scheme


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ("0 B-PER I-PER", "the tag '0' is neither O nor of the form of B-PER: write O"),
        ("o B-PER", "the tag 'o' is neither O nor of the form of B-PER: write O"),
        ("O B-PER I", "the tag 'I' is neither O nor of the form of B-PER: use tags of IOB"),
        ("O B-PER domain=en", "the tag 'domain=en' is neither O nor of the form of B-PER: use tags of IOB"),
        ("O B-PER i-PER", "the tag 'i-PER' is neither O nor of the form of B-PER: use tags of IOB"),
        ("o b-per i-per", "the tag 'b-per' follows no known scheme: write the prefix in upper case, as in B-PER"),
        ("O b-PER", "the tag 'b-PER' follows no known scheme: write the prefix in upper case, as in B-PER"),
        ("O B I", "the tag 'B' follows no known scheme: add a type, as in B-PER"),
        ("0 B_PER I_PER", "the tag 'B_PER' follows no known scheme: write a hyphen after the prefix, as in B-PER"),
        ("O PER-B PER-I", "the tag 'PER-B' follows no known scheme: write the prefix first, as in B-PER"),
        ("* (PER* (ORG)", "the tag '(ORG)' has the brackets of CoNLL-2012: convert the tags to IOB, such as B-PER"),
        ("B-A I-A L-A S-A", "the tag 'B-A' mixes schemes, since the prefixes are B, I, L, S: use IOB, IOE, BIOES"),
        ("B-A I-A M-A E-A", "the tag 'B-A' mixes schemes, since the prefixes are B, E, I, M: use IOB, IOE, BIOES"),
    ],
)
def test_other_schemes_are_refused(tags: str, sentence: str) -> None:
    with pytest.raises(UnknownScheme) as error:
        scheme_of(tags.split())
    assert str(error.value).startswith(sentence) and f"'{error.value.tag}'" in sentence


def _written(spans: list[tuple[str, int, int]], length: int, scheme: str) -> list[str]:
    """The tags of entities, by the rules of a scheme."""
    tags = ["O"] * length
    for number, (kind, begin, end) in enumerate(spans):
        touches = number and spans[number - 1][0] == kind and spans[number - 1][2] == begin
        prefixes = ["I"] * (end - begin)
        if scheme == "IOB2" or scheme in ("BIOES", "BILOU") or (scheme == "IOB1" and touches):
            prefixes[0] = "B"
        if scheme in ("IOE2", "BIOES", "BILOU"):
            prefixes[-1] = "L" if scheme == "BILOU" else "E"
        if scheme in ("BIOES", "BILOU") and end - begin == 1:
            prefixes = ["U" if scheme == "BILOU" else "S"]
        if scheme == "IOE1" and touches:
            tags[begin - 1] = f"E-{kind}"
        tags[begin:end] = [f"{prefix}-{kind}" for prefix in prefixes]
    return tags


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((*KINDS, "")), st.integers(1, 3)), max_size=6),
    st.sampled_from(("IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BILOU")),
)
def test_entities_come_back(parts: list[tuple[str, int]], scheme: str) -> None:
    """Entities side by side included, of one type or of two; a part without a type is outside."""
    spans, begin = [], 0
    for kind, length in parts:
        spans += [(kind, begin, begin + length)] if kind else []
        begin += length
    assert list(entities(_written(spans, begin, scheme))) == spans


@pytest.mark.parametrize(
    ("tags", "found"),
    [  # rules are broken: as conlleval has it
        ("I-A B-A I-B E-B I-B", [("A", 0, 1), ("A", 1, 2), ("B", 2, 4), ("B", 4, 5)]),
        ("S-A I-A E-A O E-A", [("A", 0, 1), ("A", 1, 3), ("A", 4, 5)]),
        ("B-A U-A L-A", [("A", 0, 1), ("A", 1, 2), ("A", 2, 3)]),
        ("NOUN O", []),
    ],
)
def test_entities_of_broken_sequences(tags: str, found: list) -> None:
    assert list(entities(tags.split())) == found
