"""Split clean text into sentences, as character spans; a splitter is a function in SPLITTERS.

Splitters get one paragraph (line) at a time, which makes the library twenty times faster than with whole documents. Paragraphs
in scripts that it has no rules for are split by the rules of SCRIPTS, in any language; sentence_languages.py lists the known
languages.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import sentencex

# sentencex never splits quoted speech, so novels contain "sentences" of a thousand words. One above the limit is cut
# after the last end of a sentence (or else clause, or else word) within the limit.
MAX_CHARS = 600
# On a paragraph of a megabyte, sentencex misses a quarter of the sentences, and takes minutes if quotes are never closed.
MAX_PARAGRAPH = 10_000
_CLOSERS = "」』】〉》〕）］﹂﹄＂༽"
_CLOSING, _WIDE_CLOSING = "[\"'”’»)\\]]", f"[\"'”’»)\\]{_CLOSERS}]"
# Marks that end a sentence, and a clause, without white space after them, in scripts other than Latin, Greek and Cyrillic.
# (Unicode's property Sentence_Terminal, and the rest of Terminal_Punctuation.)
_STOPS = "。！？｡﹖﹗؟۔؞؝܀܁܂߹।॥။።፧፨᙮᠃᠉᥄᥅។៕᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿։។៕།༎༏༐༑༔꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"
_COMMAS = "；：，、､﹐﹑﹔﹕؛،՝፣፤፥፦၊៖・"
_CONTINUES = frozenset(f"{_STOPS}{_COMMAS}\"'”’»)]{_CLOSERS}")
# Where to cut a piece that is too long: after a sentence, a clause or a word. Possessive, and anchored at the first mark of a
# run: otherwise a long row of dots would take quadratic time.
_SENTENCE, _CLAUSE, _SPACE = rf"(?<![.!?…])[.!?…]++{_CLOSING}*+\s+", r"[;:,—–]\s+", r"\s+"
_ENDS = tuple(map(re.compile, (_SENTENCE, _CLAUSE, _SPACE)))
_EAST_ASIAN = "\u3000-\u9fff\uff00-\uffef"
_WIDE_ENDS = (
    re.compile(rf"{_SENTENCE}|(?<![{_STOPS}])[{_STOPS}]++{_WIDE_CLOSING}*+\s*"),
    re.compile(rf"{_CLAUSE}|[{_COMMAS}]++{_WIDE_CLOSING}*+\s*|(?<=[{_EAST_ASIAN}])[…—―]++{_WIDE_CLOSING}*+\s*"),
    re.compile(_SPACE),
    re.compile("་"),  # the Tibetan mark between syllables
)
# Bytes of the UTF-8 of characters below U+0580 (Latin, Greek, Cyrillic) and from U+2000 to U+2FFF (punctuation).
_NARROW = bytes([*range(0xD6), 0xE2])
_LATIN_RUN = re.compile(f"(?<=[{_EAST_ASIAN}])[0-9A-Za-z]+$")
# Besides marks, these belong to the character before them: joiners, skin tones, Thai and Lao am. These belong to the one
# after them: joiners, and vowels that Thai and Lao write before the consonant.
_FOLLOWING, _LEADING = "\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff\u0e33\u0eb3", "\u200dเแโใไເແໂໃໄ"
_REGIONAL, _VIRAMA = frozenset(map(chr, range(0x1F1E6, 0x1F200))), 9
_BACK = 64  # characters before the limit in which to look for a boundary of words or characters

# Replacements of equal length for what sentencex doesn't handle in non-Latin scripts: brackets (it doesn't support a pair in a
# pair of the same kind), the Burmese comma, two Ethiopic word separators used as a full stop, decimal points. (The regex engine
# searches fastest for a pattern that starts with a character class.)
_UNKNOWN = re.compile(r"[『』〈〉〔〕﹁﹂﹃﹄＂၊፡.](?:(?<![፡.])|(?<=፡)(?<!፡፡)፡(?!፡)|(?<=\d\.)(?<![0-9]\.)(?=\d))")
_KNOWN = dict(zip("『』〈〉〔〕﹃﹄﹁﹂＂၊.", '【】【】【】【】「」",,', strict=True)) | {"፡፡": "፡።"}
# A sentence can't start with commas and closing brackets; those that sentencex leaves there are moved.
_NO_BEGINNING = re.compile(f"[{_CLOSERS.replace('＂', '')}{_COMMAS.replace('・', '')}]*+\\s*+")

Span = tuple[int, int]


@dataclass(frozen=True)
class Script:
    """A script that sentencex has no rules for. letters: a class of its characters. ends: matches the end of a sentence."""

    letters: re.Pattern
    ends: re.Pattern


def _script(letters: str, ends: str) -> Script:
    """Return a script in which a full stop ends a sentence after a word, and an abbreviation after fewer than five letters."""
    full_stop = rf"(?:(?<![!?])[!?]++|(?<=[{letters}]{{5}})[.…]++){_WIDE_CLOSING}*+\s++"
    return Script(re.compile(f"[{letters}]"), re.compile(f"{full_stop}|{ends}"))


# Thai and Lao end sentences, and some clauses, with just a space, but not before a repetition or abbreviation mark.
_SPACED = "\\s++(?=[\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4])"
SCRIPTS: dict[str, Script] = {
    "Khmer": _script("\u1780-\u17d3\u17d7\u17dc\u17dd", rf"[។៕]++{_WIDE_CLOSING}*+\s*"),
    "Lao": _script("\u0e80-\u0ecf\u0edc-\u0edf", f"(?<=[\u0e80-\u0ecf\u0edc-\u0edf]){_SPACED}"),
    "Thai": _script("\u0e01-\u0e3a\u0e40-\u0e4e", f"(?<=[\u0e01-\u0e3a\u0e40-\u0e4e]){_SPACED}"),
    "Tibetan": _script("\u0f00\u0f40-\u0f84\u0f88-\u0fbc", rf"[།༎༏༐༑༔]++(?:\s[།༎༏༐༑༔]++)*+{_WIDE_CLOSING}*+\s*"),
}
_ANY_SCRIPT = re.compile("[\u0e01-\u0fbc\u1780-\u17dd]")


def _script_of(paragraph: str) -> Script | None:
    """Return the script in SCRIPTS of most letters of a paragraph."""
    if not _ANY_SCRIPT.search(paragraph):
        return None
    letters = sum(map(str.isalpha, paragraph))
    counted = ((len(script.letters.findall(paragraph)), name) for name, script in SCRIPTS.items())
    most, name = max(counted)
    return SCRIPTS[name] if 2 * most > letters else None


def _by_script(paragraph: str, script: Script) -> Iterator[Span]:
    start = 0
    for match in script.ends.finditer(paragraph):
        yield start, match.end()
        start = match.end()
    yield start, len(paragraph)


def _sentencex(paragraph: str, language: str, wide: bool) -> Iterator[Span]:
    if not wide:
        yield from _segments(paragraph, language, wide)
    elif script := _script_of(paragraph):
        yield from _by_script(paragraph, script)
    else:
        known = _UNKNOWN.sub(lambda mark: _KNOWN[mark[0]], paragraph)
        yield from _well_begun(paragraph, _segments(known, language, wide))


def _segments(paragraph: str, language: str, wide: bool) -> Iterator[Span]:
    start = 0
    for low, high in _short_enough(paragraph, 0, len(paragraph), MAX_PARAGRAPH, wide):
        for sentence in sentencex.segment(language, paragraph[low:high]):  # lossless: the pieces concatenate to the input
            yield start, start + len(sentence)
            start += len(sentence)


def _well_begun(paragraph: str, spans: Iterator[Span]) -> Iterator[Span]:
    """Move marks that can't start a sentence to the end of the one before."""
    first = last = 0
    for start, end in spans:
        marks = _NO_BEGINNING.match(paragraph, start, end) if start else None
        begin = marks.end() if marks else 0
        if first < begin < end:
            yield first, begin
            first = begin
        last = end
    yield first, last


