"""Clean any text: Unicode NFC, no control characters, single spaces, one paragraph per line, no empty lines."""

import re

import numpy as np

from clozemill.pipelines.common import unicode_rules

# Line and paragraph separators, form feeds and the like end a line, as in str.splitlines.
_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(unicode_rules.character_class([*unicode_rules.CONTROLS, (0xD800, 0xDFFF)]))  # lone surrogates too


# UTF-8 byte -> 1 for the white space that clean text may contain, 2 for ASCII characters that it may not.
_FLAGS = bytes(1 if code in (10, 32) else 2 * (code < 32 or code == 127) for code in range(256))


def clean(text: str) -> str:
    """Return the cleaned text, which sentences, keys, offsets and tokens refer to. Idempotent."""
    # Most text needs little or no cleaning: array operations detect this many times faster than cleaning it.
    flags = np.frombuffer(text.encode("utf-8", "surrogatepass").translate(_FLAGS), np.uint8)
    plain = flags.max(initial=0) < 2 and (text.isascii() or _is_printable(text))
    if not plain:
        # Remove control characters first: one between a letter and its accent would prevent NFC from joining them.
        text = _CONTROLS.sub("", _BREAKS.sub("\n", text))
    if not text.isascii():
        text = unicode_rules.normalize("NFC", text)
    if not plain:
        return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
    return _close_up(text) if (flags[1:] & flags[:-1]).any() or flags[:1].any() or flags[-1:].any() else text


def _is_printable(text: str) -> bool:
    """Return whether a text contains only printable characters, spaces and line feeds."""
    return text.replace("\n", " ").isprintable() and "\ufffd" not in text


def _close_up(text: str) -> str:
    """Collapse the white space of a text whose only white space is spaces and line feeds, without splitting the text."""
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text.strip(" \n")
