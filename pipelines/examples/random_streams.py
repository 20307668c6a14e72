"""Random numbers: a Philox stream for each purpose, seeded by a stable hash."""

import numpy as np

# One independent stream per purpose, so that how many numbers one step draws never shifts another's.
PURPOSES = ("pairs", "order", "mask_positions", "mask_actions", "mask_tokens")


def generator(seed: int, group: int, copy: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose for one copy of one group."""
    # The seed as two words of fixed size: joined at their natural lengths, large seeds would meet others' streams.
    entropy = [seed >> 32, seed & 0xFFFFFFFF, group, copy]
    sequence = np.random.SeedSequence(entropy, spawn_key=(PURPOSES.index(purpose),))
    return np.random.Generator(np.random.Philox(sequence))
