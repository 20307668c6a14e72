"""Express the rules of our tokenizer in tokenizer.json, character by character, independent of the library's Unicode.

The library's BERT normalizers follow Unicode 8, drop private-use characters, and treat unassigned characters as controls. So
all character classes are written out here: dropped characters, spaces, and tokens by themselves. Between them, the library's
NFD, NFC and lower case are used. They are right for Unicode 14.0, except for some combining characters that the library
doesn't know: if the vocabulary has one, it is temporarily replaced by a known one. Characters in no entry of the vocabulary
may change arbitrarily as long as their word stays one word: it is [UNK].
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from tokenizers import Regex, normalizers, pre_tokenizers

from clozemill.model.conversion.characters import Characters, is_isolated, ranges, sigma_neighbours
from clozemill.pipelines.common.unicode_rules import (
    CONTROLS,
    SPACES,
    Form,
    category,
    character_class,
    combining,
    is_cjk,
    lower,
    normalize,
)

_ALL = range(0x110000)
_HANGUL = range(0xAC00, 0xD7A4)  # composed by a formula that every library implements
Steps = list[normalizers.Normalizer]


def _replace(ranges_: Iterable[tuple[int, int]], content: str) -> Steps:
    """Return a rule that replaces each character of a class; nothing for an empty class."""
    found = list(ranges_)
    return [normalizers.Replace(Regex(character_class(found)), content)] if found else []


@lru_cache
def _marks() -> tuple[tuple[int, int], ...]:
    return tuple(ranges(code for code in _ALL if category(chr(code)) == "Mn"))


@lru_cache
def _isolated(chinese: bool) -> tuple[tuple[int, int], ...]:
    return tuple(ranges(code for code in _ALL if is_isolated(chr(code)) and (chinese or not is_cjk(code))))


def _final_sigma() -> normalizers.Normalizer:
    """Lower-case a capital sigma at the end of a word to the final form; the library's lower case ignores neighbours."""
    cased, ignorable = map(character_class, sigma_neighbours())
    return normalizers.Replace(Regex(f"(?<={cased}{ignorable}*)Σ(?!{ignorable}*{cased})"), "ς")


@lru_cache
def _compositions() -> tuple[tuple[str, str], ...]:
    """Return (character, its decomposition) for characters that the library composes."""
    theirs = normalizers.NFD().normalize_str
    composed = (chr(code) for code in _ALL if code not in _HANGUL and unicodedata.decomposition(chr(code))[:1] not in ("", "<"))
    return tuple((char, parts) for char in composed if theirs(char) != (parts := normalize("NFD", char)))


def _in_context(char: str) -> tuple[str, ...]:
    """Return a character next to accents of every kind, to test whether they are kept, sorted or combined."""
    return tuple(f"a{mark}{char}{other}b" for mark in ("", "\u0301", "\u0345") for other in ("", "\u0327", "\u0334", "\u0301"))


def _misjudged(char: str, form: Form) -> bool:
    """Return whether the library's normal form or lower case of a character differs from Unicode 14.0."""
    theirs = getattr(normalizers, form)().normalize_str
    ours = [normalize(form, text) for text in _in_context(char)]
    return ours != [theirs(text) for text in _in_context(char)] or normalizers.Lowercase().normalize_str(char) != lower(char)


@lru_cache
def _known_marks(form: Form) -> tuple[str, ...]:
    """Return accents that the library knows and that no character decomposes into."""
    both = [(chr(code), normalize("NFD", chr(code))) for code in _ALL if code not in _HANGUL]
    parts = {part for char, parts in both if char != parts for part in parts}
    return tuple(char for char, same in both if char == same and combining(char) and char not in parts
                 and not _misjudged(char, form))  # fmt: skip


def _stand_ins(characters: Characters, form: Form) -> list[tuple[str, str]]:
    """Return pairs: a character of the vocabulary that the library handles wrongly, and a correct one of its combining class.

    U+16FF0 and U+16FF1 are the only ones of their class. The next class sorts them the same way, except next to marks of
    exactly that class.
    """
    composed = {char for char, _ in _compositions()}
    kept = [char for char in sorted(characters.alphabet - composed) if not characters.strips or category(char) != "Mn"]
    wrong = [char for char in kept if not char.isascii() and _misjudged(char, form)]
    private, marks, found = characters.private[1:], [], []
    if any(combining(char) for char in wrong):
        marks = [char for char in _known_marks(form) if char not in characters.alphabet]
    for char in wrong:
        pool = marks if combining(char) else private
        if not pool:
            raise ValueError(f"the vocabulary has the character U+{ord(char):04X}, which tokenizer.json can't express")
        other = min(pool, key=lambda one: abs(combining(one) - combining(char)))
        pool.remove(other)
        found.append((char, other))
    return found


def normalizer(characters: Characters) -> normalizers.Normalizer:
    """Return the normalizer that turns a text into the words of our tokenizer, with spaces between them.

    Raises ValueError for a vocabulary with characters that the library can't handle.
    """
    strips = characters.strips
    form: Form = "NFD" if strips else "NFC"
    composed = [pair for pair in _compositions() if characters.alphabet & set("".join(pair))]
    stand_ins = _stand_ins(characters, form)
    unknown = characters.unknown
    steps = _replace(CONTROLS, "") + _replace((one for one in SPACES if one != (0x20, 0x20)), " ")
    steps += _replace(characters.unassigned_ranges(), unknown)
    steps += _replace(_marks(), "") if strips else []
    steps += [] if characters.cased else [_final_sigma()]
    steps += [normalizers.Replace(*(pair if strips else pair[::-1])) for pair in composed]
    for char, other in stand_ins:
        steps += [normalizers.Replace(other, unknown), normalizers.Replace(char, other)]
    steps += [normalizers.NFD() if strips else normalizers.NFC()]
    steps += [] if characters.cased else [normalizers.Lowercase()]
    steps += [normalizers.Replace(other, char) for char, other in stand_ins]
    steps += _replace(_marks(), "") if strips else []
    return normalizers.Sequence(steps)


def pre_tokenizer(chinese: bool = True) -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer that splits at spaces and isolates punctuation and, if `chinese`, ideographs."""
    alone = Regex(character_class(_isolated(chinese)))
    return pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(alone, "isolated")])
