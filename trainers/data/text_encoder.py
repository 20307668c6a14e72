"""Encodes texts as the three id tensors: tokenized like the shards, truncated and padded."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from clozemill.model.inputs import assemble, pack
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.text import single_line
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.library_tokenizer import LibraryTokenizer
from clozemill.trainers.data.wordpiece_tokenizer import WordPieceTokenizer

_PART = 1 << 20
_BREAK = re.compile(r"\S(?= )")


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield texts in parts of about `_PART` characters. Computing the offsets of a part takes some 50 bytes per character."""
    begin = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= _PART:
            yield texts[begin : number + 1]
            begin, size = number + 1, 0
    if begin < len(texts):
        yield texts[begin:]


class TextEncoder:
    """Tokenizes texts and packs them into rows.

    Args:
        vocabulary: the vocabulary of the model.
        cased: whether the vocabulary is cased.
        max_seq_length: tokens per row, including special tokens.
        rules: how the tokenizer deviates from google-research/bert's.
        segments: number of segments of the model, 0 if it doesn't tell them apart; with one segment, pairs are not supported.
        tokenizer: the contents of a tokenizer.json that isn't WordPiece, of a model that has one; then `cased` and `rules`
            mean nothing, and texts are tokenized as they are.
    """

    def __init__(
        self, vocabulary: Vocabulary, cased: bool, max_seq_length: int, rules: TextRules = REFERENCE, segments: int = 2,
        tokenizer: bytes = b"",
    ) -> None:  # fmt: skip
        self.vocabulary, self.max_seq_length, self._segments = vocabulary, max_seq_length, segments
        self.tokenizer = LibraryTokenizer(tokenizer) if tokenizer else WordPieceTokenizer(vocabulary, cased, rules)

    @cached_property
    def unknown(self) -> np.ndarray:
        """Return [UNK] alone, int32 [1]."""
        return np.array([self.vocabulary.unk_id], np.int32)

    def beginning(self, text: str) -> str:
        """Return the beginning of a long text that is enough to fill a row; the rest can't change the row.

        It ends before a space, so that its tokens are the first tokens of the text.
        """
        if not self.tokenizer.splits_at_spaces:
            return text
        size = _PART
        while len(text) > size and (found := _BREAK.search(text, size)):
            if len(self.ids([text[: found.end()]])[0]) >= self.max_seq_length:
                return text[: found.end()]
            size *= 4
        return text

    def ids(self, texts: Sequence[str], masks: bool = False) -> list[np.ndarray]:
        """Return the tokens of each text, int32 [pieces]; masks: with the mask's id for every [MASK]."""
        encoded = (self.tokenizer.encode(part, masks=masks) for part in _parts(texts))
        return [ids for one in encoded for ids in one.split(one.ids)]

    def surface(self, index: int) -> str:
        """Return a token as it is written in a text, with the space before it if the token has one."""
        return self.tokenizer.surface(index) or self.vocabulary.tokens[index]  # "" for a row without a token

    def with_offsets(self, texts: Sequence[str], by_piece: bool = False) -> list[single_line.Located]:
        """Return (tokens, begins, ends) of each text, int [pieces]: begin and end of each token's word in the original text.

        by_piece: return the positions of the token itself instead of its word. If NFC joins characters of a token with
        others, or a token is part of one character, its span covers all of these; [UNK] covers its word.
        """
        found: list[single_line.Located] = []
        for part in _parts(texts):
            one = self.tokenizer.encode(part, offsets=True, by_piece=by_piece)
            found += zip(one.split(one.ids), one.split(one.starts), one.split(one.ends), strict=True)
        return found

    @property
    def _special(self) -> tuple[int, int, int]:
        return self.vocabulary.pad_id, self.vocabulary.cls_id, self.vocabulary.sep_id

    def _check_pairs(self, paired: bool) -> None:
        """Raise UserError for pairs if the model has no second segment."""
        if paired and self._segments == 1:
            raise UserError("the model has only one segment (type_vocab_size 1) and doesn't support pairs: give single texts")

    def pairs(self, firsts: Sequence[str], seconds: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Return texts, or pairs of texts, as rows (inputs.assemble); an empty second text means none. Raises UserError."""
        return self.truncated_pairs(firsts, seconds)[0]

    def truncated_pairs(self, firsts: Sequence[str], seconds: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], int]:
        """Return (texts, or pairs of texts, as rows, how many of them were truncated). As `pairs`."""
        self._check_pairs(any(seconds))
        one, other = self.ids(firsts), self.ids(seconds or [""] * len(firsts))
        room = self.max_seq_length - 2  # one less with a second text, for its [SEP]
        cut = sum(len(first) + len(second) + bool(len(second)) > room for first, second in zip(one, other, strict=True))
        return assemble(one, other, self._special, self.max_seq_length), cut

    def pack(self, rows: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> dict[str, np.ndarray]:
        """Return tokens, which must fit, as rows (inputs.pack). Raises UserError."""
        self._check_pairs(any(second is not None for _, second in rows))
        return pack(rows, self._special, self.max_seq_length)


def trimmed(features: dict[str, np.ndarray], multiple: int = 8) -> dict[str, np.ndarray]:
    """Remove the padding that all rows share, up to a multiple, so that short texts cost less with few distinct shapes.

    Columns [N, S, ...] are cut; columns with one value per row are not.
    """
    mask = features["input_mask"]
    whole, longest = mask.shape[1], int(mask.sum(axis=1).max(initial=1))
    length = min(whole, -(-longest // multiple) * multiple)
    return {name: value[:, :length] if value.shape[1:2] == (whole,) else value for name, value in features.items()}
