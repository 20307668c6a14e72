"""A line of JSON to the fields of its object, in memory that the length of the line bounds and not the number of its values.

Python's objects take up to forty times the bytes of the JSON that they come from. So of a long line only the fields that
hold one value are parsed; lists and objects in it become empty ones.
"""

import json
import re
from functools import lru_cache
from typing import Any

LONG = 1 << 20  # bytes; a shorter line is parsed as it is, in forty times as much memory at most
MAX_FIELDS = 100_000  # of the object in a long line
MAX_TOKENS = 5_000_000  # strings and brackets in a long line: a document has a few, and a scan of so many takes seconds
_FIELDS, _NESTED, _LIST = re.compile(rb'[\[\]{}",]'), re.compile(rb'[\[\]{}"]'), re.compile(rb"\s*\[")


class TooManyValues(ValueError):
    """A line holds more values than a document could have."""


class RepeatedField(ValueError):
    """An object has a field, `name`, twice."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it has the field {name!r} twice: which one is meant?")
        self.name = name


@lru_cache(maxsize=8)
def _quoted(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, json.dumps(name, ensure_ascii=False)) for name in names]


def loads_once(text: str, wanted: tuple[str, ...]) -> Any:
    """The value of a JSON text. Raises RepeatedField for an object that holds one of the fields `wanted` twice, ValueError."""
    repeated = [name for name, quoted in _quoted(wanted) if text.count(quoted) > 1]
    if not repeated:
        return json.loads(text)
    seen: list[tuple[str, Any]] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        seen[:] = found  # objects are closed from the inside out: what stays is the outermost
        return dict(found)

    value = json.loads(text, object_pairs_hook=pairs)
    names = [name for name, _ in seen]
    if isinstance(value, dict) and (twice := [name for name in repeated if names.count(name) > 1]):
        raise RepeatedField(twice[0])
    return value


def parse_object(line: bytes, wanted: tuple[str, ...]) -> Any:
    """The value of a line of UTF-8 JSON; an object should hold none of the fields `wanted` twice.

    Raises UnicodeDecodeError, TooManyValues, another ValueError for what isn't JSON or holds a field twice, RecursionError.
    """
    text = line.removeprefix(b"\xef\xbb\xbf")  # given bytes, loads would guess at UTF-16 and let surrogates pass
    if len(text) > LONG:
        text = _without_nested(text)
    return loads_once(text.decode("utf-8"), wanted)


def _string_end(data: bytes, start: int) -> int:
    """Where a string ends whose first character is at `start`; the end of the data if it doesn't."""
    at = start
    while (at := data.find(b'"', at)) >= 0:
        before = at
        while before > start and data[before - 1] == 0x5C:
            before -= 1
        if (at - before) % 2 == 0:  # the backslashes before it are escaped ones
            return at + 1
        at += 1
    return len(data)


def _without_nested(data: bytes) -> bytes:
    """An object's JSON with `[]` and `{}` for the lists and objects in it, or `[]` for a list. Raises TooManyValues."""
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
            raise TooManyValues(f"it holds more than {MAX_FIELDS:,} fields or {MAX_TOKENS:,} values, as no document does")
    parts.append(data[kept:] if depth <= 0 else b"")
    return b"".join(parts)
