"""Rows of tables, with where each stands: CSV, TSV, JSON lines, Parquet, plain text, CoNLL columns, SQuAD's JSON.

Any of them may be local or on gs://, and all but Parquet gzipped (`.gz`). To add a format, add a function to READERS.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from pipelines.schema import UserError
from trainers.presets import Layout

Row = tuple[str, dict[str, Any]]  # (where it stands, such as "dev.tsv, line 7"; values by column)

csv.field_size_limit(1 << 28)  # characters; Python's own limit is 131,072


def lines(path: str) -> Iterator[str]:
    """A text file's lines without their ends. Raises UserError when it can't be read, or isn't UTF-8."""
    number = 0
    try:
        with tf.io.gfile.GFile(path, "rb") as raw:
            file = gzip.open(io.BytesIO(raw.read())) if path.endswith(".gz") else raw
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number + 1}: it is not UTF-8: convert the file") from None
    except tf.errors.NotFoundError:
        raise UserError(f"{path} is not there: give a file of texts") from None
    except (tf.errors.OpError, OSError, EOFError) as error:
        told = getattr(error, "message", None) or error
        raise UserError(f"{path} can't be read ({told}): mend that, or give another file") from None


def _delimited(path: str, layout: Layout, **dialect: Any) -> Iterator[Row]:
    """Columns by the header's names, or by their numbers as texts; -1 is the last."""
    reader = csv.reader(lines(path), strict=True, **dialect)
    names: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if layout.header and names is None:
                names = cells
                continue
            found = dict(zip(names, cells, strict=False)) if names else {str(number): cell for number, cell in enumerate(cells)}
            yield f"{path}, line {reader.line_num}", found | {"-1": cells[-1]}
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}: mend that line") from None


def _csv(path: str, layout: Layout) -> Iterator[Row]:
    return _delimited(path, layout)


def _tsv(path: str, layout: Layout) -> Iterator[Row]:
    """Quotes are characters like any other, as GLUE's files need it."""
    return _delimited(path, layout, delimiter="\t", quoting=csv.QUOTE_NONE)


def _jsonl(path: str, layout: Layout) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
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
    except (OSError, pa.ArrowException) as error:
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
    for number, line in enumerate([*lines(path), ""], 1):
        cells = line.split()
        if cells and not line.startswith("-DOCSTART-"):
            try:
                words.append(cells[int(layout.text)])
                tags.append(cells[int(layout.label)])
            except (IndexError, ValueError):
                raise UserError(
                    f"{path}, line {number}: it has {len(cells)} columns, and the words should be in column {layout.text}, the "
                    f"tags in {layout.label}: give --text-column and --label-column as numbers from 0"
                ) from None
        elif words:
            yield f"{path}, line {began}", {"words": words, "tags": tags}
            words, tags, began = [], [], number + 1
        else:
            began = number + 1


def squad(path: str, layout: Layout) -> Iterator[Row]:
    """Questions of SQuAD's JSON (1.1 or 2.0): `id`, `question`, `context`, `answers` as a list of (text, start)."""
    try:
        data = json.loads("\n".join(lines(path)))
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [(answer["text"], int(answer["answer_start"])) for answer in asked.get("answers") or ()]
                    row = {"id": str(asked["id"]), "question": asked["question"], "context": paragraph["context"]}
                    yield f"{path}, question {asked['id']}", row | {"answers": answers}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
    """A row's value in a column. Raises UserError, with the columns that are there, where it has none."""
    where, values = row
    if values.get(column) is None:
        names = ", ".join(name for name in values if name != "-1")
        raise UserError(f"{where}: there is no column {column!r} (there are: {names}): give {flag}")
    return values[column]


def text(row: Row, column: str, flag: str) -> str:
    """A row's text. Raises UserError when it isn't one."""
    found = value(row, column, flag)
    if not isinstance(found, str):
        raise UserError(f"{row[0]}: {column!r} is {type(found).__name__}, not a text: give {flag}")
    return found
