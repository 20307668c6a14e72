"""Tagging schemes: whether tags follow one, and which entities they mark.

Known are IOB1, IOB2, IOE1, IOE2 (Ramshaw & Marcus 1995, Tjong Kim Sang & Veenstra 1999), BIOES, with M for I too (BMES), and
BILOU (Ratinov & Roth 2009). Tags are O, or a prefix, a hyphen and a type: B-PER. Plain tags, such as NOUN, follow none.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

PREFIXES = "BIMELSU"
_BEGIN, _END = "BSU", "ESLU"  # always the first, or the last, word of an entity
_TYPED = re.compile(rf"([{PREFIXES}])-\w.*", re.DOTALL)
_FOREIGN = {  # what looks like a scheme but isn't one of these, if all tags but O do; and what to write instead
    rf"[{PREFIXES.lower()}]-\w.*": "write the prefix in upper case, as in B-PER",
    rf"[{PREFIXES}][_:./|]\w.*": "write a hyphen after the prefix, as in B-PER",
    rf".*\w-[{PREFIXES}]": "write the prefix first, as in B-PER",
    rf"[{PREFIXES}]": "add a type, as in B-PER",
}


class UnknownScheme(ValueError):
    """Why tags follow no known scheme. `tag`: one that doesn't."""

    def __init__(self, tag: str, problem: str, hint: str) -> None:
        super().__init__(f"the tag {tag!r} {problem}: {hint}")
        self.tag = tag


def scheme_of(tags: Iterable[str]) -> str:
    """IOB, IOE, BIOES or BILOU; "" for plain tags. Raises UnknownScheme for anything in between."""
    used = sorted(set(tags) - {"O"})
    typed = {tag: match[1] for tag in used if (match := _TYPED.fullmatch(tag))}
    others = [tag for tag in used if tag not in typed]
    if typed and others:
        hint = "write O" if others[0] in ("0", "o") else "use tags of IOB, IOE, BIOES or BILOU alone, or tags without a scheme"
        raise UnknownScheme(others[0], f"is neither O nor of the form of {next(iter(typed))}", hint)
    if not typed:
        _check_plain(others)
        return ""
    prefixes = set(typed.values())
    if (prefixes & set("LU") and prefixes & set("ESM")) or {"I", "M"} <= prefixes:
        mixed = f"is one of several schemes, for the prefixes are {', '.join(sorted(prefixes))}"
        raise UnknownScheme(next(iter(typed)), mixed, "use IOB, IOE, BIOES or BILOU")
    if prefixes & set("LU"):
        return "BILOU"
    if prefixes & set("SM") or {"B", "E"} <= prefixes:
        return "BIOES"
    return "IOE" if "E" in prefixes else "IOB"


def _check_plain(tags: Sequence[str]) -> None:
    """Raises UnknownScheme for tags that aren't plain but of a form of entities that isn't known."""
    if brackets := [tag for tag in tags if re.match(r"\(\w", tag)]:
        raise UnknownScheme(brackets[0], "is of the brackets of CoNLL-2012", "convert the tags to IOB, such as B-PER")
    tags = [tag for tag in tags if tag not in ("0", "o")]
    for form, hint in _FOREIGN.items():
        if tags and all(re.fullmatch(form, tag, re.DOTALL) for tag in tags) and not set(tags) <= set("ELMSU"):
            raise UnknownScheme(tags[0], "follows no known scheme", hint)


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(type, first word, word after the last) of each entity of a sentence, in any of the schemes.

    As in conlleval, sequences that break a scheme's rules have entities, too: one ends where the type changes, and what
    goes on without a beginning begins one.
    """
    begin, inside = 0, ""  # inside: the type of the entity that may go on
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = (tag[0], tag[2:]) if _TYPED.fullmatch(tag) else ("O", "")
        if inside and (kind != inside or prefix in _BEGIN):
            yield inside, begin, place
            inside = ""
        if kind and not inside:
            begin = place
        inside = kind
        if prefix in _END:
            yield kind, begin, place + 1
            inside = ""
