"""MediaWiki XML dumps: pages out of a split's bytes, parsed one by one.

Pages are cut out by their closing tag before any XML is parsed, so a dump can be read from the middle and a malformed
page costs that page. No page is parsed together with a document type declaration, so no entity can be declared.
"""

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from xml.parsers import expat

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import delimited, document
from clozemill.pipelines.readers.document import Document, Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.wikitext import converter
from clozemill.pipelines.wikitext.wikis import REDIRECTS, UNKNOWN_WIKI, Wiki, language_of

OPEN, CLOSE, CLOSE_HEAD = b"<page", b"</page>", b"</siteinfo>"
MAX_HEAD = 1 << 20  # bytes in which a dump says what its wiki is


@dataclass
class Page:
    """What one <page> holds: the last revision's main slot is the page's.

    namespace: "" where the page names none, as in dumps before version 0.5. model, format: of the content, "" likewise.
    """

    title: str = ""
    namespace: str = ""
    page_id: str = ""
    redirect: bool = False
    text: str = ""
    model: str = ""
    format: str = ""

    @property
    def is_wikitext(self) -> bool:
        """Whether the text is wikitext, as the dump says; one that says nothing holds nothing else."""
        return self.model == "wikitext" or (not self.model and self.format in ("", "text/x-wiki"))


def cut_page(record: bytes) -> bytes:
    """From what lies between two </page>: the page up to (without) its closing tag; empty where no page begins."""
    at = record.find(OPEN)
    while at >= 0 and record[at + len(OPEN) : at + len(OPEN) + 1] not in (b">", b" ", b"\n", b"\t", b"\r"):
        at = record.find(OPEN, at + 1)
    return record[at:] if at >= 0 else b""


def _pieces(path: str, compression: str) -> Iterator[tuple[bytes, bool]]:
    """The decompressed pieces of a file from its start."""
    size = filesystem.size(path)
    return readers_compression.pieces(InputSplit(path, "wikixml", compression, 0, size, size))


def is_dump(path: str, compression: str) -> bool:
    """Whether a file begins like a dump; False where it can't be read."""
    with suppress(UserError), closing(_pieces(path, compression)) as pieces:
        return b"<mediawiki" in next(pieces, (b"", True))[0][:4096]
    return False


def check_header(record: bytes, path: str) -> None:
    """Looks at a dump's bytes before its first page. Raises UserError for an entity bomb or another kind of XML."""
    header = record[: len(record) - len(cut_page(record))]
    if b"<!DOCTYPE" in header or b"<!ENTITY" in header:
        raise UserError(f"{path} declares a document type or entities, which no MediaWiki dump does: it is refused")
    if b"<mediawiki" not in header:
        raise UserError(f"{path} is not a MediaWiki XML dump (no <mediawiki> element): give another --format")


def read_wiki(head: bytes) -> Wiki:
    """What a dump says of its wiki, from its head; nothing where that isn't well-formed."""
    declared, texts, namespaces, path, pieces = "", {}, [], [], []

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal declared
        path.append((name, attributes))
        pieces.clear()
        if name == "mediawiki":
            declared = attributes.get("xml:lang", "")

    def end(name: str) -> None:
        text, (_, attributes) = "".join(pieces).strip(), path.pop()
        if name == "namespace" and attributes.get("key", "").strip().lstrip("-").isdecimal():
            namespaces.append((int(attributes["key"]), text))
        texts[name] = text

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, pieces.append
    try:
        parser.Parse(head, False)
    except expat.ExpatError:
        return UNKNOWN_WIKI
    return Wiki(language_of(declared, texts.get("dbname", "")), tuple(namespaces))


_FIELDS = {
    ("page", "title"): "title",
    ("page", "ns"): "namespace",
    ("page", "id"): "page_id",
    ("page", "revision", "text"): "text",
    ("page", "revision", "model"): "model",
    ("page", "revision", "format"): "format",
}
_SLOT = ("page", "revision", "content")  # version 0.11: a revision's text may lie in slots


_REDIRECT = re.compile(r"\s*[#＃][ \t]*([^\s\[\]{}|<>#:*]+(?: [^\s\[\]{}|<>#:*]+)?)\s*:?\s*\[\[[^\[\]{}\n]+\]\]")


