"""Read JSON Lines: one object per line."""

import json
from collections.abc import Iterator

from clozemill.pipelines.common.json_objects import LONG, TooManyValues, parse_object
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.readers import delimited, document
from clozemill.pipelines.readers.document import Record, Rejected
from clozemill.pipelines.readers.input_split import InputSplit


def read_jsonl(split: InputSplit, options: InputOptions) -> Iterator[Record]:
    """Yield a record for each line of JSON."""
    for number, (line, owned) in enumerate(delimited.lines(split)):
        if not owned:
            return
        if line is not None and not line.strip():
            continue
        source = f"{split.path}, line {number + 1}" + (f" after byte {split.start}" if split.start else "")
        yield document.too_long(source) if line is None else _json_record(line, source, options)


def _json_record(line: bytes, source: str, options: InputOptions) -> Record:
    try:
        record = parse_object(line, (options.text_field, options.title_field, options.id_field or document.ID_FIELD))
    except UnicodeDecodeError as error:
        return delimited.invalid_utf8(source, error, line)
    except TooManyValues as error:
        return Rejected("too_many_values", source, str(error), document.excerpt_of(line))
    except (ValueError, RecursionError) as error:
        return Rejected("malformed_json", source, _explained(error, line), document.excerpt_of(line))
    if not isinstance(record, dict):
        return Rejected(
            "not_an_object",
            source,
            "every line must be a JSON object (jq -c '.[]' takes an array apart)",
            document.excerpt_of(line),
        )
    return document.fields_record(record.get, set(record), source, options, line)


def _explained(error: Exception, line: bytes) -> str:
    """Return what is wrong with a line, and what to do if that is known."""
    if line.strip() in (b"[", b"{", b"[{"):
        return "a JSON value that spans several lines: write an object per line with jq -c '.[]' FILE, or jq -c . FILE"
    if str(error).startswith("Exceeds the limit"):
        return "a number with more than 4,300 digits"
    if isinstance(error, json.JSONDecodeError):  # its line is always 1; of a long line, only parts were parsed
        return error.msg if len(line) > LONG else f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return str(error)
