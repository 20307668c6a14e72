"""Random integers as a function of a key and a counter: equal on every backend, device and number of devices.

A draw doesn't depend on any other, so there is no state to save, and no order of draws to keep. keras.random has different
numbers on each backend.
"""

import math

from keras import ops

BITS = 31  # of a draw: int32 without its sign, which every backend compares and sorts alike
_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: consecutive counters are far apart


def _word(value: int) -> int:
    """Return the int32 with the bits of a uint32."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _shifted(x, places: int):
    """Return int32 shifted to the right, filled with zeros instead of the sign."""
    return ops.bitwise_and(ops.right_shift(x, places), (1 << (32 - places)) - 1)


def mix(x):
    """Map int32 to int32, one to one; each output bit depends on all input bits (Wellons 2018, "lowbias32")."""
    x = ops.bitwise_xor(x, _shifted(x, 16)) * _word(0x7FEB352D)  # products wrap around, as in uint32
    x = ops.bitwise_xor(x, _shifted(x, 15)) * _word(0x846CA68B)
    return ops.bitwise_xor(x, _shifted(x, 16))


def draw(keys_B2, counters_BX, purpose: int):
    """Return random integers from 0 to 2**31 - 1, int32 [B, X].

    Args:
        keys_B2: int32 [B, 2], a key per row.
        counters_BX: int32 [B or 1, X], the number of the draw.
        purpose: a small integer; draws of different purposes are independent.
    """
    first_B1, second_B1 = keys_B2[:, :1], keys_B2[:, 1:] + _word(0x85EBCA6B * (purpose + 1) % (1 << 32))
    return _shifted(mix(ops.bitwise_xor(mix(counters_BX * _word(_GOLDEN) + first_B1), second_B1)), 32 - BITS)


def _product(x, factor: int):
    """Return the (high, low) words of the products of uint32 values and a constant, each as int32."""
    low, high = _lower(x), _shifted(x, 16)
    factor_low, factor_high = factor & 0xFFFF, factor >> 16
    one, other = low * factor_high, high * factor_low
    middle = _shifted(low * factor_low, 16) + _lower(one) + _lower(other)
    return high * factor_high + _shifted(one, 16) + _shifted(other, 16) + _shifted(middle, 16), x * _word(factor)


def _lower(x):
    """Return the lower half of the bits."""
    return ops.bitwise_and(x, 0xFFFF)


def _philox(counter: list, key: list) -> list:
    """Return Philox4x32-10 (Salmon et al. 2011) of counters and a key: four and two int32 arrays; returns four."""

    def mixed(number, state: tuple) -> tuple:
        a, b, c, d, first, second = state
        (high, low), (high_c, low_c) = _product(a, 0xD2511F53), _product(c, 0xCD9E8D57)
        b, d = ops.bitwise_xor(ops.bitwise_xor(high_c, b), first), ops.bitwise_xor(ops.bitwise_xor(high, d), second)
        return b, low_c, d, low, first + _word(_GOLDEN), second + _word(0xBB67AE85)

    # A loop, not ten copies: as a single expression, XLA for CPUs would compute its parts again and again.
    return list(ops.fori_loop(0, 10, mixed, (*counter, *key)))[:4]


def tensorflow_words(shape: tuple[int, ...], seed):
    """Return the words of tf.random.stateless_uniform, int32 from -2**31 to 2**31 - 2, computed on any backend.

    So dropout is the same on every backend, and TensorFlow uses its own kernel, which takes a fraction of the time on a CPU.

    Args:
        shape: dimensions as integers.
        seed: int32 [2].
    """
    signs = ops.right_shift(seed, 31)  # as 64-bit integers, negative seeds have ones in their upper half
    key = ops.convert_to_tensor([0x3EC8F720, 0x02461E29], "int32")  # TensorFlow's, to mix the bits of a seed
    mixed = _philox([seed[0], signs[0], seed[1], signs[1]], [key[0], key[1]])
    count = math.prod(shape)
    groups = ops.arange(-(-count // 4), dtype="int32")
    zeros = ops.zeros_like(groups)
    words = _philox([groups, zeros, zeros + mixed[2], zeros + mixed[3]], mixed[:2])
    found = ops.reshape(ops.stack(words, axis=1), (-1,))[:count]
    # TensorFlow takes the remainder by 2**32 - 1, which changes that value alone, and adds the minimum.
    found = ops.where(found == -1, 0, found)
    return ops.reshape(ops.bitwise_xor(found, _word(1 << 31)), shape)
