"""Markup of wikis that convert between scripts or spellings: keep one variant of -{flags|rules}-.

    >>> resolve("用-{zh-hans:电脑;zh-hant:電腦}-和-{R|Windows}-", ("zh-hans", "zh"))
    '用电脑和Windows'

As in MediaWiki's LanguageConverter, a rule with the flag T (title), H (hidden), - (removed) or + (added) shows nothing. R, and
text without rules, show the text unchanged. All others show one variant of the text.
"""

import re
from collections.abc import Sequence

from clozemill.pipelines.wikitext.wikis import VARIANTS

# Innermost markup only: braces inside it belong to templates, which are resolved first.
_MARKUP = re.compile(r"-\{(?!\{)([^{}]*+)\}-")
_CODE = rf"(?i:{'|'.join(VARIANTS)}|ike|ijek|ekav|cyrl|latn|hans|hant|arab)(?:-[a-zA-Z]+)*"
_FLAG = re.compile(rf"[A-Z+-]?|{_CODE}")
_RULE = re.compile(rf"\s*(?:[^;:]*?=>)?\s*({_CODE})\s*:(?!//)(.*)", re.DOTALL)
_BETWEEN = re.compile(rf";(?=\s*(?:[^;:]*?=>)?\s*{_CODE}\s*:(?!//))")
_MAX_NESTING = 20
_SILENT = frozenset("THN+-")
# Placeholder for markup that shows nothing: unlike an empty line, a line with only this doesn't end a paragraph.
_NOTHING = "\0"
_EMPTY_LINES = re.compile(r"\n(?:[ \t\0]*\0[ \t]*\n)+")


def _shown(text: str, preferred: Sequence[str]) -> str:
    """Return the text of the preferred variant, or of the first rule; text without rules unchanged."""
    rules: dict[str, str] = {}
    for part in _BETWEEN.split(text):
        if rule := _RULE.fullmatch(part):
            rules.setdefault(rule[1].lower(), rule[2].strip().removesuffix(";").rstrip())
    if not rules:
        return text.strip()
    return next((rules[variant] for variant in preferred if variant in rules), next(iter(rules.values())))


def resolve(text: str, preferred: Sequence[str]) -> str:
    """Replace markup that has no braces inside by what it shows. Call `tidy` when no markup is left."""

    def replace(match: re.Match) -> str:
        head, bar, rules = match[1].partition("|")
        flags = {flag.strip() for flag in head.split(";")}
        if not bar or not all(map(_FLAG.fullmatch, flags)):
            return _shown(match[1], preferred) or _NOTHING
        if "R" in flags:
            return rules.strip() or _NOTHING
        return _NOTHING if flags & _SILENT and "A" not in flags else _shown(rules, preferred) or _NOTHING

    for _ in range(_MAX_NESTING):
        text, count = _MARKUP.subn(replace, text)
        if not count:
            break
    return text


def tidy(text: str) -> str:
    """Remove unpaired delimiters and the placeholders of markup that shows nothing."""
    text = _EMPTY_LINES.sub("\n", "\n" + text)[1:]
    return text.replace("-{", "").replace("}-", "").replace(_NOTHING, "")
