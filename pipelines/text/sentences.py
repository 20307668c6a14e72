"""Clean text to sentences, as character spans; a splitter is a function in SPLITTERS.

Splitters see one paragraph (line) at a time: the library is twenty times faster so than on whole documents. Paragraphs in
the scripts that it has no rules for are split by the rules of SCRIPTS, whatever the language; sentence_languages.py says
which languages are known.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import sentencex

# sentencex keeps quoted speech whole, so that novels hold "sentences" of a thousand words. A longer one is cut again
# after the last end of a sentence (or else clause, or else word) within the limit.
MAX_CHARS = 600
# On a paragraph of a megabyte sentencex loses a quarter of the sentences, and takes minutes where quotes are never closed.
MAX_PARAGRAPH = 10_000
_CLOSERS = "」』】〉》〕）］﹂﹄＂༽"
_CLOSING, _WIDE_CLOSING = "[\"'”’»)\\]]", f"[\"'”’»)\\]{_CLOSERS}]"
# Marks that end a sentence, and a clause, without white space after them: those of scripts other than Latin, Greek and
# Cyrillic. (The property Sentence_Terminal of Unicode, and of Terminal_Punctuation what is left.)
_STOPS = "。！？｡﹖﹗؟۔؞؝܀܁܂߹।॥။።፧፨᙮᠃᠉᥄᥅។៕᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿։។៕།༎༏༐༑༔꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫"
_COMMAS = "；：，、､﹐﹑﹔﹕؛،՝፣፤፥፦၊៖・"
_CONTINUES = frozenset(f"{_STOPS}{_COMMAS}\"'”’»)]{_CLOSERS}")
# Where a piece that is too long is cut: behind a sentence, a clause or a word. Possessive, and from the first mark of a run
# on: else a long row of dots would take quadratic time.
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
# What belongs to the character before it besides marks: joiners, skin tones, Thai and Lao am; and what to the one after it:
# joiners, and vowels that Thai and Lao write before the consonant.
_FOLLOWING, _LEADING = "\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff\u0e33\u0eb3", "\u200dเแโใไເແໂໃໄ"
_REGIONAL, _VIRAMA = frozenset(map(chr, range(0x1F1E6, 0x1F200))), 9
_BACK = 64  # characters before the limit among which a cut between words or characters is looked for

# What sentencex doesn't know in other scripts than Latin, and what it knows, of the same length, to show it instead: brackets
# (it takes no pair within a pair of its own kind), the Burmese comma, two Ethiopic word separators that stand for a full stop,
# decimal points. (A class of characters at the front is what the engine searches fastest.)
_UNKNOWN = re.compile(r"[『』〈〉〔〕﹁﹂﹃﹄＂၊፡.](?:(?<![፡.])|(?<=፡)(?<!፡፡)፡(?!፡)|(?<=\d\.)(?<![0-9]\.)(?=\d))")
_KNOWN = dict(zip("『』〈〉〔〕﹃﹄﹁﹂＂၊.", '【】【】【】【】「」",,', strict=True)) | {"፡፡": "፡።"}
# What no sentence begins with: commas and closing brackets, in so far as sentencex leaves them there.
_NO_BEGINNING = re.compile(f"[{_CLOSERS.replace('＂', '')}{_COMMAS.replace('・', '')}]*+\\s*+")

Span = tuple[int, int]


@dataclass(frozen=True)
class Script:
    """A script that sentencex has no rules for. letters: a class of its characters. ends: what follows a sentence's end."""

    letters: re.Pattern
    ends: re.Pattern


def _script(letters: str, ends: str) -> Script:
    """A full stop ends a sentence where it follows a word: after less than five letters it is taken for an abbreviation."""
    full_stop = rf"(?:(?<![!?])[!?]++|(?<=[{letters}]{{5}})[.…]++){_WIDE_CLOSING}*+\s++"
    return Script(re.compile(f"[{letters}]"), re.compile(f"{full_stop}|{ends}"))


