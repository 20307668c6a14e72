"""What a cell must hold to be a label: a text or a number; no label is empty, a list or a missing value by accident."""

from typing import Any

from clozemill.trainers.finetuning.reading.tables import BadRow

# What pandas, numpy, Python, R, JSON, SQL and Excel write for a missing value. --labels can name any of them as a label.
_MISSING = (
    "nan NaN NAN -nan -NaN inf -inf Inf -Inf Infinity -Infinity None NA N/A n/a <NA> NaT null NULL "
    "#N/A #NA #NAME? #REF! #VALUE! #DIV/0!"
)
MISSING = frozenset(_MISSING.split())


def _written(value: Any) -> str | None:
    """A label as a text without outer blanks; None for what is none. Tables with gaps hold whole numbers as floats."""
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        return str(value)
    return value.strip() if isinstance(value, str) else None


def _known(name: str, labels: dict[str, str]) -> str | None:
    """A label's key in `labels`: as it is written or, of a whole number written as a float ("1.0"), as a whole number."""
    if name in labels:
        return name
    whole = name.removesuffix(".0")
    return whole if whole in labels and whole.removeprefix("-").isdecimal() else None


def label_name(where: str, column: str, value: Any, labels: dict[str, str], what: str = "label") -> str:
    """The name of the label that a cell holds.

    Args:
        where, column: of the cell. labels: names of the labels as files have them; {}: any. what: what it is called.

    Raises BadRow for an empty cell, a list, a missing value, or a label that `labels` hasn't.
    """
    hint = "fix it, or give --label-column"
    name = _written(value)
    if value is None or name == "":
        raise BadRow(where, f"empty {what}", f"its {column!r} is empty", hint)
    if name is None:
        raise BadRow(where, f"no {what}", f"its {what} is a {type(value).__name__}: {str(value)[:80]}", hint)
    if labels:
        if (key := _known(name, labels)) is None:
            raise BadRow(where, f"unknown {what}", f"its {what} {name!r} is none of {', '.join(labels)}", f"{hint} or --labels")
        return labels[key]
    if name in MISSING:
        raise BadRow(where, f"missing {what}", f"its {what} {name!r} is a missing value", f"{hint}, or name it in --labels")
    return name
