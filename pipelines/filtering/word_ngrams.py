"""Words and word n-grams as 64-bit hashes, from the wordpiece ids of a document, without splitting text again.

A word is a piece and the `##` pieces after it. Pieces without a letter or digit (punctuation) are ignored, so that texts that
differ only in punctuation have the same words. The hashes depend only on the vocabulary.
"""

import numpy as np

from clozemill.pipelines.common import hashing
from clozemill.pipelines.text.vocabulary import Vocabulary


class Words:
    """Converts wordpiece ids to words and n-grams, for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        said = [token == "[UNK]" or any(c.isalnum() for c in token.removeprefix("##")) for token in vocabulary.tokens]
        self._said = np.array(said) & (~vocabulary.is_special | (np.arange(len(said)) == vocabulary.unk_id))
        self._hashes = hashing.mix(np.arange(1, len(said) + 1, dtype=np.uint64) * hashing.ODD)
        self.unknown = hashing.mix(hashing.mix(self._hashes[vocabulary.unk_id : vocabulary.unk_id + 1]))[
            0
        ]  # the hash of [UNK] as a word

    def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (hashes uint64 [words], position of each word's first piece in ids, int64 [words])."""
        at = np.flatnonzero(self._said[ids])
        pieces = ids[at]
        begins = ~self._vocabulary.is_continuation[pieces]
        begins[:1] = True
        first = np.flatnonzero(begins)
        if not len(first):
            return np.zeros(0, np.uint64), first
        place = (np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))).astype(np.uint64)
        return hashing.mix(np.add.reduceat(hashing.mix(self._hashes[pieces] + place * hashing.ODD), first)), at[first]

    def ngrams(self, words: np.ndarray, size: int) -> np.ndarray:
        """Return the hashes of n-grams without unknown words, because n-grams of different texts would look the same."""
        known = np.concatenate([[0], np.cumsum(words != self.unknown)])
        return ngrams(words, size)[known[size:] - known[:-size] == size] if len(words) >= size else ngrams(words, size)

    def text(self, ids: np.ndarray) -> str:
        """Return the words and punctuation that ids represent, normalised as by the tokenizer."""
        pieces = [self._vocabulary.tokens[piece] for piece in ids.tolist()]
        return "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in pieces).strip()


def ngrams(words: np.ndarray, size: int) -> np.ndarray:
    """Return uint64 [words - size + 1]: an order-dependent hash of each n-gram; [0] if there are fewer words."""
    count = len(words) - size + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    total, factor = np.zeros(count, np.uint64), 1
    for place in range(size):
        total += words[place : place + count] * np.uint64(factor)
        factor = factor * int(hashing.ODD) % 2**64
    return hashing.mix(total)
