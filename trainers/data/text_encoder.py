"""Texts to the three id tensors: tokenized as the shards were, cut to a length, padded."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from clozemill.model.inputs import assemble, pack
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.text import single_line
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece

_PART = 1 << 20


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in parts of about `_PART` characters: offsets of a part take some 50 bytes a character while they are made."""
    begin = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= _PART:
            yield texts[begin : number + 1]
            begin, size = number + 1, 0
    if begin < len(texts):
        yield texts[begin:]


def _as_given(
    text: str, one: str, starts: np.ndarray, ends: np.ndarray, library: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Places in a plain text as places in the text that it was made of."""
    if one == text.translate(single_line.BREAKS) or not len(starts):
        return starts, ends
    begins, stops = single_line.places(text, library)
    return begins[starts], stops[ends - 1]


class TextEncoder:
    """Tokenizes and packs.

    Args:
        vocabulary: of the model. cased: whether it is. max_seq_length: tokens of a row, special ones included. rules: how
        its tokenizer deviates from google-research/bert's. segments: that the model tells apart; with one, it takes no pairs.
    """

    def __init__(
        self, vocabulary: Vocabulary, cased: bool, max_seq_length: int, rules: TextRules = REFERENCE, segments: int = 2
    ) -> None:
        self.vocabulary, self.max_seq_length, self._library = vocabulary, max_seq_length, rules.library
        self._segments = segments
        self.wordpiece = WordPiece(vocabulary, cased, rules)

    @cached_property
    def unknown(self) -> np.ndarray:
        """[UNK] alone, int32 [1]."""
        return np.array([self.vocabulary.unk_id], np.int32)

    def beginning(self, text: str) -> str:
        """So much of a long text as fills a row: what comes after a row's last token changes nothing.

        It ends before a space, so that its tokens are the first ones of the text.
        """
        size = _PART
        while len(text) > size and (at := text.find(" ", size)) >= 0:
            if len(self.ids([text[:at]])[0]) >= self.max_seq_length:
                return text[:at]
            size *= 4
        return text

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens, int32 [pieces]."""
        found = self.wordpiece.encode([single_line.plain(text, self._library) for text in texts])
        return np.split(found.ids, np.cumsum(found.lengths)[:-1]) if len(texts) else []

    def with_offsets(self, texts: Sequence[str], by_piece: bool = False) -> list[single_line.Located]:
        """Each text's (tokens, begins, ends), int [pieces]: where each token's word stands in the text as it was given.

        by_piece: where the token itself stands, instead of its word. A token whose characters NFC joins with others, or that
        is a part of one character only, comes from all of them; one of [UNK] from its word.
        """
        found = []
        for part in _parts(texts):
            plains = [single_line.plain(text, self._library) for text in part]
            encoded = self.wordpiece.encode(plains, offsets=True, by_piece=by_piece)
            splits = np.cumsum(encoded.lengths)[:-1]
            columns = (np.split(column, splits) for column in (encoded.ids, encoded.starts, encoded.ends))
            for text, one, ids, starts, ends in zip(part, plains, *columns, strict=True):
                found.append((ids, *_as_given(text, one, starts, ends, self._library)))
        return found

    @property
    def _special(self) -> tuple[int, int, int]:
        return self.vocabulary.pad_id, self.vocabulary.cls_id, self.vocabulary.sep_id

    def _check_pairs(self, paired: bool) -> None:
        """Raises UserError for pairs that the model can't tell from single texts: the second text would have no segment."""
        if paired and self._segments < 2:
            raise UserError("the model has one segment only (type_vocab_size 1), so it takes no pairs: give single texts")

    def pairs(self, firsts: Sequence[str], seconds: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Texts, or pairs of them, as rows (packing.assemble): an empty second text is none. Raises UserError."""
        self._check_pairs(any(seconds))
        return assemble(self.ids(firsts), self.ids(seconds or [""] * len(firsts)), self._special, self.max_seq_length)

    def pack(self, rows: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> dict[str, np.ndarray]:
        """Tokens that fit as rows (packing.pack). Raises UserError."""
        self._check_pairs(any(second is not None for _, second in rows))
        return pack(rows, self._special, self.max_seq_length)


def trimmed(features: dict[str, np.ndarray], multiple: int = 8) -> dict[str, np.ndarray]:
    """Rows without the padding that all of them share, up to a multiple: shapes stay static, short texts cost what they hold.

    Columns [N, S, ...] are cut, those of one value per row aren't.
    """
    mask = features["input_mask"]
    whole, longest = mask.shape[1], int(mask.sum(axis=1).max(initial=1))
    length = min(whole, -(-longest // multiple) * multiple)
    return {name: value[:, :length] if value.shape[1:2] == (whole,) else value for name, value in features.items()}
