"""The lengths that batches of rows of similar length are padded to."""

import numpy as np


def static_lengths(longest: int, compiled: bool) -> np.ndarray:
    """Return the lengths that batches are padded to, ascending, int64.

    Args:
        longest: tokens of the longest row, which is the last of the lengths.
        compiled: whether each length costs a compilation. If so, there are two lengths per octave (16, 24, 32, 48, ...),
            otherwise multiples of 4, and of 8 from 64 on.
    """
    if compiled:
        octaves = [16 << octave for octave in range(24)]
        sizes = [size for octave in octaves for size in (octave, octave * 3 // 2)]
    else:
        sizes = [*range(4, 64, 4), *range(64, longest, 8)]
    return np.array([size for size in sizes if size < longest] + [longest], np.int64)


def padded_length(lengths: np.ndarray, static: np.ndarray) -> int:
    """Return the shortest static length that fits rows of these lengths."""
    return int(static[np.searchsorted(static, lengths.max(initial=1))])
