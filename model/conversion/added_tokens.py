"""Tokens that the files of a Hugging Face folder add to the vocabulary of its tokenizer."""

from typing import Any


def mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def content(token: Any) -> Any:
    """Return a token's text, given as a string or as a mapping as in newer files."""
    found = token.get("content") if isinstance(token, dict) else token
    return (repr(found),) if isinstance(found, list | dict) else found  # hashable, and then refused


def listed(settings: dict[str, Any], named: dict[str, Any], ids: dict[str, Any], tokenizer: dict[str, Any]) -> dict[Any, Any]:
    """Return added tokens, as the files have them, with their ids: None if transformers assigns the next free one."""
    found: dict[Any, Any] = dict(ids)  # keys come from files, so that any value is possible
    own = tokenizer.get("added_tokens")
    for each in own if isinstance(own, list) else ():
        found[content(mapping(each))] = mapping(each).get("id")
    for index, each in mapping(settings.get("added_tokens_decoder")).items():
        found[content(each)] = int(index) if str(index).isdecimal() else None
    for where in (settings, named):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = where.get(key)
            for each in more.values() if isinstance(more, dict) else more or () if isinstance(more, list | None) else ():
                found.setdefault(content(each), None)
    return found


def checked(found: dict[Any, Any]) -> dict[str, int | None]:
    """Return added tokens. Raises ValueError for one that can't be an entry of a vocabulary, or an id that can't be."""
    for token, index in found.items():
        fine = isinstance(token, str) and token.strip() and "\n" not in token and "\r" not in token
        if not fine or not (index is None or (isinstance(index, int) and 0 <= index < 1 << 21)):
            raise ValueError(f"it has an added token {token!r:.40} with the id {index!r:.40}, which can't be")
    return found


def merged(tokens: tuple[str, ...], added: dict[str, int | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (tokens with the added ones at their ids, the names of the new ones). Raises ValueError for an id in use."""
    found, have, new = list(tokens), set(tokens), []
    for token, index in sorted(added.items(), key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0])):
        if token in have:
            continue
        index = len(found) if index is None else index
        found += [""] * (index + 1 - len(found))
        if found[index]:
            raise ValueError(f"its added token {token!r:.40} has the id {index}, which is that of {found[index]!r:.40}")
        found[index] = token
        new.append(token)
    return tuple(found), tuple(new)
