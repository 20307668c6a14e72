"""What readers yield: a Document, or a Rejected record with the reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.wikitext.wikis import UNKNOWN_WIKI, Wiki


@dataclass(frozen=True)
class Document:
    """One document as a reader yields it.

    `kind` says what the text is: "text", "wikitext", or "sentences" (a line each, the BERT text convention).
    `source` is where it came from, for messages and rejects only: it never influences what is written.
    `wiki` is what the dump says of its wiki, for wikitext.
    """

    text: str
    title: str = ""
    source: str = ""
    kind: str = "text"
    wiki: Wiki = field(default=UNKNOWN_WIKI, compare=False, repr=False)


@dataclass(frozen=True)
class Rejected:
    """A record that does not become a document.

    `bad` tells a defective record (malformed, undecodable), which counts towards `--max-reject-rate`, from one
    that was left out by design (a redirect, another namespace, a filter).
    """

    reason: str
    source: str
    detail: str = ""
    excerpt: str = ""
    bad: bool = True


Record = Document | Rejected

EXCERPT_CHARS = 300

MAX_RECORD = 128 << 20  # bytes: a longer record is given up, so that a file that expands to anything fits into memory


def too_long(source: str) -> Rejected:
    """What stands for a record longer than MAX_RECORD."""
    return Rejected("too_long", source, f"it holds more than {MAX_RECORD >> 20} MB: cut it into documents")


def excerpt_of(data: bytes) -> str:
    """The beginning of a record, for people who look for it."""
    return data[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS]


MAX_TITLE = 1000  # characters: it is kept with every document, and a field of that name may hold anything


def fields_record(get: Callable, names: set[str], source: str, options: InputOptions, excerpt: bytes = b"") -> Record:
    """A document from named fields, shared by JSONL and Parquet."""
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
    """Some names of fields or columns, none of them long, for a message."""
    return [name[:100] for name in sorted(names)[:20]]
