"""Fill page templates, and write a page as Markdown. Foreign text is untrusted: it is escaped and made visible."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from typing import Any

from clozemill.pipelines.pages import svg
from clozemill.pipelines.pages.content import Cell, Page, Plot, Section, Table, Token

_LINE, _DELETE, _DELETE_SIGN, _SIGNS = "⏎", 0x7F, "␡", 0x2400
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_BEFORE_CLOSING = re.compile(r" (?=[.,;:!?)\]%])")  # the tokenizer separates punctuation from words
_SEPARATORS = {"\u2028", "\u2029", "\x85"}  # some programs treat them as line ends


def visible(text: str) -> str:
    """Return text that is safe anywhere: line ends and control characters as symbols, unencodable characters as U+FFFD.

    Characters that change the writing direction are shown by their numbers, because they would reorder the text around them.
    """

    def visible(character: str) -> str:
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

    return text if text.isascii() and text.isprintable() else "".join(map(visible, text))


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


def page_html(page: Page, draw: Callable[[Plot], str] = svg.draw) -> str:
    """Return a page as HTML, which needs no other file."""
    from markupsafe import Markup

    drawn = {plot.name: Markup(draw(plot)) for section in page.sections for plot in section.plots}
    return fill("report.html", page=page, drawn=drawn)


def text_of(tokens: Sequence[Token]) -> str:
    """Return the original text of tokens, without special ones: pieces are joined to words."""
    text = ""
    for token in tokens:
        if token.how != "special":
            piece = token.original or token.shown
            text += piece.removeprefix("##") if token.glued else (" " if text else "") + piece
    return _BEFORE_CLOSING.sub("", text)


def markdown(text: str) -> str:
    """Return a text for Markdown: one line, with all markup escaped."""
    return _MARKDOWN.sub(r"\\\1", escape(visible(text), quote=False)).strip()


def _cell(kind: str, value: Cell) -> str:
    text = str(value)
    if kind == "m" and re.fullmatch(r"[\w./-]+", text):
        return f"`{text}`"
    return text if kind in "rh" else markdown(text)


def _table(table: Table) -> list[str]:
    kept = [place for place, kind in enumerate(table.kinds) if kind not in "bi"]
    lines = [
        [markdown(table.head[place]) for place in kept],
        ["---:" if table.kinds[place] in "rh" else "---" for place in kept],
    ]
    lines += [[_cell(table.kinds[place], row[place]) for place in kept] for row in table.rows]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return [f"### {markdown(table.title)}", "", *rows, "", *([markdown(table.note), ""] if table.note else [])]


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    for sentence in [*section.text, *(f"{plot.title}: {plot.alt}" for plot in section.plots)]:
        lines += [markdown(sentence), ""]
    for name, meaning in section.terms:
        lines += [f"- **{markdown(name)}**: {markdown(meaning)}"]
    lines += [""] * bool(section.terms)
    for quote in section.quotes:
        lines += [f"> {markdown(quote)}", ""]
    for table in section.tables:
        lines += _table(table)
    for example in section.examples:
        lines += [f"### {markdown(example.title)}", "", markdown(f"{example.note} {example.meaning}"), ""]
        lines += [f"- {side.name}: {markdown(_shown(side.tokens))}" for side in example.sides] + [""]
        for table in example.tables:
            lines += _table(table)
    return lines


def _shown(tokens: Sequence[Token]) -> str:
    """Return tokens as `clozemill inspect` prints them: words joined, and {shown<-original} where the model predicts."""
    how, text, joinable = {"mask": "{{{0}<-{1}}}", "random": "{{{0}<-{1}}}", "kept": "{{{0}}}"}, "", False
    for token in tokens:
        if token.how in how:
            piece = how[token.how].format(token.shown, token.original)
        elif token.glued:  # after a token in braces, a piece keeps its ##
            piece = token.shown if joinable else token.original or token.shown
        else:
            piece = token.shown
        text += piece if joinable and token.glued and not token.how else (" " if text else "") + piece
        joinable = token.how not in how
    return text


def page_markdown(page: Page) -> str:
    """Return a page as Markdown, without its plots, which are described in words."""
    lines = [f"# {page.kind}: {markdown(page.title)}", ""]
    for sentence in page.lead:
        lines += [markdown(sentence), ""]
    for sentence in filter(None, (page.verdict, page.result)):
        lines += [f"**{markdown(sentence)}**", ""]
    lines += [f"- Warning: {markdown(warning)}" for warning in page.warnings] + [""] * bool(page.warnings)
    lines += [f"- {name}: `{value}`" for name, value in page.facts]
    lines += [f"- {markdown(name)}: {markdown(value)}" for name, value in page.tiles] + [""]
    for section in page.sections:
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"
