"""Reproducible mutations of seeds, for the normal test suite and for machines without atheris."""

from collections.abc import Iterator

import numpy as np

_EDGES = (b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", b"\n", b" ", b"\xc3", b"\xed\xa0\x80")


def _mutated(data: bytes, others: list[bytes], words: tuple[bytes, ...], rng: np.random.Generator) -> bytes:
    """Apply one change: flip a bit, replace a byte, insert a word, or remove, double or splice a part."""
    at = int(rng.integers(0, len(data) + 1))
    to = min(len(data), at + int(rng.geometric(0.1)))
    kind = int(rng.integers(0, 7))
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(0, 8))]) + data[at + 1 :]
    if kind == 1 and at < len(data):
        return data[:at] + bytes([int(rng.integers(0, 256))]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[to:]
    if kind == 3:
        return data[:at] + data[at:to] * int(rng.integers(2, 9)) + data[to:]
    if kind == 4:
        other = others[int(rng.integers(0, len(others)))]
        return data[:at] + other[int(rng.integers(0, len(other) + 1)) :]
    word = (*words, *_EDGES)[int(rng.integers(0, len(words) + len(_EDGES)))]
    return data[:at] + word + data[at if kind == 5 else to :]


def mutants(seeds: list[bytes], words: tuple[bytes, ...], number: int = 0) -> Iterator[bytes]:
    """Yield the seeds, then endlessly seeds changed in one to eight places. `number`: selects another sequence."""
    yield from seeds
    rng = np.random.default_rng(number)
    while True:
        data = seeds[int(rng.integers(0, len(seeds)))]
        for _ in range(int(rng.integers(1, 9))):
            data = _mutated(data, seeds, words, rng)
        yield data
