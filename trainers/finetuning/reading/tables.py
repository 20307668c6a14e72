"""Rows of tables, with where each is: CSV, TSV, JSON lines, Parquet, plain text.

Any of them may be local or on gs://, and all but Parquet gzipped (`.gz`). To add a format, add a function to READERS.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.json_objects import RepeatedField
from clozemill.trainers.finetuning.reading.lines import MAX_LINE, exceeds, lines, parse_row, plain_name, same_column
from clozemill.trainers.finetuning.task_presets import Layout

Row = tuple[str, dict[str, Any]]  # (where it is, such as "dev.tsv, line 7"; values by column)

MAX_CELLS = 1_000_000  # of a row
MAX_RATIO = 500  # times: a row group that expands so far holds no text
_DELIMITERS = ",;\t"  # of CSV, in the order in which they are tried: Excel writes the second where the comma is decimal
_CELL = {char: re.compile(f'"[^"]*"|[{char}]') for char in _DELIMITERS}

_BUFFER = 1 << 20  # bytes of a Parquet column that are read at a time, instead of all of a row group's
csv.field_size_limit(MAX_LINE)  # characters; Python's own limit is 131,072


class BadRow(UserError):
    """A row that can't be used. `reason`: in a few words, the same for all rows of its kind."""

    def __init__(self, where: str, reason: str, problem: str, hint: str) -> None:
        super().__init__(f"{where}: {problem}: {hint}")
        self.where, self.reason = where, reason


def column_of(names: Sequence[str], column: str) -> str | None:
    """The name of a column: exactly `column`, or the only one that differs in case or outer blanks alone; else None.

    Raises ValueError if several have it.
    """
    found = [name for name in names if name == column]
    found = found or [name for name in names if same_column(name, column)]
    if len(found) > 1:
        raise ValueError(f"{len(found)} columns are named {column!r}")
    return found[0] if found else None


def _listed(names: Iterable[str]) -> str:
    """The columns that are there, for messages."""
    return ", ".join(name for name in names if name != "-1")


def _check_header(names: Sequence[str], layout: Layout, answers: bool, where: str) -> None:
    """Raises UserError for a header without the columns that are read, with two of one of them, or with one for two of them.

    `names`: with -1, which is the last, at the end.
    """
    read: dict[str, str] = {}  # under which names, by the columns' own
    for column, flag in layout.columns(answers):
        try:
            found = column_of(names, column)
        except ValueError as error:
            raise UserError(f"{where}: {error}: rename one of them, or give {flag}") from None
        if found is None:
            raise UserError(f"{where}: there is no column {column!r} (there are: {_listed(names)}): give {flag}")
        found = names[-2] if found == "-1" else found
        other = read.setdefault(found, column)
        if other != column and "-1" in (other, column):
            hint = f"separate columns by commas (.csv) or tabs (.tsv), or give {flag}"
            raise UserError(f"{where}: columns {other!r} and {column!r} are one and the same: {hint}")


