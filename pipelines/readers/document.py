"""The records that readers yield: a Document, or a Rejected record with its reason."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.wikitext.wikis import UNKNOWN_WIKI, Wiki


@dataclass(frozen=True)
class Document:
    """A document as a reader yields it.

    Attributes:
        kind: type of the text: "text", "wikitext", or "sentences" (one per line, the BERT text convention).
        source: location in the input, for messages and rejects only; it never affects the output.
        wiki: language and namespaces of the wiki, for wikitext.
        id: the value of `--id-field` as text; "" if the record has none, or without the option.
    """

    text: str
    title: str = ""
    source: str = ""
    kind: str = "text"
    wiki: Wiki = field(default=UNKNOWN_WIKI, compare=False, repr=False)
    id: str = ""


@dataclass(frozen=True)
class Rejected:
    """A record that doesn't become a document.

    `bad` is True for a malformed record, which counts towards `--max-reject-rate`, and False for one that is skipped by
    design (a redirect, another namespace, a filter). `id` is the same as in a Document.
    """

    reason: str
    source: str
    detail: str = ""
    excerpt: str = ""
    bad: bool = True
    id: str = ""


Record = Document | Rejected

EXCERPT_CHARS = 300
UNCLOSED_DUMP = "unclosed_dump"  # the reason of a record that stands for what a dump may lack

MAX_RECORD = 128 << 20  # bytes: a longer record is rejected, so that memory stays bounded whatever a file expands to


def too_long(source: str, record_id: str = "") -> Rejected:
    """Return the rejected record for one longer than MAX_RECORD."""
    return Rejected("too_long", source, f"it is larger than {MAX_RECORD >> 20} MB: split it into documents", id=record_id)


def excerpt_of(data: bytes) -> str:
    """Return the beginning of a record, so that people can find it."""
    return data[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS]


ID_FIELD = "id"  # the field that messages show without --id-field

MAX_TITLE = 1000  # characters: the title is stored with every document, and the field may contain anything


MAX_ID = 2000  # characters: ids are stored with every document; addresses of web pages fit

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # an id is a line of a file of ids


def id_text(value: object) -> str:
    """Return an id as text, without surrounding spaces; "" if it is missing.

    A whole number is written without a decimal point, because a Parquet column of integers with gaps often contains floats.

    Raises:
        ValueError: the value is neither text nor a number, is longer than MAX_ID, or contains control characters.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"it is {type(value).__name__}, neither text nor a number")
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError("it is not a finite number")
        value = int(value) if value == int(value) else value
    text = str(value).strip()
    if len(text) > MAX_ID:
        raise ValueError(f"it is longer than {MAX_ID:,} characters")
    if _UNPRINTABLE.search(text):
        raise ValueError("it contains control characters")
    return text


def id_of(get: Callable[[str], object], options: InputOptions) -> str:
    """Return a record's id as text; "" if it has none, or without --id-field. Raise ValueError, as `id_text`."""
    return id_text(get(options.id_field)) if options.id_field else ""


def unusable_id(source: str, error: ValueError, options: InputOptions) -> Rejected:
    """Return the rejected record for one whose id is invalid. The excerpt is left out: the record may be one to exclude."""
    return Rejected("unusable_id", source, f"{options.id_field}: {error}")


def check_id_field(path: str, options: InputOptions, known: tuple[str, ...]) -> None:
    """Raise UserError if a format has fixed fields and --id-field isn't one of them."""
    if options.id_field and options.id_field not in known:
        raise UserError(
            f"{path} has no field {options.id_field!r}, because its format has {' and '.join(known) or 'no fields'}: "
            "give another --id-field, or none"
        )


def fields_record(get: Callable, names: set[str], source: str, options: InputOptions, excerpt: bytes = b"") -> Record:
    """Return a document from named fields, for JSONL and Parquet."""
    try:
        text, record_id = get(options.text_field), id_of(get, options)
    except ValueError as error:
        return unusable_id(source, error, options)
    if options.text_field not in names:
        detail = f"no field {options.text_field!r} among {shown_value(names)}: see --text-field"
        return Rejected("missing_field", source, detail, excerpt_of(excerpt), id=record_id)
    if isinstance(text, str) and len(text) > MAX_RECORD:
        return too_long(source, record_id)
    if not isinstance(text, str):
        detail = f"{options.text_field} is {type(text).__name__}"
        return Rejected("field_is_no_text", source, detail, excerpt_of(excerpt), id=record_id)
    name, title = get(options.id_field or ID_FIELD), get(options.title_field)
    return Document(
        text,
        str(title if title is not None else name if name is not None else "")[:MAX_TITLE],
        source if name is None else f"{source} ({str(name)[:EXCERPT_CHARS]})",
        id=record_id,
    )


def shown_value(names: Iterable[str]) -> list[str]:
    """Return some field or column names, shortened, for a message."""
    return [name[:100] for name in sorted(names)[:20]]