# Thai and Lao end sentences, and some clauses, with a space alone; but not before a repetition or abbreviation mark.
_SPACED = "\\s++(?=[\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4])"
SCRIPTS: dict[str, Script] = {
    "Khmer": _script("\u1780-\u17d3\u17d7\u17dc\u17dd", rf"[។៕]++{_WIDE_CLOSING}*+\s*"),
    "Lao": _script("\u0e80-\u0ecf\u0edc-\u0edf", f"(?<=[\u0e80-\u0ecf\u0edc-\u0edf]){_SPACED}"),
    "Thai": _script("\u0e01-\u0e3a\u0e40-\u0e4e", f"(?<=[\u0e01-\u0e3a\u0e40-\u0e4e]){_SPACED}"),
    "Tibetan": _script("\u0f00\u0f40-\u0f84\u0f88-\u0fbc", rf"[།༎༏༐༑༔]++(?:\s[།༎༏༐༑༔]++)*+{_WIDE_CLOSING}*+\s*"),
}
_ANY_SCRIPT = re.compile("[\u0e01-\u0fbc\u1780-\u17dd]")


def _script_of(paragraph: str) -> Script | None:
    """The script of SCRIPTS in which most of a paragraph's letters are."""
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
        for sentence in sentencex.segment(language, paragraph[low:high]):  # lossless: the pieces concatenate to the whole
            yield start, start + len(sentence)
            start += len(sentence)


def _well_begun(paragraph: str, spans: Iterator[Span]) -> Iterator[Span]:
    """Moves the marks that no sentence begins with to the end of the one before."""
    first = last = 0
    for start, end in spans:
        begin = _NO_BEGINNING.match(paragraph, start, end).end() if start else 0
        if first < begin < end:
            yield first, begin
            first = begin
        last = end
    yield first, last


def _none(paragraph: str, language: str, wide: bool) -> Iterator[Span]:
    yield 0, len(paragraph)


# A paragraph, the language, and whether the text has characters of other scripts than Latin, Greek and Cyrillic.
SPLITTERS: dict[str, Callable[[str, str, bool], Iterator[Span]]] = {
    "sentencex": _sentencex,
    "none": _none,
}


def _is_wide(text: str) -> bool:
    """Whether a text needs the rules for other scripts: most text needs none of them, and is split a tenth faster so."""
    return bool(text.encode("utf-8", "replace").translate(None, _NARROW))


def _short_enough(text: str, start: int, end: int, limit: int, wide: bool) -> Iterator[Span]:
    """[start, end) in pieces of at most `limit`, cut where it hurts least."""
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
    """Whether the mark before a place in a text goes on after it: as a run of marks, or with a closing bracket."""
    return not text[at - 1].isspace() and text[at] in _CONTINUES


def _between_characters(text: str, start: int, end: int) -> int:
    """Where to cut text without any boundary: at `end`, or shortly before it where that divides no character or Latin word.

    A character here is what readers take for one: with its marks, its vowel signs, the parts of an emoji.
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
    """Whether the characters before and after a place in a text belong together."""
    before, after = text[at - 1], text[at : at + 1]
    if not after or after.isascii():
        return False
    if unicodedata.category(after)[0] == "M" or after in _FOLLOWING or "\u1160" <= after <= "\u11ff":  # jamo of a syllable
        return True
    if before in _LEADING or unicodedata.combining(before) == _VIRAMA:
        return True
    flags = at  # a flag is two of its letters: is this an odd one?
    while after in _REGIONAL and flags and text[flags - 1] in _REGIONAL:
        flags -= 1
    return (at - flags) % 2 == 1


def split(text: str, splitter: str, language: str = "en") -> np.ndarray:
    """Spans, int64 [sentences, 2], in characters of the sentences of a cleaned text: stripped, none empty, in order.

    Nothing but white space lies between them.
    """
    find, wide, edges, offset = SPLITTERS[splitter], not text.isascii() and _is_wide(text), [], 0
    for paragraph in text.split("\n"):
        for start, end in find(paragraph, language, wide):
            short = end - start <= MAX_CHARS  # most are: a generator for each would take a tenth of the time
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
    """The spans, int64 [sentences, 2], of the lines of a cleaned text: sentences already, so none is cut."""
    lengths = np.fromiter(map(len, text.split("\n") if text else ()), np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return np.stack([ends - lengths, ends], axis=1)
