"""SplitMix64 for arrays of 64-bit hashes, and the size of a document key."""

import numpy as np

HASH_BYTES = 16

ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, Knuth's multiplier


def mix(values: np.ndarray) -> np.ndarray:
    """Map uint64 to uint64, one to one; each output bit depends on all input bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