def _named(records: Iterable[tuple[str, list[str]]], layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """Cells as columns, by the header's names, or by their numbers as texts; -1 is the last.

    A row that has more or fewer cells than the header, or than the first row, is a BadRow. Raises UserError for the header.
    """
    names, begin = None, ""
    for where, cells in records:
        if names is None:
            begin = f"the header {len(cells)}" if layout.header else f"{where.rsplit(', ', 1)[1]} has {len(cells)}"
            names = [cell.strip() for cell in cells] if layout.header else [str(number) for number in range(len(cells))]
            _check_header([*names, "-1"], layout, answers, where)
            if layout.header:
                continue
        if len(cells) != len(names):
            problem = f"it has {len(cells)} column{'s' * (len(cells) != 1)}, and {begin}"
            yield BadRow(where, "wrong number of columns", problem, "fix that row, or remove it")
        else:
            yield where, dict(zip(names, cells, strict=True)) | {"-1": cells[-1]}


class _Fed:
    """A CSV file's lines as csv.reader takes them; `size` counts the characters since it was set to 0."""

    def __init__(self, path: str, delimiter: str, rows: Iterator[str]) -> None:
        self.path, self.delimiter, self.rows, self.size = path, delimiter, enumerate(rows, 1), 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self.rows:
            self.size += len(line)
            if self.size > MAX_LINE:
                raise UserError(f"{self.path}, line {number}: its row is longer than {MAX_LINE >> 20} MB: close its quotes")
            if exceeds(line, self.delimiter, _CELL[self.delimiter], MAX_CELLS):
                raise UserError(f"{self.path}, line {number}: it has more than {MAX_CELLS:,} columns: fix that line")
            yield line + "\n"


def _delimiter(first: str, layout: Layout, answers: bool) -> str:
    """By which of _DELIMITERS a CSV file's header has the columns that are read; a comma if by none of them."""
    for delimiter in _DELIMITERS if layout.header else ():
        if exceeds(first, delimiter, _CELL[delimiter], MAX_CELLS):
            continue
        try:
            names = [cell.strip().casefold() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        except csv.Error:
            continue
        if all(column.strip().casefold() in [*names, "-1"] for column, _ in layout.columns(answers)):
            return delimiter
    return ","


def _csv_records(path: str, layout: Layout, answers: bool) -> Iterator[tuple[str, list[str]]]:
    """Rows with where each begins; quoted cells may hold line breaks."""
    found = lines(path)
    first = next(found, "")
    if named := re.fullmatch("sep=([,;\t])", first):  # Excel's own way to say so
        delimiter, begin = named[1], 2
    else:
        found, delimiter, begin = itertools.chain([first], found), _delimiter(first, layout, answers), 1
    fed, before = _Fed(path, delimiter, found), begin - 1
    reader = csv.reader(iter(fed), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield f"{path}, line {begin}", cells
            begin, fed.size = reader.line_num + before + 1, 0
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: {error}: mend that line") from None


def _csv(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    return _named(_csv_records(path, layout, answers), layout, answers)


def _tsv_records(path: str, rows: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(rows, 1):
        if line.count("\t") >= MAX_CELLS:
            raise UserError(f"{path}, line {number}: it has more than {MAX_CELLS:,} columns: fix that line")
        if line:
            yield f"{path}, line {number}", line.split("\t")


def _tsv(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """Quotes are characters like any other, as GLUE's files need it."""
    return _named(_tsv_records(path, lines(path)), layout, answers)


def _jsonl(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    columns, names = layout.columns(answers), {}
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        where, problem, hint = f"{path}, line {number}", "it is no JSON object", "mend that line"
        try:
            row = parse_row(line, [column for column, _ in columns])
        except RepeatedField as error:
            row, problem, hint = None, f"it has the field {error.name!r} twice", "remove one of them"
        except (ValueError, RecursionError) as error:
            row, problem = None, problem if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
        bad = None if isinstance(row, dict) else BadRow(where, "no JSON object", problem, hint)
        yield bad or _other_name((where, row), columns, names) or (where, row)


def _other_name(row: Row, columns: Sequence[tuple[str, str]], seen: dict[str, tuple[str, str]]) -> BadRow | None:
    """What is wrong with a row that has a column under another name than an earlier one: "Label" may not be "label".

    seen: by column, its name and the row that had it first; the row's own are added.
    """
    for column, flag in columns:
        try:
            name = name_in(row, column, flag)
        except BadRow as bad:
            return bad
        first, where = seen.setdefault(column, (name, row[0])) if name is not None else (None, "")
        if name != first:
            problem = f"it has {name!r}, and {where.rsplit(', ', 1)[1]} has {first!r}"
            return BadRow(row[0], "another column name", problem, "use one name in all rows")
    return None


def _projection(file: pq.ParquetFile, layout: Layout, answers: bool, path: str) -> list[str] | None:
    """The columns to read; None for all of them, where one that is needed isn't there. Raises UserError for two of one name."""
    names = file.schema_arrow.names
    try:
        found = [column_of(names, column) for column, _ in layout.columns(answers)]
    except ValueError as error:
        raise UserError(f"{path}: {error}: rename one of them, or give --text-column, --pair-column, --label-column") from None
    return None if None in found else [name for name in names if name in found]


def _rows_at_once(group: pq.RowGroupMetaData, disk: int, path: str) -> int:
    """How many rows of a row group fit into memory, if any of them may be as long as all. Raises UserError if one can't.

    Asks for the size of the row group alone: pyarrow ends the process over the metadata of a damaged column.

    Args:
        disk: the file's bytes.
    """
    size = group.total_byte_size
    if size > MAX_LINE and (size > MAX_RATIO * disk or size > MAX_LINE * group.num_rows):
        raise UserError(
            f"{path} can't be read ({disk:,} bytes expand to {size:,} in a row group, as no text does): give another file"
        )
    return max(1, min(4096, 2 * MAX_LINE // max(size, 1)))


def _parquet(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """The columns that are needed, some rows at a time."""
    try:
        if "://" in path:
            system, inner = pa.fs.FileSystem.from_uri(path)
            source = system.open_input_file(inner)
        else:
            source = pa.OSFile(path)
        file = pq.ParquetFile(source, buffer_size=_BUFFER, page_checksum_verification=True)
        number, columns = 0, _projection(file, layout, answers, path)
        for index in range(file.num_row_groups):
            size = _rows_at_once(file.metadata.row_group(index), source.size(), path)
            for batch in file.iter_batches(size, row_groups=[index], columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except FileNotFoundError:
        raise UserError(f"{path} is not there: give a file of texts") from None
    except KeyError as error:  # what both pytz and zoneinfo raise
        raise UserError(f"{path}: there is no time zone {error.args[0]!r}: write its times as texts") from None
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # no UTF-8, or a date that Python has no room for
        raise UserError(f"{path} can't be read ({' '.join(str(error).split())[:200]}): give a whole Parquet file") from None


def _text_lines(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """A text per line; or a table with tabs, if more than the text is needed, or the first line names its column."""
    found = lines(path)
    first = next(found, "")
    found = itertools.chain([first], found)
    names = [name.strip().casefold() for name in first.split("\t", MAX_CELLS)]
    if answers or layout.pair or (layout.header and len(names) > 1 and layout.text.casefold() in names):
        yield from _named(_tsv_records(path, found), layout, answers)
        return
    for number, line in enumerate(found, 1):
        if line.strip():
            yield f"{path}, line {number}", {layout.text: line}


READERS: dict[str, Callable[[str, Layout, bool], Iterator[Row | BadRow]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": _text_lines,
}


def rows(path: str, layout: Layout, answers: bool = False) -> Iterator[Row | BadRow]:
    """A table's rows, by the file's ending. Raises UserError for an ending that none of READERS has.

    Args:
        layout: the columns that are needed. answers: the answers' column is one of them.
    """
    plain = plain_name(path)
    ending = next((ending for ending in READERS if plain.endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path} has none of the endings {', '.join(READERS)}: rename it, or convert it")
    return READERS[ending](path, layout, answers)


def name_in(row: Row, column: str, flag: str) -> str | None:
    """The name under which a row has a column; None if it hasn't. Raises BadRow where several have it."""
    where, values = row
    try:
        return column if column in values else column_of(list(values), column)
    except ValueError as error:
        raise BadRow(where, "ambiguous column", str(error), f"give {flag}") from None


def value(row: Row, column: str, flag: str, empty: Any = None) -> Any:
    """A row's value in a column, `empty` for null. Raises BadRow where it has none, with the columns that are there."""
    where, values = row
    name = name_in(row, column, flag)
    if name is None:
        problem = f"there is no column {column!r} (there are: {_listed(values)})"
        raise BadRow(where, "missing column", problem, f"give {flag}")
    if values[name] is None and empty is None:
        raise BadRow(where, f"empty {name!r}", f"its {name!r} is empty", f"mend it, or give {flag}")
    return empty if values[name] is None else values[name]


def text(row: Row, column: str, flag: str, empty: str | None = None) -> str:
    """A row's text, `empty` for null. Raises BadRow when it isn't one."""
    found = value(row, column, flag, empty)
    if not isinstance(found, str):
        raise BadRow(row[0], "no text", f"{column!r} is {type(found).__name__}, not a text", f"give {flag}")
    if len(found) > MAX_LINE:
        raise BadRow(row[0], "too long", f"{column!r} is longer than {MAX_LINE >> 20} MB", "cut it")
    return found
