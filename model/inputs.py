"""Pack tokens into the three id tensors: add special tokens, truncate like google-research/bert, and pad."""

from collections.abc import Sequence

import numpy as np

TOKENS = ("input_ids", "input_mask", "segment_ids")
PACKING = ("example_ids", "cls_positions")  # more inputs of rows that contain several packed examples


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of two texts are kept: tokens are removed from the end of the longer one, or else the second.

    This is google-research/bert's `_truncate_seq_pair` in closed form.
    """
    one = min(first, max(room - second, room - room // 2))
    return one, min(second, room - one)


def pack(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None]], special: tuple[int, int, int], length: int
) -> dict[str, np.ndarray]:
    """Pack rows as [CLS] first [SEP] second [SEP] and padding; the tokens must fit.

    Args:
        rows: ids of the first text and of the second, None if there is none.
        special: the ids of [PAD], [CLS] and [SEP].
        length: S.

    Returns int32 [N, S] under the names of TOKENS.
    """
    pad, cls, sep = special
    shape = (len(rows), length)
    ids, mask, segments = np.full(shape, pad, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, (first, second) in enumerate(rows):
        middle = 2 + len(first)
        ids[row, 0], ids[row, 1 : middle - 1], ids[row, middle - 1] = cls, first, sep
        end = middle
        if second is not None:
            end = middle + len(second) + 1
            ids[row, middle : end - 1], ids[row, end - 1] = second, sep
            segments[row, middle:end] = 1
        mask[row, :end] = 1
    return dict(zip(TOKENS, (ids, mask, segments), strict=True))


def assemble(
    firsts: Sequence[np.ndarray], seconds: Sequence[np.ndarray], special: tuple[int, int, int], length: int
) -> dict[str, np.ndarray]:
    """Truncate texts, or pairs of texts (an empty second text means none), and pack them, as `pack` does."""
    rows = []
    for first, second in zip(firsts, seconds, strict=True):
        one, other = kept_lengths(len(first), len(second), length - (3 if len(second) else 2))
        rows.append((first[:one], second[:other] if len(second) else None))
    return pack(rows, special, length)
