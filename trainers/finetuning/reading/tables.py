"""Reads rows of tables, with their position in the file: CSV, TSV, JSON lines, Parquet, plain text.

Files may be local or on gs://, and all but Parquet may be compressed. To add a format, add a function to TABLE_READERS.
"""

import csv
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from clozemill.pipelines.command_line.options import suggest
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.json_objects import RepeatedField
from clozemill.trainers.finetuning.reading.lines import MAX_LINE, column_of, exceeds, lines, parse_row, plain_name
from clozemill.trainers.finetuning.reading.parquet_rows import parquet_rows
from clozemill.trainers.finetuning.task_presets import Layout

Row = tuple[str, dict[str, Any]]  # (position, such as "dev.tsv, line 7"; values by column)

MAX_CELLS = 1_000_000  # per row
_COMPARED = 50  # columns and characters of their names, at most, to compare with a misspelled one
_DELIMITERS = ",;\t"  # of CSV, in the order they are tried: Excel writes semicolons where the comma is the decimal sign
_CELL = {char: re.compile(f'"[^"]*"|[{char}]') for char in _DELIMITERS}

csv.field_size_limit(MAX_LINE)  # characters; Python's default is 131,072


class BadRow(UserError):
    """Error of an unusable row. `reason`: a few words, the same for all rows with this problem."""

    def __init__(self, where: str, reason: str, problem: str, hint: str) -> None:
        super().__init__(f"{where}: {problem}: {hint}")
        self.where, self.reason = where, reason


def _missing(column: str, names: Iterable[str]) -> str:
    """Say that a column is missing, and list the existing ones."""
    return f"no column {column!r} (columns: {', '.join(name for name in names if name != '-1')})"


def _choice(column: str, names: Collection[str], flag: str, otherwise: str = "") -> str:
    """Return what to do about a missing column; suggest a similar one, unless the table is too wide to be compared."""
    known = [name for name in names if name != "-1" and len(name) <= _COMPARED]
    similar = suggest(column, known) if len(known) <= _COMPARED and not column.isdecimal() else ""
    return f"give {'one of these with ' if names else ''}{flag}{otherwise}{similar}"


def _check_header(names: Sequence[str], layout: Layout, answers: bool, where: str) -> None:
    """Raise UserError if a needed column is missing or ambiguous in the header, or two options name the same column.

    `names`: the header's names, followed by -1 for the last column.
    """
    read: dict[str, str] = {}  # column names of the options, by names in the header
    for column, flag in layout.columns(answers):
        try:
            found = column_of(names, column)
        except ValueError as error:
            raise UserError(f"{where}: {error}: rename one of them, or give {flag}") from None
        if found is None:
            header = ", or --header no if that line is no header" if layout.header and not layout.named_by else ""
            raise UserError(f"{where}: {_missing(column, names)}: {_choice(column, names, flag, header)}")
        found = names[-2] if found == "-1" else found
        other = read.setdefault(found, column)
        if other != column and "-1" in (other, column):
            hint = f"separate columns by commas (.csv) or tabs (.tsv), or give {flag}"
            raise UserError(f"{where}: columns {other!r} and {column!r} are the same column: {hint}")


