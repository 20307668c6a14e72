"""Fill page templates, and write a card as Markdown. Text of the corpus is untrusted: it is escaped and made visible."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from html import escape
from typing import Any

from clozemill.pipelines.data_card import svg
from clozemill.pipelines.data_card.content import Card, Cell, Table

_LINE, _DELETE, _DELETE_SIGN, _SIGNS = "⏎", 0x7F, "␡", 0x2400
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_SEPARATORS = {"\u2028", "\u2029", "\x85"}  # some programs treat them as line ends


def visible(text: str) -> str:
    """Return text that is safe anywhere: line ends and control characters as symbols, unencodable characters as U+FFFD.

    Characters that change the writing direction are shown by their numbers, because they would reorder the text around them.
    """

    def shown(character: str) -> str:
        code = ord(character)
        if character == "\n" or character in _SEPARATORS:
            return _LINE
        if code < 0x20 or code == _DELETE:
            return _DELETE_SIGN if code == _DELETE else chr(_SIGNS + code)
        kind = unicodedata.category(character)
        if kind == "Cs" or code in (0xFFFE, 0xFFFF):
            return "\ufffd"
        turns = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        return f"<U+{code:04X}>" if turns or kind == "Cc" else character

    return text if text.isascii() and text.isprintable() else "".join(map(shown, text))


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2  # imported only when a page is written

    def final(value: Any) -> Any:
        return visible(value) if type(value) is str else value  # Markup is our own and already escaped

    return jinja2.Environment(
        loader=jinja2.PackageLoader("clozemill.pipelines", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=final,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(template: str, **values: Any) -> str:
    """Return a page from one of the package's templates."""
    return _environment().get_template(template).render(**values)


def card_html(card: Card, draw: Callable[[svg.Plot], str] = svg.draw) -> str:
    """Return report.html, which needs no other file."""
    from markupsafe import Markup

    drawn = {plot.name: Markup(draw(plot)) for section in card.sections for plot in section.plots}
    return fill("card.html", card=card, drawn=drawn)


def markdown(text: str) -> str:
    """Return a text for Markdown: one line, with all markup escaped."""
    return _MARKDOWN.sub(r"\\\1", escape(visible(text), quote=False)).strip()


def _cell(kind: str, value: Cell) -> str:
    text = str(value)
    if kind == "m" and re.fullmatch(r"[\w./-]+", text):
        return f"`{text}`"
    return text if kind == "r" else markdown(text)


def _table(table: Table) -> list[str]:
    kept = [place for place, kind in enumerate(table.kinds) if kind not in "bi"]
    lines = [
        [markdown(table.head[place]) for place in kept],
        ["---:" if table.kinds[place] == "r" else "---" for place in kept],
    ]
    lines += [[_cell(table.kinds[place], row[place]) for place in kept] for row in table.rows]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return [f"### {markdown(table.title)}", "", *rows, "", *([markdown(table.note), ""] if table.note else [])]


def card_markdown(card: Card) -> str:
    """Return report.md: the card without its plots, which are described in words."""
    lines = ["# Data card", "", f"Digest `{card.digest}`", "", f"**{markdown(card.verdict)}**", ""]
    lines += [f"- {markdown(name)}: {markdown(value)}" for name, value in card.tiles] + [""]
    for section in card.sections:
        lines += [f"## {section.title}", ""]
        for sentence in [*section.text, *(f"{plot.title}: {plot.alt}" for plot in section.plots)]:
            lines += [markdown(sentence), ""]
        for table in section.tables:
            lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"
