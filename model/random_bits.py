"""Random integers as a function of a key and a counter: equal on every backend, device and number of devices.

A draw doesn't depend on any other, so there is no state to save, and no order of draws to keep. keras.random has different
numbers on each backend; dropout, whose exact numbers don't matter, uses that.
"""

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
