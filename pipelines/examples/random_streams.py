"""Random numbers: a Philox stream for each purpose, seeded by a stable hash."""

import numpy as np

# One independent stream per purpose, so that the count of numbers drawn by one step never affects another.
PURPOSES = ("pairs", "order", "mask_positions", "mask_actions", "mask_tokens")


def generator(seed: int, group: int, copy: int, purpose: str) -> np.random.Generator:
    """Return the random stream of one purpose for one copy of one group."""
    # The seed as two words of fixed size: with variable lengths, large seeds would share streams with others.
    entropy = [seed >> 32, seed & 0xFFFFFFFF, group, copy]
    sequence = np.random.SeedSequence(entropy, spawn_key=(PURPOSES.index(purpose),))
    return np.random.Generator(np.random.Philox(sequence))
