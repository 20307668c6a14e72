"""Pack several examples into a row of max_seq_length: plan the rows of a shard from lengths alone, then move the tokens.

The plan is a variant of the histogram packing of Krell et al. 2021 (arXiv:2107.02027): examples of equal length are placed
together, so that its loops run over lengths and free room, never over examples. Longest first, each example goes into the
fullest row that has room for it (best fit).

Shapes: E examples, R rows, S sequence length, P predictions per example, M masked positions.
"""

from bisect import bisect_left, insort
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


class _OpenRows:
    """The rows that are not full, by free room: lists of arrays of row numbers, so that moving rows copies little."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self.by_room: list[list[np.ndarray]] = [[] for _ in range(limit + 1)]
        self.rooms: list[int] = []  # those with rows, ascending

    def put(self, room: int, rows: np.ndarray) -> None:
        """Add rows with this much free room."""
        if room and len(rows):
            if not self.by_room[room]:
                insort(self.rooms, room)
            self.by_room[room].append(rows)

    def take(self, length: int, left: int) -> tuple[int, np.ndarray]:
        """Return (free room, rows) of the fullest rows with room for `length`, for up to `left` examples; or new rows."""
        at = bisect_left(self.rooms, length)
        if at == len(self.rooms):
            wanted = -(-left // (self.limit // length))
            self.count += wanted
            return self.limit, np.arange(self.count - wanted, self.count)
        room = self.rooms[at]
        rows = self.by_room[room].pop()
        wanted = -(-left // (room // length))
        if len(rows) > wanted:
            self.by_room[room].append(rows[wanted:])
        elif not self.by_room[room]:
            del self.rooms[at]
        return room, rows[:wanted]


def plan_rows(lengths: np.ndarray, limit: int) -> RowPlan:
    """Return a plan that puts every example into one row, where no row is longer than `limit`. Deterministic.

    Args:
        lengths: int64 [E], tokens of each example with [CLS] and [SEP], 1 to `limit`.
        limit: max_seq_length.
    """
    by_length = np.argsort(-lengths, kind="stable")
    row_of = np.empty(len(lengths), np.int64)  # in the order of by_length
    histogram = np.bincount(lengths, minlength=limit + 1)
    opened, done = _OpenRows(limit), 0
    for length in np.flatnonzero(histogram)[::-1].tolist():
        left = int(histogram[length])
        while left:
            room, rows = opened.take(length, left)
            each = room // length
            placed = min(left, each * len(rows))
            row_of[done : done + placed] = np.repeat(rows, each)[:placed]
            full, last = divmod(placed, each)
            opened.put(room - each * length, rows[:full])
            opened.put(room - last * length, rows[full:])  # at most one row, and none if last is 0
            done, left = done + placed, left - placed
    in_rows = np.argsort(row_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=opened.count))])
    return RowPlan(by_length[in_rows], starts)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Return where each of several runs begins, int64, if they follow each other: [3, 2, 4] -> [0, 3, 5]."""
    return np.cumsum(counts) - counts


def pack_examples(columns: Columns, starts: np.ndarray) -> PackedColumns:
    """Return the rows of some examples; `unpack_examples` is the reverse.

    Args:
        columns: E examples, those of a row adjacent.
        starts: int64 [R + 1]; row r has the examples starts[r] to starts[r + 1].
    """
    examples, places = np.diff(starts), columns.input_ids.shape[1]
    inside, used = columns.input_mask > 0, columns.masked_lm_weights > 0
    lengths, masked = inside.sum(axis=1), used.sum(axis=1)
    row = np.repeat(np.arange(len(examples)), examples)
    total = np.bincount(row, lengths, len(examples)).astype(np.int64)
    first = _starts(lengths) - _starts(total)[row]  # position of each example in its row
    filled = np.arange(places) < total[:, None]  # true as often as `inside`, and in the same order of tokens

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros(filled.shape, values.dtype)
        out[filled] = values
        return out

    number = (np.arange(len(row)) - starts[:-1][row] + 1).astype(np.int32)
    return PackedColumns(
        input_ids=spread(columns.input_ids[inside]),
        input_mask=filled.view(np.uint8),
        segment_ids=spread(columns.segment_ids[inside]),
        example_ids=spread(np.repeat(number, lengths)),
        cls_positions=first,
        next_sentence_labels=columns.next_sentence_labels,
        example_weights=np.ones(len(row), np.float32),
        masked_lm_positions=columns.masked_lm_positions[used] + np.repeat(first, masked),
        masked_lm_ids=columns.masked_lm_ids[used],
        masked_lm_weights=columns.masked_lm_weights[used],
        examples=examples,
        predictions=np.bincount(row, masked, len(examples)).astype(np.int64),
    )


def unpack_examples(packed: PackedColumns, max_predictions: int) -> Columns:
    """Return the examples in the order of the rows, as they were before `pack_examples`.

    Relies on valid rows: quality/row_invariants.py checks those of a file first.

    Args:
        max_predictions: P, that of dataset.json; no example may have more masked positions.
    """
    examples, places = len(packed.cls_positions), packed.input_ids.shape[1]
    filled, first_number = packed.example_ids > 0, _starts(packed.examples)
    in_row = (packed.example_ids.astype(np.int64) - 1 + first_number[:, None])[filled]  # the example of each token
    inside = np.arange(places) < np.bincount(in_row, minlength=examples)[:, None]
    row = np.repeat(np.arange(len(packed)), packed.predictions)
    number = packed.example_ids[row, packed.masked_lm_positions] - 1 + first_number[row]  # the example of each prediction
    used = np.arange(max_predictions) < np.bincount(number, minlength=examples)[:, None]

    def spread(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        out = np.zeros(where.shape, values.dtype)
        out[where] = values
        return out

    return Columns(
        input_ids=spread(packed.input_ids[filled], inside),
        input_mask=spread(packed.input_mask[filled], inside),
        segment_ids=spread(packed.segment_ids[filled], inside),
        masked_lm_positions=spread(packed.masked_lm_positions - packed.cls_positions[number], used),
        masked_lm_ids=spread(packed.masked_lm_ids, used),
        masked_lm_weights=spread(packed.masked_lm_weights, used),
        next_sentence_labels=packed.next_sentence_labels,
    )
