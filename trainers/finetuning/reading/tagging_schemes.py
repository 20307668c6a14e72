"""Detects the tagging scheme of tags, and extracts the entities that they mark.

Supports IOB1, IOB2, IOE1, IOE2 (Ramshaw & Marcus 1995, Tjong Kim Sang & Veenstra 1999), BIOES, also with M for I (BMES), and
BILOU (Ratinov & Roth 2009). Tags are O, or a prefix, a hyphen and a type: B-PER. Plain tags, such as NOUN, have no scheme.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

PREFIXES = "BIMELSU"
_BEGIN, _END = "BSU", "ESLU"  # prefixes of the first, or the last, word of an entity
_TYPED = re.compile(rf"([{PREFIXES}])-\w.*", re.DOTALL)
_FOREIGN = {  # unsupported forms, if all tags but O have them, and what to write instead
    rf"[{PREFIXES.lower()}]-\w.*": "write the prefix in upper case, as in B-PER",
    rf"[{PREFIXES}][_:./|]\w.*": "write a hyphen after the prefix, as in B-PER",
    rf".*\w-[{PREFIXES}]": "write the prefix first, as in B-PER",
    rf"[{PREFIXES}]": "add a type, as in B-PER",
}


class UnknownScheme(ValueError):
    """Error of tags that follow no known scheme. `tag`: an offending tag."""

    def __init__(self, tag: str, problem: str, hint: str) -> None:
        super().__init__(f"the tag {tag!r} {problem}: {hint}")
        self.tag = tag


def scheme_of(tags: Iterable[str]) -> str:
    """Return IOB, IOE, BIOES or BILOU; "" for plain tags. Raises UnknownScheme for anything else."""
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
        mixed = f"mixes schemes, since the prefixes are {', '.join(sorted(prefixes))}"
        raise UnknownScheme(next(iter(typed)), mixed, "use IOB, IOE, BIOES or BILOU")
    if prefixes & set("LU"):
        return "BILOU"
    if prefixes & set("SM") or {"B", "E"} <= prefixes:
        return "BIOES"
    return "IOE" if "E" in prefixes else "IOB"


def _check_plain(tags: Sequence[str]) -> None:
    """Raise UnknownScheme for tags in an unknown form of entities."""
    if brackets := [tag for tag in tags if re.match(r"\(\w", tag)]:
        raise UnknownScheme(brackets[0], "has the brackets of CoNLL-2012", "convert the tags to IOB, such as B-PER")
    tags = [tag for tag in tags if tag not in ("0", "o")]
    for form, hint in _FOREIGN.items():
        if tags and all(re.fullmatch(form, tag, re.DOTALL) for tag in tags) and not set(tags) <= set("ELMSU"):
            raise UnknownScheme(tags[0], "follows no known scheme", hint)


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (type, first word, word after the last) of each entity of a sentence, in any scheme.

    As in conlleval, sequences that break a scheme's rules have entities too: an entity ends where the type changes, and an
    inside tag without a begin tag starts one.
    """
    begin, inside = 0, ""  # inside: the type of the current entity, if it may continue
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
