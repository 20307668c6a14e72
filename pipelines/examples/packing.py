"""Pack several examples into a row of max_seq_length: plan the rows of a shard from lengths alone, then move the tokens.

The plan is a variant of the histogram packing of Krell et al. 2021 (arXiv:2107.02027): examples of equal length are placed
together, so that its loops run over lengths and free room, never over examples. Longest first, each example goes into the
fullest row that has room for it (best fit).

Shapes: E examples, R rows, S sequence length, P predictions per example, M masked positions.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.examples.columns import Columns, PackedColumns


@dataclass(frozen=True)
class RowPlan:
    """Which examples share a row.

    Attributes:
        order: int64 [E], the examples in the order of the rows; within a row, the longest first.
        starts: int64 [R + 1]; row r has the examples order[starts[r] : starts[r + 1]].
    """

    order: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: np.ndarray) -> "RowPlan":
        """Return a plan with the rows at `rows`, in this order."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return RowPlan(self.order[np.repeat(self.starts[:-1][rows], counts) + within], starts)


@dataclass(frozen=True)
class _Placement:
    """One step of the plan: `examples` examples of one length go into `rows` rows with the same free room.

    The first rows get as many examples as fit; the last one gets the rest. Rows with all their room are new ones.
    """

    length: int
    room: int
    rows: int
    examples: int

    @property
    def each(self) -> int:
        """Number of examples that fit into one of the rows."""
        return self.room // self.length


def _place(histogram: np.ndarray, limit: int) -> Iterator[_Placement]:
    """Yield the steps of the plan: longest first, and each example into the fullest rows with room for it.

    histogram: int64 [limit + 1], number of examples of each length.
    """
    free = [0] * (limit + 1)  # number of rows with this much free room
    rooms: list[int] = []  # those with rows, ascending

    def add(room: int, rows: int) -> None:
        if room and rows:
            if not free[room]:
                insort(rooms, room)
            free[room] += rows

    for length in np.flatnonzero(histogram)[::-1].tolist():
        left = int(histogram[length])
        while left:
            at = bisect_left(rooms, length)
            room = rooms[at] if at < len(rooms) else limit
            each = room // length
            rows = -(-left // each)
            if room < limit:
                rows = min(rows, free[room])
                free[room] -= rows
                if not free[room]:
                    del rooms[at]
            placed = min(left, each * rows)
            yield _Placement(length, room, rows, placed)
            full, last = divmod(placed, each)
            add(room - each * length, full)
            add(room - last * length, rows - full)
            left -= placed


def count_rows(histogram: np.ndarray, limit: int) -> int:
    """Return the number of rows of `plan_rows`, from the number of examples of each length, int64 [limit + 1]."""
    return sum(step.rows for step in _place(histogram, limit) if step.room == limit)


def plan_rows(lengths: np.ndarray, limit: int) -> RowPlan:
    """Return a plan that puts every example into one row, where no row is longer than `limit`. Deterministic.

    Args:
        lengths: int64 [E], tokens of each example with [CLS] and [SEP], 1 to `limit`.
        limit: max_seq_length.
    """
    by_length = np.argsort(-lengths, kind="stable")
    row_of = np.empty(len(lengths), np.int64)  # in the order of by_length
    by_room: list[list[np.ndarray]] = [[] for _ in range(limit + 1)]  # numbers of the rows with this much free room
    opened = done = 0
    for step in _place(np.bincount(lengths, minlength=limit + 1), limit):
        if step.room == limit:
            rows = np.arange(opened, opened + step.rows)
            opened += step.rows
        else:
            pieces = by_room[step.room]
            there = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            rows, by_room[step.room] = there[: step.rows], [there[step.rows :]] if step.rows < len(there) else []
        row_of[done : done + step.examples] = rows if step.each == 1 else np.repeat(rows, step.each)[: step.examples]
        done += step.examples
        full, last = divmod(step.examples, step.each)
        if full:
            by_room[step.room - step.each * step.length].append(rows[:full])
        if last:
            by_room[step.room - last * step.length].append(rows[full:])
    in_rows = np.argsort(row_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=opened))])
    return RowPlan(by_length[in_rows], starts)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Return where each of several runs begins, int64, if they follow each other: [3, 2, 4] -> [0, 3, 5]."""
    return np.cumsum(counts) - counts


def first_examples(packed: PackedColumns) -> np.ndarray:
    """Return the index of each row's first example among those of all rows, int64 [R]."""
    return _starts(packed.examples)


