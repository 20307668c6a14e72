"""Tokenizes texts with a tokenizer.json that isn't WordPiece, such as byte-level BPE, through the tokenizers library."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
from tokenizers import Encoding, Tokenizer

from clozemill.model.conversion import tokenizer_file
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.text.vocabulary import MASK
from clozemill.pipelines.text.wordpiece import Encoded, joined

_LONE = re.compile("[\ud800-\udfff]")  # surrogates, which UTF-8 can't encode
_REPLACEMENT = "\ufffd"


class LibraryTokenizer:
    """The tokenizer of a tokenizer.json, with WordPiece's interface; texts may have line breaks.

    Texts are tokenized as they are, except that lone surrogates become replacement characters. Special tokens in a text are
    text. Thread-safe.

    Args:
        data: the contents of tokenizer.json.
        name: of the model, for error messages.

    Raises UserError for a damaged file.
    """

    def __init__(self, data: bytes, name: str = "the model") -> None:
        self._data, self._name = data, name
        self._tokenizer = self._load()

    def _load(self, *matched: str) -> Tokenizer:
        try:
            return tokenizer_file.load(self._data, matched)
        except ValueError as error:
            raise UserError(f"{self._name}: {error}") from None

    @cached_property
    def _with_masks(self) -> Tokenizer:
        return self._load(MASK)

    @cached_property
    def splits_at_spaces(self) -> bool:
        """Return whether no word continues after a space, so that the tokens of a text that ends there begin any longer one."""
        return len(set(self._tokenizer.encode("a b", add_special_tokens=False).word_ids)) > 1

    def encode(self, texts: Sequence[str], offsets: bool = False, by_piece: bool = False, masks: bool = False) -> Encoded:
        """Tokenize texts. See Encoded for the result.

        Args:
            offsets: also return `starts` and `ends`. White space around a word or piece isn't part of it, unless there is
                nothing else. A character that the tokenizer's normalizer dropped or combined belongs to the one before it.
            by_piece: return the offsets of each piece instead of those of its word; a word is what the tokenizer merges
                pieces within. If a piece is part of one character, its span is that character.
            masks: return the mask's id for every [MASK].

        Raises UserError if the library fails.
        """
        texts = [text if text.isascii() else _LONE.sub(_REPLACEMENT, text) for text in texts]
        tokenizer = self._with_masks if masks else self._tokenizer
        encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
        with self._errors("tokenize a text"):
            found = encode(texts, add_special_tokens=False)
        ids = [np.array(one.ids, np.int32) for one in found]
        lengths = np.array([len(one) for one in ids], np.int64)
        starts = ends = None
        if offsets:
            spans = [_spans(text, one, by_piece) for text, one in zip(texts, found, strict=True)]
            starts, ends = (joined([pair[side] for pair in spans], np.int64) for side in (0, 1))
        return Encoded(joined(ids, np.int32), lengths, starts, ends)

    def surface(self, index: int) -> str:
        """Return the text of a token, with the space before it if it has one."""
        with self._errors("write a token as text"):
            return self._tokenizer.decode([index], skip_special_tokens=False)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn errors of the library into UserErrors."""
        try:
            with tokenizer_file.library_errors():
                yield
        except ValueError as error:
            raise UserError(f"{self._name}: {tokenizer_file.TOKENIZER} can't {what} ({error}): give another one") from None


def _spans(text: str, encoding: Encoding, by_piece: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and end of each piece, or of its word, in a text: int64 [pieces] each."""
    starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
    if not text.isascii():
        ends = _reach(text, starts, ends)[ends]
    group = np.arange(len(starts))
    if not by_piece:
        words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
        group = np.cumsum(np.diff(words, prepend=-2) != 0) - 1
        first = np.flatnonzero(np.diff(group, prepend=-1))
        if len(first):
            starts, ends = np.minimum.reduceat(starts, first), np.maximum.reduceat(ends, first)
    bare = np.array([_bare(text, begin, end) for begin, end in zip(starts.tolist(), ends.tolist(), strict=True)], np.int64)
    begins, stops = bare.reshape(-1, 2).T
    return begins[group], stops[group]


def _reach(text: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return where the characters from each position on end that belong to the piece before it, int64 [characters + 1]."""
    depth = np.cumsum(np.bincount(starts, minlength=len(text) + 1) - np.bincount(ends, minlength=len(text) + 1))
    reach = np.arange(len(text) + 1)
    for place in reversed(np.flatnonzero(depth[:-1] == 0).tolist()):
        if not text[place].isspace():
            reach[place] = reach[place + 1]
    return reach


def _bare(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return a span without the white space around it, unless there is nothing else."""
    part = text[begin:end]
    if not (inner := part.strip()):
        return begin, end
    left = len(part) - len(part.lstrip())
    return begin + left, begin + left + len(inner)