def _none(paragraph: str, language: str, wide: bool) -> Iterator[Span]:
    yield 0, len(paragraph)


# A paragraph, the language, and whether the text has characters of scripts other than Latin, Greek and Cyrillic.
SPLITTERS: dict[str, Callable[[str, str, bool], Iterator[Span]]] = {
    "sentencex": _sentencex,
    "none": _none,
}


def _is_wide(text: str) -> bool:
    """Return whether a text needs the rules for other scripts. Most text doesn't, and splitting is then 10% faster."""
    return bool(text.encode("utf-8", "replace").translate(None, _NARROW))


def _short_enough(text: str, start: int, end: int, limit: int, wide: bool) -> Iterator[Span]:
    """Cut [start, end) into pieces of at most `limit`, at the best boundaries available."""
    while end - start > limit:
        for pattern in _WIDE_ENDS if wide else _ENDS:
            cuts = [match.end() for match in pattern.finditer(text, start + 1, start + limit)]
            if cuts and cuts[-1] == start + limit and wide and _unfinished(text, cuts[-1]):
                cuts.pop()
            if cuts:
                break
        cut = cuts[-1] if cuts else _between_characters(text, start, start + limit)
        yield start, cut
        start = cut
    yield start, end


def _unfinished(text: str, at: int) -> bool:
    """Return whether the mark before a position continues after it, as a run of marks or with a closing bracket."""
    return not text[at - 1].isspace() and text[at] in _CONTINUES