def _spread(values: np.ndarray, where: np.ndarray, empty: int = 0) -> np.ndarray:
    """Return a matrix like `where` with the values, row by row, at its true places, and `empty` elsewhere."""
    out = np.full(where.shape, empty, values.dtype)
    out[where] = values
    return out


def pack_examples(columns: Columns, starts: np.ndarray) -> PackedColumns:
    """Return the rows of some examples; `unpack_examples` is the reverse.

    Args:
        columns: E examples, those of a row adjacent.
        starts: int64 [R + 1]; row r has the examples starts[r] to starts[r + 1], at least one.
    """
    examples, places = np.diff(starts), columns.input_ids.shape[1]
    row = np.repeat(np.arange(len(examples)), examples)
    number = np.arange(len(row)) - starts[row] + 1
    lengths, used = (columns.input_mask > 0).sum(axis=1), columns.masked_lm_weights > 0
    masked = used.sum(axis=1)
    before = _starts(lengths)
    first = before - before[starts[:-1]][row]  # position of each example in its row
    # The first example of a row is copied with the padding after it. Only the tokens of the others move there one by one:
    # as indices into the flat matrices, from the start of the example's own row to its place in the shared one.
    others = np.flatnonzero(number > 1)
    within = np.arange(lengths[others].sum()) - np.repeat(_starts(lengths[others]), lengths[others])
    source = np.repeat(others * places, lengths[others]) + within
    target = np.repeat((row * places + first)[others], lengths[others]) + within

    def move(values: np.ndarray) -> np.ndarray:
        out = values[starts[:-1]]
        out.ravel()[target] = values.ravel()[source]
        return out

    example_ids = columns.input_mask[starts[:-1]].astype(np.int32)
    example_ids.ravel()[target] = np.repeat(number[others], lengths[others])
    return PackedColumns(
        input_ids=move(columns.input_ids),
        input_mask=move(columns.input_mask),
        segment_ids=move(columns.segment_ids),
        example_ids=example_ids,
        cls_positions=first,
        next_sentence_labels=columns.next_sentence_labels,
        example_weights=np.ones(len(row), np.float32),
        masked_lm_positions=columns.masked_lm_positions[used] + np.repeat(first, masked),
        masked_lm_ids=columns.masked_lm_ids[used],
        masked_lm_weights=columns.masked_lm_weights[used],
        examples=examples,
        predictions=np.bincount(row, masked, len(examples)).astype(np.int64),
    )


def unpack_examples(packed: PackedColumns, max_predictions: int, pad_id: int = 0) -> Columns:
    """Return the examples in the order of the rows, as they were before `pack_examples`.

    Relies on valid rows: row_rules.py checks those of a file first.

    Args:
        max_predictions: P, that of dataset.json; no example may have more masked positions.
        pad_id: the id of [PAD].
    """
    examples, places = len(packed.cls_positions), packed.input_ids.shape[1]
    filled, first_number = packed.example_ids > 0, first_examples(packed)
    in_row = (packed.example_ids.astype(np.int64) - 1 + first_number[:, None])[filled]  # the example of each token
    inside = np.arange(places) < np.bincount(in_row, minlength=examples)[:, None]
    row = np.repeat(np.arange(len(packed)), packed.predictions)
    number = packed.example_ids[row, packed.masked_lm_positions] - 1 + first_number[row]  # the example of each prediction
    used = np.arange(max_predictions) < np.bincount(number, minlength=examples)[:, None]
    return Columns(
        input_ids=_spread(packed.input_ids[filled], inside, pad_id),
        input_mask=_spread(packed.input_mask[filled], inside),
        segment_ids=_spread(packed.segment_ids[filled], inside),
        masked_lm_positions=_spread(packed.masked_lm_positions - packed.cls_positions[number], used),
        masked_lm_ids=_spread(packed.masked_lm_ids, used),
        masked_lm_weights=_spread(packed.masked_lm_weights, used),
        next_sentence_labels=packed.next_sentence_labels,
    )
