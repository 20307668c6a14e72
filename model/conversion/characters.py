"""Tables of how a tokenizer normalises every character, with the Unicode version of pipelines/common/unicode_rules.py.

An exported graph normalises text by looking up characters in these tables. So it matches the tokenizer of the training data,
whatever Unicode version the libraries that run the graph have.

The rules are google-research/bert's. All characters that no entry of the vocabulary contains become one, `unknown`: the word is
[UNK] anyway, and no library can treat them differently.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.common.unicode_rules import CONTROLS, SPACES, category, is_cjk, is_punctuation, lower, normalize

UNK = "[UNK]"
PAGE = 256  # code points per page: most pages are identical and are stored once
# From _FAR on, only the first 4096 code points of _TAGS contain assigned characters.
_CODES, _FAR, _TAGS = 0x110000, 0x40000, 0xE0000
_PRIVATE = range(0xE000, 0xF900)  # private-use characters: no meaning by themselves
_PRIVATE_PLANES = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
# What the tokenizers library also drops: separators that end a line in the shards, and private-use characters.
LIBRARY_DROPS = r"[\x{b}\x{c}\x{1c}-\x{1e}\x{85}\x{e000}-\x{f8ff}\x{f0000}-\x{ffffd}\x{100000}-\x{10fffd}]"


def is_isolated(char: str) -> bool:
    """Return whether a character is a token by itself: punctuation, ASCII symbols, CJK ideographs."""
    return is_punctuation(char) or is_cjk(ord(char))


def is_space(char: str) -> bool:
    return char in "\t\n\r" or category(char)[0] == "Z"


def ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Return (first, last) of each run of ascending code points."""
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def regex_class(runs: Iterable[tuple[int, int]]) -> str:
    """Return the inside of an RE2 character class of these code points, by number, because libraries differ in Unicode."""
    return "".join(rf"\x{{{low:x}}}-\x{{{high:x}}}" for low, high in runs)


DROPPED, SPACE = f"[{regex_class(CONTROLS)}]", f"[{regex_class(SPACES)}]"  # in RE2's syntax


