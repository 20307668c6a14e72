"""Validates labels: a label is a text or a number, never empty, a list, or accidentally a missing value."""

from typing import Any

from clozemill.trainers.finetuning.reading.tables import BadRow

# Missing values as written by pandas, numpy, Python, R, JSON, SQL and Excel. --labels can name any of them as a label.
_MISSING = (
    "nan NaN NAN -nan -NaN inf -inf Inf -Inf Infinity -Infinity None NA N/A n/a <NA> NaT null NULL "
    "#N/A #NA #NAME? #REF! #VALUE! #DIV/0!"
)
MISSING = frozenset(_MISSING.split())


def _written(value: Any) -> str | None:
    """Return a label as stripped text, None if it isn't a label. (Tables with gaps store integers as floats.)"""
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        return str(value)
    return value.strip() if isinstance(value, str) else None


def _known(name: str, labels: dict[str, str]) -> str | None:
    """Return a label's key in `labels`: as written, or as an integer if it is an integer written as a float ("1.0")."""
    if name in labels:
        return name
    whole = name.removesuffix(".0")
    return whole if whole in labels and whole.removeprefix("-").isdecimal() else None


def label_name(where: str, column: str, value: Any, labels: dict[str, str], what: str = "label", nameable: bool = False) -> str:
    """Return the name of the label in a cell.

    Args:
        where, column: position and column of the cell.
        labels: label names by their spelling in files; {}: any.
        what: the word for a label in messages.
        nameable: whether the command has --labels, which can name more labels.

    Raises BadRow for an empty cell, a list, a missing value, or an unknown label.
    """
    hint = "fix it, or give --label-column"
    name = _written(value)
    if value is None or name == "":
        raise BadRow(where, f"empty {what}", f"its {column!r} is empty", hint)
    if name is None:
        raise BadRow(where, f"no {what}", f"its {what} is a {type(value).__name__}: {str(value)[:80]}", hint)
    if labels:
        if (key := _known(name, labels)) is None:
            problem = f"its {what} {name!r} is not one of {', '.join(labels)}"
            raise BadRow(where, f"unknown {what}", problem, hint + " or --labels" * nameable)
        return labels[key]
    if name in MISSING:
        raise BadRow(where, f"missing {what}", f"its {what} {name!r} is a missing value", f"{hint}, or name it in --labels")
    return name