class _Handler:
    """Collects the page's own fields, and the last revision's; nested elements are told by their path."""

    def __init__(self) -> None:
        self.page, self.path, self.pieces, self.slot = Page(), [], [], {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.pieces = []
        if name == "redirect" and self.path == ["page", "redirect"]:
            self.page.redirect = True
        elif name == "revision" and self.path == ["page", "revision"]:  # it says what its own text is
            self.page.model = self.page.format = ""
        elif name == "content" and tuple(self.path[:4]) == _SLOT:
            self.slot = {}

    def data(self, text: str) -> None:
        self.pieces.append(text)

    def end(self, name: str) -> None:
        path = tuple(self.path[:5])  # no more than five, so that deep nesting costs no more than its bytes
        if field := _FIELDS.get(path):
            setattr(self.page, field, "".join(self.pieces))
        elif path[:3] == _SLOT and len(path) == 4:
            self.slot[name] = "".join(self.pieces)
        elif path == _SLOT and self.slot.get("role") == "main":
            for name in ("text", "model", "format"):
                setattr(self.page, name, self.slot.get(name, ""))
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


def is_redirect(text: str, wiki: Wiki = UNKNOWN_WIKI) -> bool:
    """Whether a page is a redirect by its text, for dumps that don't say so.

    That is a page that begins with "#WORD [[link]]", of a known word; of an unknown one, where the page says nothing else.
    """
    found = _REDIRECT.match(text)
    if not found:
        return False
    return found[1].lower() in REDIRECTS or not converter.to_text(text[found.end() :], wiki=wiki)


def read_pages(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Articles of a MediaWiki dump: namespace 0, wikitext, no redirects."""
    wiki = UNKNOWN_WIKI
    for number, (record, owned, closed) in enumerate(delimited.delimited(split, CLOSE)):
        if split.start == 0 and number == 0 and record is not None:
            check_header(record, split.path)
        if not owned:
            return
        if number == 0:  # the dump's head stands at the start of the file alone
            wiki = _wiki_of(split.path, split.compression, split.stamp)
        if record is None:
            yield document.too_long(f"{split.path}, page {number + 1}" + (f" after byte {split.start}" if split.start else ""))
        elif page := cut_page(record):
            yield _article(page, closed, split.path, wiki)


def read_head(path: str, compression: str) -> bytes:
    """A dump's bytes up to its first page, or to the end of what it says of its wiki; at most about MAX_HEAD."""
    head = bytearray()
    with closing(_pieces(path, compression)) as pieces:
        for piece, _ in pieces:
            head += piece
            end = head.find(CLOSE_HEAD)
            if end >= 0:
                del head[end + len(CLOSE_HEAD) :]
            if end >= 0 or len(head) >= MAX_HEAD or cut_page(head):
                break
    return bytes(head[: len(head) - len(cut_page(head))])


def names_no_namespaces(path: str, compression: str) -> bool:
    """Whether neither a dump's head nor its first page names a namespace; False where it can't be read."""
    data = bytearray()
    with suppress(UserError), closing(_pieces(path, compression)) as pieces:
        for piece, _ in pieces:
            data += piece
            page = cut_page(data)
            if b"<revision" in page or CLOSE in page or len(data) >= MAX_HEAD:
                break
        about, found, _ = page.partition(b"<revision") if data else (b"", b"", b"")
        return bool(found) and b"<ns" not in about and not read_wiki(bytes(data[: len(data) - len(page)])).namespaces
    return False


@lru_cache(maxsize=64)
def _wiki_of(path: str, compression: str, stamp: str) -> Wiki:
    """What a dump says of its wiki, read once per process. stamp: so that a changed file is read again."""
    return read_wiki(read_head(path, compression))


def _article(data: bytes, closed: bool, path: str, wiki: Wiki) -> Record:
    if not closed:
        return Rejected("malformed_xml", path, "the file ends within a page", document.excerpt_of(data))
    try:
        page = parse_page(data)
    except ValueError as error:
        try:
            data.decode()
        except UnicodeDecodeError as cause:
            return delimited.invalid_utf8(path, cause, data)
        return Rejected("malformed_xml", path, str(error), document.excerpt_of(data))
    source = f"{path}#{page.page_id}"
    namespace = page.namespace.strip() or str(wiki.namespace_of(page.title))
    if page.redirect or namespace != "0":
        return Rejected("redirect" if page.redirect else "other_namespace", source, page.title, bad=False)
    if not page.is_wikitext:
        return Rejected("other_content_model", source, f"{page.title}: {page.model or page.format}", bad=False)
    if is_redirect(page.text, wiki):
        return Rejected("redirect", source, page.title, bad=False)
    return Document(page.text, page.title, source, "wikitext", wiki)