@lru_cache
def sigma_neighbours() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return (cased characters, ignorable ones) as ranges: a capital sigma after cased and ignorable ones may end a word."""
    before, between = [], []
    for code in range(_CODES):
        char = chr(code)
        if category(char) in ("Cn", "Co", "Cs"):
            continue
        if (char + "Σ").lower().endswith("ς"):
            before.append(code)
        elif ("A" + char + "Σ").lower().endswith("ς"):
            between.append(code)
    return ranges(before), ranges(between)


@lru_cache
def final_sigma() -> tuple[str, str]:
    """Return an RE2 pattern and its replacement that lower-case each final capital sigma like `str.lower`."""
    cased, ignored = (regex_class(runs) for runs in sigma_neighbours())
    return f"([{cased}][{ignored}]*)Σ([{ignored}]*(?:[^{cased}{ignored}]|$))", r"\1ς\2"


@lru_cache
def unassigned() -> tuple[int, ...]:
    """Return the unassigned code points in ascending order, except those that count as ideographs."""
    return tuple(code for code in range(_CODES) if category(chr(code)) == "Cn" and not is_cjk(code))


@dataclass(frozen=True)
class Characters:
    """The characters of a tokenizer.

    tokens: the vocabulary. cased: keep case and accents. substitutes: characters that the tokenizer's library, unlike Python,
    treats as punctuation or space, with their replacements in the vocabulary and in texts. rules: how the tokenizer differs
    from google-research/bert's.
    """

    tokens: tuple[str, ...]
    cased: bool
    substitutes: dict[str, str]
    rules: TextRules = REFERENCE

    @property
    def strips(self) -> bool:
        """Whether accents are removed."""
        return self.rules.strips(self.cased)

    def isolated(self, char: str) -> bool:
        """Return whether a character is a token by itself in the texts of this vocabulary."""
        return is_isolated(char) and (self.rules.tokenize_chinese_chars or not is_cjk(ord(char)))

    @cached_property
    def alphabet(self) -> frozenset[str]:
        """The characters of the vocabulary's entries."""
        return frozenset("".join(self.tokens))

    @cached_property
    def private(self) -> list[str]:
        """Private-use characters that this vocabulary doesn't contain; the first of them is `unknown`."""
        return [chr(code) for code in _PRIVATE if chr(code) not in self.alphabet]

    def spare(self) -> Iterator[str]:
        """Characters to use as replacements for others: more than there are ideographs."""
        yield from self.private[1:-1]
        yield from (chr(code) for code in _PRIVATE_PLANES if chr(code) not in self.alphabet)

    @property
    def unknown(self) -> str:
        return self.private[0]

    @cached_property
    def words(self) -> list[str]:
        """Non-ASCII characters of the vocabulary that aren't tokens by themselves."""
        return sorted(char for char in self.alphabet if not (char.isascii() or self.isolated(char) or is_space(char)))

    def entries(self) -> list[str]:
        """The vocabulary with its substitutes; entries that no text can contain are replaced by something unreachable."""
        named = ((token, f"{self.private[-1]}{index}" if token != UNK else UNK) for index, token in enumerate(self.tokens))
        return [self._entry(token) or otherwise for token, otherwise in named]

    def _entry(self, token: str) -> str:
        body = token.removeprefix("##")
        alone = body == token and len(token) == 1
        fits = 0 < len(body) <= self.rules.max_word_chars
        reachable = alone or (fits and not any(self.isolated(c) or is_space(c) for c in body))
        return "".join(self.substitutes.get(char, char) for char in token) if reachable else ""

    def unassigned_ranges(self) -> list[tuple[int, int]]:
        """Unassigned characters, except ideographs and those of the vocabulary."""
        return ranges(code for code in unassigned() if chr(code) not in self.alphabet)

    def unassigned(self) -> str:
        """An RE2 class of the unassigned characters."""
        return f"[{regex_class(self.unassigned_ranges())}]"

    def replacement(self, char: str) -> str:
        """Return the normalised form of a character of NFC text without controls or final sigmas: 0 or more characters."""
        kind = category(char)
        if kind in ("Cn", "Co") and not self.isolated(char):
            return self._known(char)
        if char == "\ufffd" or kind in ("Cc", "Cf", "Cs"):
            return " " if char in "\t\n\r" else ""
        if kind in ("Zs", "Zl", "Zp"):
            return " "
        kept = char if self.cased else lower(char)
        if self.strips:
            kept = "".join(part for part in normalize("NFD", kept) if category(part) != "Mn")
        kept = "".join(f" {self._known(part)} " if self.isolated(part) else self._known(part) for part in kept)
        return f" {kept.strip()} " if self.isolated(char) else kept

    def _known(self, char: str) -> str:
        if char in self.alphabet or char.isascii():
            return self.substitutes.get(char, char)
        return self.unknown

    def replacements(self) -> tuple[np.ndarray, np.ndarray]:
        """(pages, rows): the replacement of a code point c is rows[pages[c // 256], c % 256], 0 for no character.

        pages: int32 [4352]. rows: int32 [P, 256, W], W the longest replacement.
        """
        return _replacements(self.tokens, self.cased, tuple(self.substitutes.items()), self.rules)

    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Like `replacements`, with one code point each: 32 for a space, 33 for a token by itself, 97 for a part of a word."""
        return _kinds(self.rules)


# Both scan every code point, which takes a second, and every function of an export needs them.
@lru_cache(8)
def _replacements(
    tokens: tuple[str, ...], cased: bool, substitutes: tuple[tuple[str, str], ...], rules: TextRules
) -> tuple[np.ndarray, np.ndarray]:
    characters = Characters(tokens, cased, dict(substitutes), rules)
    return _paged(characters.replacement, far=any(ord(char) >= _FAR for char in characters.alphabet))


@lru_cache(8)
def _kinds(rules: TextRules) -> tuple[np.ndarray, np.ndarray]:
    isolated = Characters((), True, {}, rules).isolated
    return _paged(lambda char: " " if is_space(char) else "!" if isolated(char) else "a")


def _paged(of: Callable[[str], str], far: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Build paged tables. Without `far`, unassigned and private planes (most code points) repeat their first character."""
    found: dict[tuple[str, ...], int] = {}
    pages = [
        found.setdefault(tuple(of(chr(code)) for code in range(first, first + PAGE)), len(found))
        if far or first < _FAR or first >> 12 == _TAGS >> 12
        else found.setdefault((of(chr(_FAR)),) * PAGE, len(found))
        for first in range(0, _CODES, PAGE)
    ]
    rows = np.zeros((len(found), PAGE, max(len(text) for page in found for text in page)), np.int32)
    for number, page in enumerate(found):
        for place, text in enumerate(page):
            rows[number, place, : len(text)] = [ord(char) for char in text]
    return np.array(pages, np.int32), rows
