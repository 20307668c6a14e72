"""Read MediaWiki XML dumps: cut pages out of the bytes of a split and parse them one by one.

Pages are cut at their closing tags before any XML is parsed. So a dump can be read from the middle, and a malformed page
affects no other page. A document type declaration never reaches the parser of a page, so no entity can be declared.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from xml.parsers import expat

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import delimited, document
from clozemill.pipelines.readers.document import UNCLOSED_DUMP, Document, Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.wikitext import converter
from clozemill.pipelines.wikitext.wikis import REDIRECTS, UNKNOWN_WIKI, Wiki, language_of

OPEN, CLOSE, CLOSE_HEAD, END = b"<page", b"</page>", b"</siteinfo>", b"</mediawiki"
MAX_HEAD = 1 << 20  # bytes of a dump in which its wiki is described
Bytes = TypeVar("Bytes", bytes, bytearray)


@dataclass
class Page:
    """The content of one <page>: the main slot of its last revision.

    namespace: "" if the page names none, as in dumps before version 0.5. model, format: of the content, or "".
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
        """Whether the dump declares the text as wikitext, or declares nothing (such dumps contain only wikitext)."""
        return self.model == "wikitext" or (not self.model and self.format in ("", "text/x-wiki"))


def cut_page(record: Bytes) -> Bytes:
    """Return the page in the bytes before a </page>, without its closing tag; empty if no page begins there."""
    at = record.find(OPEN)
    while at >= 0 and record[at + len(OPEN) : at + len(OPEN) + 1] not in (b">", b" ", b"\n", b"\t", b"\r"):
        at = record.find(OPEN, at + 1)
    return record[at:] if at >= 0 else record[:0]


def _pieces(path: str, compression: str) -> Generator[tuple[bytes, bool], None, None]:
    """Yield the decompressed chunks of a file from its start."""
    size = filesystem.size(path)
    return readers_compression.pieces(InputSplit(path, "wikixml", compression, 0, size, size))


def is_dump(path: str, compression: str) -> bool:
    """Return whether a file begins like a dump; False if it can't be read."""
    with suppress(UserError), closing(_pieces(path, compression)) as pieces:
        return b"<mediawiki" in next(pieces, (b"", True))[0][:4096]
    return False


def check_header(record: bytes, path: str) -> None:
    """Check a dump's bytes before its first page. Raise UserError for an entity bomb or another kind of XML."""
    header = record[: len(record) - len(cut_page(record))]
    if b"<!DOCTYPE" in header or b"<!ENTITY" in header:
        raise UserError(
            f"{path} declares a document type or entities, which a MediaWiki dump never does: check where it is from"
        )
    if b"<mediawiki" not in header:
        raise UserError(f"{path} is not a MediaWiki XML dump (no <mediawiki> element): give another --format")


def read_wiki(head: bytes) -> Wiki:
    """Return the description of the wiki in a dump's head, or UNKNOWN_WIKI if it isn't well-formed."""
    declared = ""
    texts: dict[str, str] = {}
    namespaces: list[tuple[int, str]] = []
    path: list[tuple[str, dict[str, str]]] = []
    pieces: list[str] = []

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
_SLOT = ("page", "revision", "content")  # version 0.11: the text of a revision may be in slots


_REDIRECT = re.compile(r"\s*[#＃][ \t]*([^\s\[\]{}|<>#:*]+(?: [^\s\[\]{}|<>#:*]+)?)\s*:?\s*\[\[[^\[\]{}\n]+\]\]")


class _Handler:
    """Collects the fields of the page and of its last revision. Nested elements are distinguished by their paths."""

    def __init__(self) -> None:
        self.page = Page()
        self.path: list[str] = []
        self.pieces: list[str] = []
        self.slot: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.pieces = []
        if name == "redirect" and self.path == ["page", "redirect"]:
            self.page.redirect = True
        elif name == "revision" and self.path == ["page", "revision"]:  # each revision declares its own content model
            self.page.model = self.page.format = ""
        elif name == "content" and tuple(self.path[:4]) == _SLOT:
            self.slot = {}

    def data(self, text: str) -> None:
        self.pieces.append(text)

    def end(self, name: str) -> None:
        path = tuple(self.path[:5])  # at most five, so that deep nesting stays linear in its bytes
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
    """Parse one page, from `<page>` to before its closing tag. Raise ValueError with the reason."""
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
    """Return whether a page is a redirect according to its text, for dumps that don't mark redirects.

    A redirect begins with "#WORD [[link]]". If the word isn't known, nothing else may follow.
    """
    found = _REDIRECT.match(text)
    if not found:
        return False
    return found[1].lower() in REDIRECTS or not converter.to_text(text[found.end() :], wiki=wiki)


def read_pages(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield the articles of a MediaWiki dump: namespace 0, wikitext, no redirects."""
    document.check_id_field(split.path, options, ("id", "title"))
    wiki = UNKNOWN_WIKI
    for number, (record, owned, closed) in enumerate(delimited.delimited(split, CLOSE)):
        if split.start == 0 and number == 0 and record is not None:
            check_header(record, split.path)
        if not owned:
            return
        if number == 0:  # only the start of the file contains the dump's head
            wiki = _wiki_of(split.path, split.compression, split.stamp)
        if record is None:
            yield document.too_long(f"{split.path}, page {number + 1}" + (f" after byte {split.start}" if split.start else ""))
        elif page := cut_page(record):
            yield _article(page, closed, split.path, wiki, options)
        elif not closed and END not in record:
            yield Rejected(UNCLOSED_DUMP, split.path, "the file ends without </mediawiki>, as if it was cut off", bad=False)


def read_head(path: str, compression: str) -> bytes:
    """Return a dump's bytes up to its first page, or to the end of its <siteinfo>; at most about MAX_HEAD."""
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
    """Return whether neither the head nor the first page of a dump names a namespace; False if it can't be read."""
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
    """Return the wiki of a dump, read once per process. stamp: makes a changed file be read again."""
    return read_wiki(read_head(path, compression))


def _article(data: bytes, closed: bool, path: str, wiki: Wiki, options: InputOptions) -> Record:
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
    try:
        record_id = document.id_of({"id": page.page_id, "title": page.title}.get, options)
    except ValueError as error:
        return document.unusable_id(source, error, options)
    namespace = page.namespace.strip() or str(wiki.namespace_of(page.title))
    if page.redirect or namespace != "0":
        return Rejected("redirect" if page.redirect else "other_namespace", source, page.title, bad=False, id=record_id)
    if not page.is_wikitext:
        return Rejected("other_content_model", source, f"{page.title}: {page.model or page.format}", bad=False, id=record_id)
    if is_redirect(page.text, wiki):
        return Rejected("redirect", source, page.title, bad=False, id=record_id)
    return Document(page.text, page.title, source, "wikitext", wiki, record_id)
