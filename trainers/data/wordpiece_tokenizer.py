"""Tokenizes texts as they are given with WordPiece: cleaned like the shards, with offsets in the original text."""

from collections.abc import Iterator, Sequence

import numpy as np

from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.text import single_line
from clozemill.pipelines.text.vocabulary import MASK, Vocabulary
from clozemill.pipelines.text.wordpiece import Encoded, WordPiece, joined


class WordPieceTokenizer:
    """WordPiece with LibraryTokenizer's interface; texts may have line breaks. Not thread-safe.

    Args:
        vocabulary: the vocabulary of the model.
        cased: whether the vocabulary is cased.
        rules: how the tokenizer deviates from google-research/bert's.
    """

    splits_at_spaces = True  # no word continues after a space, so the tokens of a text that ends there begin any longer one

    def __init__(self, vocabulary: Vocabulary, cased: bool, rules: TextRules = REFERENCE) -> None:
        self.vocabulary, self._library = vocabulary, rules.library
        self._wordpiece = WordPiece(vocabulary, cased, rules)

    def encode(self, texts: Sequence[str], offsets: bool = False, by_piece: bool = False, masks: bool = False) -> Encoded:
        """Tokenize texts. See Encoded for the result; without unknown chunks if there are masks.

        Args:
            offsets: also return `starts` and `ends`. If NFC joins characters of a word with others, its span covers
                all of them.
            by_piece: return the offsets of each piece instead of those of its word. If a piece is part of one character, its
                span is that character; that of [UNK] is its word.
            masks: return the mask's id for every [MASK]; not with offsets.
        """
        if masks:
            return self._with_masks(texts)
        plains = [single_line.plain(text, self._library) for text in texts]
        found = self._wordpiece.encode(plains, offsets, by_piece)
        if not offsets:
            return found
        spans = [
            self._as_given(text, one, starts, ends)
            for text, one, starts, ends in zip(texts, plains, found.split(found.starts), found.split(found.ends), strict=True)
        ]
        starts, ends = (joined([pair[side] for pair in spans], np.int64) for side in (0, 1))
        return Encoded(found.ids, found.lengths, starts, ends, found.unknown)

    def surface(self, index: int) -> str:
        """Return a token as it is written in a text."""
        return self.vocabulary.tokens[index].removeprefix("##")

    def _with_masks(self, texts: Sequence[str]) -> Encoded:
        parts = [text.split(MASK) for text in texts]
        found = self.encode([part for text in parts for part in text])
        pieces = iter(found.split(found.ids))
        rows = [self._around_masks(next(pieces) for _ in text) for text in parts]
        return Encoded(joined(rows, np.int32), np.array([len(row) for row in rows], np.int64))

    def _around_masks(self, parts: Iterator[np.ndarray]) -> np.ndarray:
        """Return parts of a text with the mask between them, int32 [pieces]."""
        mask = np.array([self.vocabulary.mask_id], np.int32)
        return np.concatenate([array for part in parts for array in (mask, part)][1:])

    def _as_given(self, text: str, one: str, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map offsets in a cleaned text to offsets in the original text."""
        if one == text or one == text.translate(single_line.BREAKS) or not len(starts):
            return starts, ends
        begins, stops = single_line.places(text, self._library)
        return begins[starts], stops[ends - 1]
