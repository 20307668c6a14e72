"""Any text to clean text: Unicode NFC, no control characters, single spaces, a paragraph per line, no empty line."""

import re
import unicodedata

# Cc and Cf but tab, newline and carriage return (white space below), lone surrogates and the replacement character.
# Line and paragraph separators, form feeds and the like end a line, as str.splitlines has it.
_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffd"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f]"
)


def clean(text: str) -> str:
    """The cleaned text: what sentences, keys, offsets and tokens refer to. Idempotent."""
    # Most text holds nothing to mend: str.isprintable tells so ten times as fast as the expressions would.
    plain = text.replace("\n", " ").isprintable() and "\ufffd" not in text
    if not plain:
        # Controls go first: one between a letter and its accent would keep NFC from joining them.
        text = _CONTROLS.sub("", _BREAKS.sub("\n", text))
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _close_up(text) if plain else "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))


def _close_up(text: str) -> str:
    """The same for a text in which spaces and line breaks are the only white space, without taking it apart."""
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text.strip(" \n")
