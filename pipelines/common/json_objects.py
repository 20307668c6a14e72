"""Parse a line of JSON into an object, with memory bounded by the length of the line, not by the number of its values.

Python objects take up to forty times the bytes of their JSON text. So only fields with a single value are parsed from a
long line; nested lists and objects become empty ones.
"""

import json
import re
from functools import lru_cache
from typing import Any

LONG = 1 << 20  # bytes; a shorter line is parsed as usual, which takes at most forty times as much memory
MAX_FIELDS = 100_000  # of the object in a long line
MAX_TOKENS = 5_000_000  # strings and brackets in a long line; a document has a few, and scanning this many takes seconds
_FIELDS, _NESTED, _LIST = re.compile(rb'[\[\]{}",]'), re.compile(rb'[\[\]{}"]'), re.compile(rb"\s*\[")


class TooManyValues(ValueError):
    """Raised for a line with more values than any document has."""


class RepeatedField(ValueError):
    """Raised for an object that has a field, `name`, twice."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the field {name!r} occurs twice: remove one of them")
        self.name = name


@lru_cache(maxsize=8)
def _quoted(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, json.dumps(name, ensure_ascii=False)) for name in names]


def loads_once(text: str, wanted: tuple[str, ...]) -> Any:
    """Return the value of a JSON text. Raise RepeatedField if an object has one of the fields `wanted` twice, or ValueError."""
    repeated = [name for name, quoted in _quoted(wanted) if text.count(quoted) > 1]
    if not repeated:
        return json.loads(text)
    seen: list[tuple[str, Any]] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        seen[:] = found  # inner objects are parsed first, so the outermost one remains
        return dict(found)

    value = json.loads(text, object_pairs_hook=pairs)
    names = [name for name, _ in seen]
    if isinstance(value, dict) and (twice := [name for name in repeated if names.count(name) > 1]):
        raise RepeatedField(twice[0])
    return value


def parse_object(line: bytes, wanted: tuple[str, ...]) -> Any:
    """Return the value of a line of UTF-8 JSON; no object may have one of the fields `wanted` twice.

    Raises UnicodeDecodeError, TooManyValues, RecursionError, or another ValueError for invalid JSON or a repeated field.
    """
    text = line.removeprefix(b"\xef\xbb\xbf")  # for bytes, loads would also accept UTF-16 and surrogates
    if len(text) > LONG:
        text = _without_nested(text)
    return loads_once(text.decode("utf-8"), wanted)


def _string_end(data: bytes, start: int) -> int:
    """Return the end of the string whose first character is at `start`, or the end of the data if it isn't closed."""
    at = start
    while (at := data.find(b'"', at)) >= 0:
        before = at
        while before > start and data[before - 1] == 0x5C:
            before -= 1
        if (at - before) % 2 == 0:  # an even number of backslashes: the quote isn't escaped
            return at + 1
        at += 1
    return len(data)


def _without_nested(data: bytes) -> bytes:
    """Return an object's JSON with nested lists and objects emptied, or `[]` for a list. Raise TooManyValues."""
    if _LIST.match(data):
        return b"[]"
    parts: list[bytes] = []
    depth = fields = tokens = kept = at = 0
    while token := (_NESTED if depth > 1 else _FIELDS).search(data, at):
        byte, at = token.group(), token.end()
        tokens += 1
        if byte == b'"':
            at = _string_end(data, at)
        elif byte == b",":
            fields += depth == 1
        elif byte in b"[{":
            depth += 1
            if depth == 2:
                parts.append(data[kept:at])
        else:
            depth -= 1
            if depth == 1:
                kept = at - 1
        if fields > MAX_FIELDS or tokens > MAX_TOKENS:
            raise TooManyValues(
                f"it has more than {MAX_FIELDS:,} fields or {MAX_TOKENS:,} values: reduce it to the fields of a document"
            )
    parts.append(data[kept:] if depth <= 0 else b"")
    return b"".join(parts)
