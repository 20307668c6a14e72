"""Parses several labels of one example: a list, one cell with a separator, or a 0/1 column per label."""

import ast
import json
import re
from collections import Counter
from typing import Any

from clozemill.trainers.finetuning.reading import tables
from clozemill.trainers.finetuning.reading.labels import label_name
from clozemill.trainers.finetuning.reading.tables import BadRow
from clozemill.trainers.finetuning.task_presets import Layout

_SEPARATORS = (",", ";", "|")
_LONGEST = 1 << 20  # characters per cell: Python's parser needs hundreds of bytes for each
_TEXT = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")\s*"""
_TEXTS = re.compile(rf"\[\s*(?:{_TEXT}(?:,\s*{_TEXT})*+(?:,\s*)?)?\]", re.DOTALL)  # Python's list: with a comma between any two
COLUMNS = "write one column per label and give --label-columns"
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


def labels_of(row: tables.Row, layout: Layout, labels: dict[str, str], nameable: bool = False) -> tuple[str, ...]:
    """Return the names of a row's labels; () for none.

    Args:
        labels: label names by their spelling in files; {}: any.
        nameable: whether the command has --labels, which can name more labels.

    Raises BadRow if the value isn't a set of labels: a duplicate label, or a vector of 0 and 1.
    """
    if layout.flags:
        return tuple(column for column in layout.flags if _flag(row, column))
    found = _listed(row, layout)
    if len(found) > 1 and all(isinstance(value, bool | float) and value in (0, 1) for value in found):
        raise BadRow(row[0], "a vector", f"its {layout.label!r} is a vector of 0 and 1, not a list of labels", COLUMNS)
    names = tuple(label_name(row[0], layout.label, value, labels, nameable=nameable) for value in found)
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        problem = f"its {layout.label!r} has the label {twice!r} twice"
        raise BadRow(row[0], "label twice", problem, f"remove one, or, for a vector of 0 and 1, {COLUMNS}")
    return names


def _flag(row: tables.Row, column: str) -> bool:
    value = tables.value(row, column, "--label-columns")
    whole = isinstance(value, float) and value.is_integer()
    flag = _FLAGS.get(str(int(value) if whole else value).strip().removesuffix(".0").lower())
    if flag is None:
        raise BadRow(row[0], "neither 0 nor 1", f"its {column!r} is {value!r}, not 0 or 1", "fix it")
    return flag


def _listed(row: tables.Row, layout: Layout) -> list[Any]:
    where, missing = row[0], object()
    value = tables.value(row, layout.label, "--label-column, or --label-columns", missing)
    if isinstance(value, str):
        return _parsed(where, value.strip(), layout.separator)
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, list):
        told = "null" if value is missing else f"{str(value)[:60]}, not a list of labels"
        raise BadRow(where, "no labels", f"its {layout.label!r} is {told}", "give a list; [] for an example without labels")
    return value


def _parsed(where: str, cell: str, separator: str) -> list[Any]:
    """Parse a cell as a list: JSON, a Python list of strings (as pandas writes it), or text with separators."""
    if len(cell) > _LONGEST:
        raise BadRow(where, "too long", f"its labels have {len(cell):,} characters, more than {_LONGEST:,}", "fix it")
    if cell == "set()" or (cell[:1], cell[-1:]) in (("[", "]"), ("{", "}")):
        for parse in (json.loads, ast.literal_eval) if _TEXTS.fullmatch(cell) else (json.loads,):
            try:
                found = parse(cell)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
        raise BadRow(where, "no JSON list", f"its labels {cell[:60]!r} are not a JSON list", "fix it")
    if separator:
        return [name for name in (part.strip() for part in cell.split(separator)) if name]
    if held := next((one for one in _SEPARATORS if one in cell), None):
        hint = "give --label-separator, or a JSON list of labels"
        raise BadRow(where, "several labels", f"its labels {cell[:60]!r} hold {held!r}", hint)
    return [cell] if cell else []
