"""Guesses the encoding of text that isn't UTF-8, for error messages: a guess never changes how a file is read.

Each candidate decodes the bytes strictly, and is scored by the fraction of its non-ASCII characters that are frequent in the
languages it is used for. Wrong candidates mostly fail to decode, or give rare characters.
"""

import codecs
import re
import shlex
from collections.abc import Callable

SAMPLE = 1 << 16  # bytes to look at
_LEAST_SCORE = 0.6
_KANA = re.compile("[\u3040-\u30ff]")
_JAPANESE = re.compile("[\u3000-\u303f\u3040-\u30ff\u4e00-\u9fff\uff01-\uff5e]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_FULL_WIDTH = re.compile("[\u3000-\u303f\uff01-\uff5e“”‘’…—·]")  # punctuation of all East Asian languages
_OTHER = re.compile("[^\0-\x7f]")
_MIXED = re.compile("[A-Za-z][^\0-\x7f]|[^\0-\x7f][a-z]")  # words of Latin letters
_RUSSIAN = re.compile("[оеаинтсрвл]")  # the ten most frequent letters, two thirds of Russian text
_CYRILLIC = re.compile("[а-яёА-ЯЁіїєґўј]")
_WESTERN = re.compile("[äöüßÄÖÜéèêëàâáãåçñíìîïóòôõøúùûœæÉÈÀÅØÆÇÑ–—‘’“”„…«»€£§°·•©®™¿¡ºª\xa0]")


def _japanese(chars: str) -> float:
    """Return the fraction of Japanese characters; 0 without kana, which every Japanese text has."""
    if len(_KANA.findall(chars)) < 0.15 * len(chars):
        return 0.0
    return len(_JAPANESE.findall(chars)) / len(chars)


def _korean(chars: str) -> float:
    return len(_HANGUL.findall(chars)) / len(_FULL_WIDTH.sub("", chars) or chars)


def _frequent_ideographs(encoding: str, first: int, last: int) -> Callable[[str], float]:
    """Return the score for an encoding that has the frequent ideographs in rows `first` to `last`, and rare ones after them."""

    def score(chars: str) -> float:
        chars = _FULL_WIDTH.sub("", chars)
        rows = [char.encode(encoding)[0] for char in chars]
        return sum(first <= row <= last for row in rows) / len(rows) if rows else 0.0

    return score


def _russian(chars: str) -> float:
    """Return the fraction of Cyrillic letters; 0 if the frequent ones are rare, since every byte is some letter."""
    if len(chars) < 3 or len(_RUSSIAN.findall(chars)) < 0.4 * len(chars):
        return 0.0
    return len(_CYRILLIC.findall(chars)) / len(chars)


def _western(chars: str) -> float:
    return len(_WESTERN.findall(chars)) / len(chars)


# In this order: the first of several best wins. Names as iconv and Python know them.
CANDIDATES: dict[str, tuple[str, Callable[[str], float]]] = {
    "Shift_JIS": ("cp932", _japanese),
    "EUC-JP": ("euc_jp", _japanese),
    "EUC-KR": ("euc_kr", _korean),
    "GB18030": ("gb18030", _frequent_ideographs("gb18030", 0xB0, 0xD7)),
    "Big5": ("big5", _frequent_ideographs("big5", 0xA4, 0xC6)),
    "Windows-1251": ("cp1251", _russian),
    "KOI8-R": ("koi8_r", _russian),
    "Windows-1252": ("cp1252", _western),
}
_CYRILLIC_CODES = ("cp1251", "koi8_r")


def _decoded(data: bytes, encoding: str) -> str:
    """Return the text of data, whose last character may be incomplete; "" if it isn't valid."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return ""


def likely_encoding(data: bytes) -> str:
    """Return the name of the encoding that text most likely has; "" if none of CANDIDATES is likely."""
    best, name = _LEAST_SCORE, ""
    for candidate, (encoding, score) in CANDIDATES.items():
        text = _decoded(data[:SAMPLE], encoding)
        chars = "".join(_OTHER.findall(text))
        if not chars or (encoding in _CYRILLIC_CODES and len(_MIXED.findall(text)) > 0.1 * len(chars)):
            continue
        if (found := score(chars)) > best:
            best, name = found, candidate
    return name


def conversion_hint(data: bytes, path: str = "") -> str:
    """Return what to do with text that isn't UTF-8: "it looks like Shift_JIS: convert it with iconv …"."""
    quoted = shlex.quote(path) if path else "FILE"
    if name := likely_encoding(data):
        return f"it looks like {name}: convert it with iconv -f {name.upper()} -t UTF-8 {quoted} > NEW"
    return "convert the file to UTF-8"
