"""Texts to the three id tensors: tokenized as the shards were, cut to a length, padded."""

import unicodedata
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pipelines.wordpiece import Vocabulary, WordPiece

IDS = ("input_ids", "input_mask", "segment_ids")

# Every character that ends a line, or would separate words once cleaned, becomes a space, so that offsets stay as they are.
_BREAKS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", " "))


def plain(text: str) -> str:
    """A text as it is tokenized: in Unicode's form NFC, as the shards' texts, on one line.

    Characters keep their places unless the text wasn't in NFC.
    """
    return unicodedata.normalize("NFC", text).translate(_BREAKS)


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two texts is kept: tokens are taken from the end of the longer one, of the second when they are equal.

    This is google-research/bert's `_truncate_seq_pair` in closed form.
    """
    one = min(first, max(room - second, room - room // 2))
    return one, min(second, room - one)


class TextEncoder:
    """Tokenizes and packs.

    Args:
        vocabulary: of the model. cased: whether it is. max_seq_length: tokens of a row, special ones included.
    """

    def __init__(self, vocabulary: Vocabulary, cased: bool, max_seq_length: int) -> None:
        self.vocabulary, self.max_seq_length = vocabulary, max_seq_length
        self.wordpiece = WordPiece(vocabulary, cased)

    @cached_property
    def unknown(self) -> np.ndarray:
        """[UNK] alone, int32 [1]."""
        return np.array([self.vocabulary.unk_id], np.int32)

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens, int32 [pieces]."""
        found = self.wordpiece.encode([plain(text) for text in texts])
        return np.split(found.ids, np.cumsum(found.lengths)[:-1]) if len(texts) else []

    def with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, where each one's word begins and ends in `plain(text)`), int [pieces]."""
        found = self.wordpiece.encode([plain(text)], offsets=True)
        return found.ids, found.starts, found.ends

    def pairs(self, firsts: Sequence[str], seconds: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Texts, or pairs of them, as rows: the longer of a pair is cut first."""
        first, second = self.ids(firsts), self.ids(seconds) if seconds else None
        rows = []
        for number, one in enumerate(first):
            if second is None:
                rows.append((one[: self.max_seq_length - 2], None))
            else:
                kept = kept_lengths(len(one), len(second[number]), self.max_seq_length - 3)
                rows.append((one[: kept[0]], second[number][: kept[1]]))
        return self.pack(rows)

    def pack(self, rows: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> dict[str, np.ndarray]:
        """[CLS] first [SEP] second [SEP] and padding, int32 [N, S] under the names of IDS; the tokens must fit."""
        words, shape = self.vocabulary, (len(rows), self.max_seq_length)
        ids, mask, segments = np.full(shape, words.pad_id, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, (first, second) in enumerate(rows):
            middle = 2 + len(first)
            ids[row, 0], ids[row, 1 : middle - 1], ids[row, middle - 1] = words.cls_id, first, words.sep_id
            end = middle
            if second is not None:
                end = middle + len(second) + 1
                ids[row, middle : end - 1], ids[row, end - 1] = second, words.sep_id
                segments[row, middle:end] = 1
            mask[row, :end] = 1
        return dict(zip(IDS, (ids, mask, segments), strict=True))


def trimmed(features: dict[str, np.ndarray], multiple: int = 8) -> dict[str, np.ndarray]:
    """Rows without the padding that all of them share: shapes stay static, and short texts cost what they hold."""
    longest = int(features["input_mask"].sum(axis=1).max(initial=1))
    length = min(features["input_mask"].shape[1], -(-longest // multiple) * multiple)
    whole = features["input_mask"].shape[1]
    return {name: value[:, :length] if value.shape[1:2] == (whole,) else value for name, value in features.items()}
