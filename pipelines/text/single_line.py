"""Clean the text of fine-tuning examples like the corpus, on one line, and track where characters came from."""

import unicodedata

import numpy as np

from clozemill.pipelines.common.unicode_rules import category, is_control, normalize

Located = tuple[np.ndarray, np.ndarray, np.ndarray]  # the tokens of a text, their starts, and their ends

# Every character that cleaning treats as the end of a line becomes a space, so that offsets don't change.
BREAKS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", " "))

LIBRARY_BREAKS = {code: " " for code in BREAKS if chr(code) in "\n\r\u2028\u2029"}  # cleaning drops the others


def _dropped(char: str, library: bool = False) -> bool:
    """Return whether cleaning drops a character: controls, lone surrogates, the replacement character.

    library: drop what TextRules drops, including format and private-use characters.
    """
    if library:
        return char == "\ufffd" or (char != "\t" and category(char) in ("Cc", "Cf", "Cs", "Co"))
    return bool(is_control(char)) or "\ud800" <= char <= "\udfff"


def plain(text: str, library: bool = False) -> str:
    """Return a text as the tokenizer gets it: like the shards' texts, without control characters and in NFC, but on one line.

    library: clean as TextRules does, without NFC.
    """
    text = text.translate(LIBRARY_BREAKS if library else BREAKS)
    if not text.isprintable() or "\ufffd" in text:
        text = "".join(char for char in text if not _dropped(char, library))
    return text if library else normalize("NFC", text)


def places(text: str, library: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the source in `text` of each character of `plain(text)`: (begin, end), int64 [len(plain(text))].

    Characters that are combined or reordered all come from their complete group.
    """
    if library:
        kept = [place for place, char in enumerate(text.translate(LIBRARY_BREAKS)) if not _dropped(char, library)]
        return np.array(kept, np.int64), np.array(kept, np.int64) + 1
    begins, ends = [], []
    group, begin, end = "", 0, 0
    for place, char in enumerate(text.translate(BREAKS) + " "):  # the space ends the last group
        one = "" if _dropped(char) else char
        if one and not unicodedata.combining(one) and apart(group, one):
            count = len(normalize("NFC", group))
            begins += [begin] * count
            ends += [end] * count
            group, begin = "", place
        group, end = group + one, place + 1 if one else end
    return np.array(begins, np.int64), np.array(ends, np.int64)


def apart(group: str, char: str) -> bool:
    """Return whether NFC doesn't combine a character with those before it."""
    one, other, both = (normalize("NFC", text) for text in (group, char, group + char))
    return both == one + other