def _named(records: Iterable[tuple[str, list[str]]], layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """Yield rows by column: names of the header, or numbers as texts; -1 is the last column.

    A row with more or fewer cells than the header, or the first row, is a BadRow. Raises UserError for a wrong header.
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
    """Feeds a CSV file's lines to csv.reader; `size` counts the characters since it was last set to 0."""

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
    """Return the delimiter that gives a CSV header the needed columns; a comma if none of _DELIMITERS does."""
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
    """Yield rows with the line each begins at; quoted cells may contain line breaks."""
    found = lines(path)
    first = next(found, "")
    if named := re.fullmatch("sep=([,;\t])", first):  # Excel's delimiter declaration
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
        raise UserError(f"{path}, line {begin}: {error}: fix that line") from None


def _csv(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    return _named(_csv_records(path, layout, answers), layout, answers)


def _tsv_records(path: str, rows: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(rows, 1):
        if line.count("\t") >= MAX_CELLS:
            raise UserError(f"{path}, line {number}: it has more than {MAX_CELLS:,} columns: fix that line")
        if line:
            yield f"{path}, line {number}", line.split("\t")


def _tsv(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """Read TSV without quoting: GLUE's files need quotes as plain characters."""
    return _named(_tsv_records(path, lines(path)), layout, answers)


def _jsonl(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    columns = layout.columns(answers)
    names: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        where, problem, hint = f"{path}, line {number}", "it is not a JSON object", "fix that line"
        try:
            row = parse_row(line, [column for column, _ in columns])
        except RepeatedField as error:
            row, problem, hint = None, f"it has the field {error.name!r} twice", "remove one of them"
        except (ValueError, RecursionError) as error:
            row, problem = None, problem if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
        bad = None if isinstance(row, dict) else BadRow(where, "no JSON object", problem, hint)
        yield bad or _other_name((where, row), columns, names) or (where, row)


def _other_name(row: Row, columns: Sequence[tuple[str, str]], seen: dict[str, tuple[str, str]]) -> BadRow | None:
    """Return an error if a row spells a column differently than an earlier row: "Label" may not mean "label".

    seen: by column, its name and the first row with it; updated with this row.
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


def _text_lines(path: str, layout: Layout, answers: bool) -> Iterator[Row | BadRow]:
    """Yield one text per line, without a first line that only names the text column.

    The file is a table with tabs if more columns are needed, or if the first line names the text column among others.
    """
    found = lines(path)
    first = next(found, "")
    found = itertools.chain([first], found)
    names = [name.strip().casefold() for name in first.split("\t", MAX_CELLS)]
    if answers or layout.pair or (layout.header and len(names) > 1 and layout.text.casefold() in names):
        yield from _named(_tsv_records(path, found), layout, answers)
        return
    headed = layout.header and names == [layout.text.casefold()]
    for number, line in enumerate(found, 1):
        if line.strip() and not (headed and number == 1):
            yield f"{path}, line {number}", {layout.text: line}


TABLE_READERS: dict[str, Callable[[str, Layout, bool], Iterator[Row | BadRow]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": parquet_rows,
    ".txt": _text_lines,
}


def rows(path: str, layout: Layout, answers: bool = False) -> Iterator[Row | BadRow]:
    """Yield a table's rows; the format follows from the file's ending. Raises UserError for an unknown ending.

    Args:
        layout: the needed columns. answers: whether the answer's column is needed.
    """
    plain = plain_name(path)
    ending = next((ending for ending in TABLE_READERS if plain.endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path} has none of the endings {', '.join(TABLE_READERS)}: rename it, or convert it")
    return TABLE_READERS[ending](path, layout, answers)


def name_in(row: Row, column: str, flag: str) -> str | None:
    """Return the row's name of a column; None if it is missing. Raises BadRow if several names match."""
    where, values = row
    try:
        return column if column in values else column_of(list(values), column)
    except ValueError as error:
        raise BadRow(where, "ambiguous column", str(error), f"give {flag}") from None


def value(row: Row, column: str, flag: str, empty: Any = None) -> Any:
    """Return a row's value in a column, `empty` for null. Raises BadRow with the existing columns if it is missing."""
    where, values = row
    name = name_in(row, column, flag)
    if name is None:
        raise BadRow(where, "missing column", _missing(column, values), _choice(column, values, flag))
    if values[name] is None and empty is None:
        raise BadRow(where, f"empty {name!r}", f"its {name!r} is empty", f"fix it, or give {flag}")
    return empty if values[name] is None else values[name]


def text(row: Row, column: str, flag: str, empty: str | None = None) -> str:
    """Return a row's text, `empty` for null. Raises BadRow if it isn't a text."""
    found = value(row, column, flag, empty)
    if not isinstance(found, str):
        raise BadRow(row[0], "no text", f"{column!r} is {type(found).__name__}, not a text", f"give {flag}")
    if len(found) > MAX_LINE:
        raise BadRow(row[0], "too long", f"{column!r} is longer than {MAX_LINE >> 20} MB", "cut it")
    return found
