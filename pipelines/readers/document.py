"""The records that readers yield: a Document, or a Rejected record with its reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.wikitext.wikis import UNKNOWN_WIKI, Wiki


@dataclass(frozen=True)
class Document:
    """A document as a reader yields it.

    Attributes:
        kind: type of the text: "text", "wikitext", or "sentences" (one per line, the BERT text convention).
        source: location in the input, for messages and rejects only; it never affects the output.
        wiki: language and namespaces of the wiki, for wikitext.
    """

    text: str
    title: str = ""
    source: str = ""
    kind: str = "text"
    wiki: Wiki = field(default=UNKNOWN_WIKI, compare=False, repr=False)


@dataclass(frozen=True)
class Rejected:
    """A record that doesn't become a document.

    `bad` is True for a malformed record, which counts towards `--max-reject-rate`, and False for one that is skipped by
    design (a redirect, another namespace, a filter).
    """

    reason: str
    source: str
    detail: str = ""
    excerpt: str = ""
    bad: bool = True


Record = Document | Rejected

EXCERPT_CHARS = 300

MAX_RECORD = 128 << 20  # bytes: a longer record is rejected, so that memory stays bounded whatever a file expands to


def too_long(source: str) -> Rejected:
    """Return the rejected record for one longer than MAX_RECORD."""
    return Rejected("too_long", source, f"it is larger than {MAX_RECORD >> 20} MB: split it into documents")


def excerpt_of(data: bytes) -> str:
    """Return the beginning of a record, so that people can find it."""
    return data[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS]


MAX_TITLE = 1000  # characters: the title is stored with every document, and the field may contain anything


def fields_record(get: Callable, names: set[str], source: str, options: InputOptions, excerpt: bytes = b"") -> Record:
    """Return a document from named fields, for JSONL and Parquet."""
    text = get(options.text_field)
    if options.text_field not in names:
        detail = f"no field {options.text_field!r} among {shown_value(names)}: see --text-field"
        return Rejected("missing_field", source, detail, excerpt_of(excerpt))
    if isinstance(text, str) and len(text) > MAX_RECORD:
        return too_long(source)
    if not isinstance(text, str):
        return Rejected("field_is_no_text", source, f"{options.text_field} is {type(text).__name__}", excerpt_of(excerpt))
    name, title = get(options.id_field), get(options.title_field)
    return Document(
        text,
        str(title if title is not None else name if name is not None else "")[:MAX_TITLE],
        source if name is None else f"{source} ({str(name)[:EXCERPT_CHARS]})",
    )


def shown_value(names: Iterable[str]) -> list[str]:
    """Return some field or column names, shortened, for a message."""
    return [name[:100] for name in sorted(names)[:20]]
