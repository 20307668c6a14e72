"""Any text to clean text: Unicode NFC, no control characters, single spaces, a paragraph per line, no empty line."""

import re

import numpy as np

from clozemill.pipelines.common import unicode_rules

# Line and paragraph separators, form feeds and the like end a line, as str.splitlines has it.
_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(unicode_rules.character_class([*unicode_rules.CONTROLS, (0xD800, 0xDFFF)]))  # lone surrogates too


# UTF-8 byte -> 1 for the white space that clean text has, 2 for what ASCII has besides and clean text has not.
_FLAGS = bytes(1 if code in (10, 32) else 2 * (code < 32 or code == 127) for code in range(256))


def clean(text: str) -> str:
    """The cleaned text: what sentences, keys, offsets and tokens refer to. Idempotent."""
    # Most text needs little or no cleaning: array operations detect this many times faster than cleaning it.
    flags = np.frombuffer(text.encode("utf-8", "surrogatepass").translate(_FLAGS), np.uint8)
    plain = flags.max(initial=0) < 2 and (text.isascii() or _is_printable(text))
    if not plain:
        # Controls go first: one between a letter and its accent would keep NFC from joining them.
        text = _CONTROLS.sub("", _BREAKS.sub("\n", text))
    if not text.isascii():
        text = unicode_rules.normalize("NFC", text)
    if not plain:
        return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
    return _close_up(text) if (flags[1:] & flags[:-1]).any() or flags[:1].any() or flags[-1:].any() else text


def _is_printable(text: str) -> bool:
    """Whether a text holds nothing but printable characters, spaces and line feeds."""
    return text.replace("\n", " ").isprintable() and "\ufffd" not in text


def _close_up(text: str) -> str:
    """White space closed up in a text in which spaces and line feeds are all there is, without taking it apart."""
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text.strip(" \n")
