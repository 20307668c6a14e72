"""MediaWiki XML dumps: pages out of a split's bytes, parsed one by one.

Pages are cut out by their closing tag before any XML is parsed, so a dump can be read from the middle and a malformed
page costs that page. No page is parsed together with a document type declaration, so no entity can be declared.
"""

from dataclasses import dataclass
from xml.parsers import expat

from pipelines.schema import UserError

OPEN, CLOSE = b"<page", b"</page>"


@dataclass
class Page:
    """What one <page> holds: the last revision's text is the page's."""

    title: str = ""
    namespace: str = "0"
    page_id: str = ""
    redirect: bool = False
    text: str = ""


def cut_page(record: bytes) -> bytes:
    """From what lies between two </page>: the page up to (without) its closing tag; empty where no page begins."""
    at = record.find(OPEN)
    while at >= 0 and record[at + len(OPEN) : at + len(OPEN) + 1] not in (b">", b" ", b"\n", b"\t", b"\r"):
        at = record.find(OPEN, at + 1)
    return record[at:] if at >= 0 else b""


def check_header(record: bytes, path: str) -> None:
    """Looks at a dump's bytes before its first page. Raises UserError for an entity bomb or another kind of XML."""
    header = record[: len(record) - len(cut_page(record))]
    if b"<!DOCTYPE" in header or b"<!ENTITY" in header:
        raise UserError(f"{path} declares a document type or entities, which no MediaWiki dump does: it is refused")
    if b"<mediawiki" not in header:
        raise UserError(f"{path} is not a MediaWiki XML dump (no <mediawiki> element): give another --format")


class _Handler:
    """Collects the page's own fields, and the last revision's text; nested elements are told by their path."""

    def __init__(self) -> None:
        self.page, self.path, self.pieces = Page(), [], []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.pieces = []
        if self.path == ["page", "redirect"]:
            self.page.redirect = True

    def data(self, text: str) -> None:
        self.pieces.append(text)

    def end(self, name: str) -> None:
        field = {
            ("page", "title"): "title",
            ("page", "ns"): "namespace",
            ("page", "id"): "page_id",
            ("page", "revision", "text"): "text",
        }.get(tuple(self.path[:4]))  # no more than four, so that deep nesting costs no more than its bytes
        if field:
            setattr(self.page, field, "".join(self.pieces))
        self.path.pop()
        self.pieces = []


def parse_page(data: bytes) -> Page:
    """One page from `<page>` up to, but without, its closing tag. Raises ValueError with the reason."""
    handler, parser = _Handler(), expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = handler.start, handler.end
    parser.CharacterDataHandler = handler.data
    try:
        parser.Parse(data, False)
        parser.Parse(CLOSE, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from None
    return handler.page
