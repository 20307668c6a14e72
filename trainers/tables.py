"""Rows of tables, with where each stands: CSV, TSV, JSON lines, Parquet, plain text, CoNLL columns, SQuAD's JSON.

Any of them may be local or on gs://, and all but Parquet gzipped (`.gz`). To add a format, add a function to READERS.
"""

import csv
import gzip
import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from pipelines.schema import UserError
from trainers.presets import Layout

Row = tuple[str, dict[str, Any]]  # (where it stands, such as "dev.tsv, line 7"; values by column)

csv.field_size_limit(1 << 28)  # characters; Python's own limit is 131,072


def _split(file: Any) -> Iterator[bytes]:
    """A file's lines without their ends. (GFile's own lose every carriage return.)"""
    rest = b""
    while block := file.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def lines(path: str) -> Iterator[str]:
    """A text file's lines without their ends. Raises UserError when it can't be read, or isn't UTF-8."""
    number = 1
    if tf.io.gfile.isdir(path):
        raise UserError(f"{path} is a folder: give a file of texts")
    try:
        with tf.io.gfile.GFile(path, "rb") as raw:
            for line in _split(gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
                number += 1
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number}: it is not UTF-8: convert the file") from None
    except tf.errors.NotFoundError:
        raise UserError(f"{path} is not there: give a file of texts") from None
    except (tf.errors.OpError, OSError, EOFError, zlib.error) as error:
        told = getattr(error, "message", None) or error
        raise UserError(f"{path} can't be read ({told}): mend that, or give another file") from None


def _named(records: Iterator[tuple[str, list[str]]], layout: Layout) -> Iterator[Row]:
    """Cells as columns, by the header's names, or by their numbers as texts; -1 is the last. Raises UserError."""
    names, passed = None, []
    for where, cells in records:
        if layout.header and names is None:
            names = cells
        elif names is None:
            yield where, {str(number): cell for number, cell in enumerate(cells)} | {"-1": cells[-1]}
        elif len(cells) < len(names) and layout.torn:
            passed.append(where)
        elif len(cells) < len(names):
            raise UserError(f"{where}: it has {len(cells)} columns, and the header {len(names)}: mend that line, or remove it")
        else:
            yield where, dict(zip(names, cells, strict=False)) | {"-1": cells[-1]}
    if passed:
        print(f"warning: {passed[0]}: it lacks columns: passed over, with {len(passed) - 1} more", file=sys.stderr, flush=True)


def _csv_records(path: str) -> Iterator[tuple[str, list[str]]]:
    """Rows with where each begins; quoted cells may hold line breaks."""
    reader, begin = csv.reader((line + "\n" for line in lines(path)), strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield f"{path}, line {begin}", cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: {error}: mend that line") from None


def _csv(path: str, layout: Layout) -> Iterator[Row]:
    return _named(_csv_records(path), layout)


def _tsv(path: str, layout: Layout) -> Iterator[Row]:
    """Quotes are characters like any other, as GLUE's files need it."""
    numbered = enumerate(lines(path), 1)
    return _named(((f"{path}, line {number}", line.split("\t")) for number, line in numbered if line), layout)


def _parsed(text: str) -> Any:
    """JSON's value; halves of surrogate pairs, which no file can hold, are replaced. Raises ValueError, RecursionError."""
    if r"\ud" in text.lower():
        whole = json.dumps(json.loads(text), ensure_ascii=False)
        text = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.loads(text)


def _jsonl(path: str, layout: Layout) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: it is no JSON object: mend that line")
        yield f"{path}, line {number}", row


def _parquet(path: str, layout: Layout) -> Iterator[Row]:
    """A row group's part at a time."""
    try:
        if "://" in path:
            system, inner = pa.fs.FileSystem.from_uri(path)
            table = pq.ParquetFile(system.open_input_file(inner))
        else:
            table = pq.ParquetFile(path)
        number = 0
        for batch in table.iter_batches(batch_size=4096, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except FileNotFoundError:
        raise UserError(f"{path} is not there: give a file of texts") from None
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # no UTF-8, or a date that Python has no room for
        raise UserError(f"{path} can't be read ({' '.join(str(error).split())[:200]}): give a whole Parquet file") from None


def _texts(path: str, layout: Layout) -> Iterator[Row]:
    """A text per line."""
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield f"{path}, line {number}", {layout.text: line}


def conll(path: str, layout: Layout) -> Iterator[Row]:
    """Sentences of CoNLL columns: a word per line, an empty line after each; as lists, under `words` and `tags`.

    Raises UserError for a line that lacks the column of the words or of the tags.
    """
    words, tags, began = [], [], 1
    for number, line in enumerate(itertools.chain(lines(path), [""]), 1):
        cells = re.split("[ \t]+", line.strip(" \t"))
        if any(cells) and not line.startswith("-DOCSTART-"):
            try:
                word, tag = (range(len(cells))[int(column)] for column in (layout.text, layout.label))
                if word == tag and layout.text != layout.label:
                    raise IndexError
            except (IndexError, ValueError):
                raise UserError(
                    f"{path}, line {number}: it has {len(cells)} columns, and the words should be in column {layout.text}, the "
                    f"tags in {layout.label}: mend it, or give --text-column and --label-column as numbers from 0"
                ) from None
            words.append(cells[word])
            tags.append(cells[tag])
        else:
            if words:
                yield f"{path}, line {began}", {"words": words, "tags": tags}
            words, tags, began = [], [], number + 1


def squad(path: str, layout: Layout) -> Iterator[Row]:
    """Questions of SQuAD's JSON (1.1 or 2.0): `id`, `question`, `context`, `answers` as a list of (text, start)."""
    try:
        data = _parsed("\n".join(lines(path)))
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [(answer["text"], int(answer["answer_start"])) for answer in asked.get("answers") or ()]
                    row = {"id": str(asked["id"]), "question": asked["question"], "context": paragraph["context"]}
                    texts = [row["question"], row["context"], *(text for text, _ in answers)]
                    if other := [found for found in texts if not isinstance(found, str)]:
                        raise TypeError(f"{other[0]!r} is no text, in question {row['id']}")
                    yield f"{path}, question {row['id']}", row | {"answers": answers}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not laid out as SQuAD's JSON ({type(error).__name__}: {error}): give data, paragraphs, qas, answers"
        ) from None


READERS: dict[str, Callable[[str, Layout], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": _texts,
}


def rows(path: str, layout: Layout) -> Iterator[Row]:
    """A table's rows, by the file's ending. Raises UserError for an ending that none of READERS has."""
    plain = path.removesuffix(".gz")
    ending = next((ending for ending in READERS if plain.endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path} has none of the endings {', '.join(READERS)}: rename it, or convert it")
    return READERS[ending](path, layout)


def value(row: Row, column: str, flag: str) -> Any:
    """A row's value in a column. Raises UserError where it has none, with the columns that are there."""
    where, values = row
    if column not in values:
        names = ", ".join(name for name in values if name != "-1")
        raise UserError(f"{where}: there is no column {column!r} (there are: {names}): give {flag}")
    if values[column] is None:
        raise UserError(f"{where}: its {column!r} is empty: mend it, or give {flag}")
    return values[column]


def text(row: Row, column: str, flag: str) -> str:
    """A row's text. Raises UserError when it isn't one."""
    found = value(row, column, flag)
    if not isinstance(found, str):
        raise UserError(f"{row[0]}: {column!r} is {type(found).__name__}, not a text: give {flag}")
    return found
