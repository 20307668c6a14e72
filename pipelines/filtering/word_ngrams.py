"""Words and n-grams of words as 64-bit hashes, from a document's wordpiece ids: no text is split a second time.

A word is a piece and the `##` pieces after it. Pieces without a letter or digit, which is punctuation, are left out, so that
texts which differ in it alone have the same words. The hashes depend on the vocabulary and on nothing else.
"""

import numpy as np

from clozemill.pipelines.common import hashing
from clozemill.pipelines.text.vocabulary import Vocabulary


class Words:
    """What the words of a vocabulary's ids are."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        said = [token == "[UNK]" or any(c.isalnum() for c in token.removeprefix("##")) for token in vocabulary.tokens]
        self._said = np.array(said) & (~vocabulary.is_special | (np.arange(len(said)) == vocabulary.unk_id))
        self._hashes = hashing.mix(np.arange(1, len(said) + 1, dtype=np.uint64) * hashing.ODD)
        self.unknown = hashing.mix(hashing.mix(self._hashes[vocabulary.unk_id : vocabulary.unk_id + 1]))[
            0
        ]  # the hash of [UNK] as a word

    def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hashes uint64 [words], where each word's first piece stands in ids, int64 [words])."""
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
        """The hashes of each run of `size` words without an unknown one: such runs of different texts may look the same."""
        known = np.concatenate([[0], np.cumsum(words != self.unknown)])
        return ngrams(words, size)[known[size:] - known[:-size] == size] if len(words) >= size else ngrams(words, size)

    def text(self, ids: np.ndarray) -> str:
        """The words and punctuation that ids stand for, normalised as the tokenizer does."""
        pieces = [self._vocabulary.tokens[piece] for piece in ids.tolist()]
        return "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in pieces).strip()


def ngrams(words: np.ndarray, size: int) -> np.ndarray:
    """uint64 [words - size + 1]: a hash of each run of `size` words, which depends on their order; [0] if there are fewer."""
    count = len(words) - size + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    total, factor = np.zeros(count, np.uint64), 1
    for place in range(size):
        total += words[place : place + count] * np.uint64(factor)
        factor = factor * int(hashing.ODD) % 2**64
    return hashing.mix(total)
