"""Rules that every row of packed examples must satisfy before it can be unpacked; `verify` reports each violation.

A check yields (violating rows as bool [R], message). Shapes: R rows, S sequence length, E examples and M predictions in all.
"""

from collections.abc import Iterator

import numpy as np

from clozemill.pipelines.examples.columns import PackedColumns
from clozemill.pipelines.examples.packing import first_examples

_Violations = Iterator[tuple[np.ndarray, str]]


def _numbering(packed: PackedColumns) -> _Violations:
    ids = packed.example_ids
    filled = ids > 0
    tokens = filled.sum(axis=1)
    steps = np.diff(ids, axis=1)
    yield packed.examples < 1, "it contains no example"
    bad = (ids[:, 0] != 1) | (ids.max(axis=1) != packed.examples) | (ids < 0).any(axis=1)
    bad |= (filled != (np.arange(ids.shape[1]) < tokens[:, None])).any(axis=1)
    bad |= ((steps != 0) & (steps != 1) & filled[:, 1:]).any(axis=1)
    yield bad, "example_ids are not 1 to the number of examples, in order and without a gap, followed by 0"


def _layout(packed: PackedColumns, pad_id: int) -> _Violations:
    ids, filled = packed.example_ids, packed.example_ids > 0
    yield (packed.input_mask != filled).any(axis=1), "input_mask is not 1 where example_ids has an example, and 0 elsewhere"
    padding = (packed.input_ids != pad_id) | (packed.segment_ids != 0)
    yield (padding & ~filled).any(axis=1), "input_ids or segment_ids are not empty after the last example"
    begins = filled & (np.diff(ids, axis=1, prepend=0) != 0)
    row, place = np.nonzero(begins)
    yield _any(packed.cls_positions != place, row, len(packed)), "cls_positions are not where its examples begin"
    lengths = np.bincount((first_examples(packed)[:, None] + ids - 1)[filled], minlength=len(row))
    longer = np.diff(lengths, prepend=0) > 0
    longer[first_examples(packed)] = False
    yield _any(longer, row, len(packed)), "its examples are not ordered from the longest to the shortest"
    yield _any(packed.example_weights != 1, row, len(packed)), "example_weights are not all 1"


def _predictions(packed: PackedColumns, max_predictions: int) -> _Violations:
    row, places = np.repeat(np.arange(len(packed)), packed.predictions), packed.masked_lm_positions
    yield _any(packed.masked_lm_weights != 1, row, len(packed)), "masked_lm_weights are not all 1"
    outside = (places < 0) | (places >= (packed.example_ids > 0).sum(axis=1)[row])
    yield _any(outside, row, len(packed)), "masked_lm_positions point at padding"
    unsorted = (np.diff(places, prepend=-1) <= 0) & (np.diff(row, prepend=-1) == 0)
    yield _any(unsorted, row, len(packed)), "masked_lm_positions are not sorted and unique"
    if outside.any():
        return
    example = first_examples(packed)[row] + packed.example_ids[row, places] - 1
    many = np.bincount(example, minlength=len(packed.cls_positions)) > max_predictions
    owner = np.repeat(np.arange(len(packed)), packed.examples)
    yield _any(many, owner, len(packed)), f"one of its examples has more than {max_predictions} predictions"


def _any(bad: np.ndarray, row: np.ndarray, rows: int) -> np.ndarray:
    """Return the rows with a bad value, bool [R], from the row of each value."""
    return np.bincount(row[bad], minlength=rows) > 0


def find_row_violations(packed: PackedColumns, max_predictions: int, pad_id: int = 0) -> Iterator[tuple[np.ndarray, str]]:
    """Yield every rule that some row violates: (indices of the rows, message). If there are none, `unpack_examples` works.

    Args:
        max_predictions: of an example, from dataset.json.
        pad_id: the id of [PAD].
    """
    found = False
    for bad, message in _numbering(packed):
        if bad.any():
            found = True
            yield np.flatnonzero(bad), message
    if found:
        return  # the other checks would use wrong numbers as indices
    for checks in (_layout(packed, pad_id), _predictions(packed, max_predictions)):
        for bad, message in checks:
            if bad.any():
                yield np.flatnonzero(bad), message
