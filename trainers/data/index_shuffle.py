"""The permutation that TensorFlow's RandomIndexShuffle draws, which reads fine-tuning rows in a graph, without TensorFlow.

It is a cycle-walking cipher (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"): a place is encrypted by a block
cipher until it is again a place. The cipher is Simon (Beaulieu et al. 2013) with four rounds, a key of three 32-bit words, and
blocks of an even number of bits, at least 16.

Like TensorFlow's, it isn't a permutation of 2 ** 16 + 1 rows, 2 ** 18 + 1, and so on: one row comes twice, and one never.
"""

import numpy as np

_LEAST_BITS = 16  # of a block
_Z = 0b01  # the first bit of Simon's constant sequence, which the only derived round key uses


def _rotated(words: np.ndarray, left: int, width: int) -> np.ndarray:
    """Return words of `width` bits, uint64, rotated to the left."""
    left %= width
    return (words << np.uint64(left) | words >> np.uint64(width - left)) & np.uint64((1 << width) - 1)


def _mixed(words: np.ndarray, width: int) -> np.ndarray:
    """Return Simon's round function."""
    return _rotated(words, 1, width) & _rotated(words, 8, width) ^ _rotated(words, 2, width)


def _round_keys(seed: tuple[int, ...], width: int) -> list[np.ndarray]:
    keys = [np.array(word & 0xFFFFFFFF & (1 << width) - 1, np.uint64) for word in seed]
    constant = np.array(0xFFFFFFFC & (1 << width) - 1 ^ _Z, np.uint64)
    return [*keys, constant ^ keys[0] ^ _rotated(keys[2], -3, width) ^ _rotated(keys[2], -4, width)]


def _encrypted(places: np.ndarray, keys: list[np.ndarray], width: int) -> np.ndarray:
    """Return places, uint64, encrypted in blocks of two words of `width` bits."""
    left, right = places >> np.uint64(width) & np.uint64((1 << width) - 1), places & np.uint64((1 << width) - 1)
    for first, second in (keys[:2], keys[2:]):
        left = left ^ _mixed(right, width) ^ first
        right = right ^ _mixed(left, width) ^ second
    return left << np.uint64(width) | right


def shuffled(count: int, *seed: int) -> np.ndarray:
    """Return RandomIndexShuffle's permutation of range(count), int64. seed: three words, of which the low 32 bits count."""
    if count < 2:
        return np.zeros(count, np.int64)
    bits = (count - 2).bit_length()  # ceil(log2(count - 1))
    bits = max(bits + bits % 2, _LEAST_BITS)
    after = _encrypted(np.arange(1 << bits, dtype=np.uint64), _round_keys(seed, bits // 2), bits // 2).astype(np.int64)
    # Where each block ends up that is encrypted until it is a place: jumps of 1, 2, 4, ... encryptions, which stop at places.
    jumps = np.where(np.arange(len(after)) < count, np.arange(len(after)), after)
    found = after[np.arange(count) % len(after)]
    while (found >= count).any():
        found, jumps = jumps[found], jumps[jumps]
    return found