def _between_characters(text: str, start: int, end: int) -> int:
    """Return where to cut text without a boundary: at `end`, or shortly before it to keep a character or Latin word together.

    A character here means a grapheme: including marks, vowel signs, and all parts of an emoji.
    """
    low = max(start, end - _BACK)
    for cut in range(end, low, -1):
        if not _joined(text, cut):
            break
    else:
        return end
    following = text[cut : cut + 1]
    run = _LATIN_RUN.search(text, low, cut) if following.isascii() and following.isalnum() else None
    return run.start() if run else cut


def _joined(text: str, at: int) -> bool:
    """Return whether the characters before and after a position belong together."""
    before, after = text[at - 1], text[at : at + 1]
    if not after or after.isascii():
        return False
    if unicodedata.category(after)[0] == "M" or after in _FOLLOWING or "\u1160" <= after <= "\u11ff":  # jamo of a syllable
        return True
    if before in _LEADING or unicodedata.combining(before) == _VIRAMA:
        return True
    flags = at  # a flag consists of two such letters: is this the first?
    while after in _REGIONAL and flags and text[flags - 1] in _REGIONAL:
        flags -= 1
    return (at - flags) % 2 == 1


def split(text: str, splitter: str, language: str = "en") -> np.ndarray:
    """Return the spans of the sentences of a cleaned text, int64 [sentences, 2] in characters: stripped, not empty, in order.

    Only white space is between them.
    """
    find, wide, offset = SPLITTERS[splitter], not text.isascii() and _is_wide(text), 0
    edges: list[int] = []
    for paragraph in text.split("\n"):
        for start, end in find(paragraph, language, wide):
            short = end - start <= MAX_CHARS  # most are: a generator for each would take 10% of the time
            for low, high in ((start, end),) if short else _short_enough(paragraph, start, end, MAX_CHARS, wide):
                while low < high and paragraph[low].isspace():
                    low += 1
                while low < high and paragraph[high - 1].isspace():
                    high -= 1
                if low < high:
                    edges += (offset + low, offset + high)
        offset += len(paragraph) + 1
    return np.array(edges, np.int64).reshape(-1, 2)


def lines(text: str) -> np.ndarray:
    """Return the spans of the lines of a cleaned text, int64 [sentences, 2]. Lines are sentences already, so none is cut."""
    lengths = np.fromiter(map(len, text.split("\n") if text else ()), np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return np.stack([ends - lengths, ends], axis=1)
