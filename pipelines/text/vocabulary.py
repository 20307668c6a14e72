"""A WordPiece vocabulary: its file, its special tokens, and masks over its ids."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import other_than_wordpiece

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

MAX_TOKENS = 1 << 21  # ids are written in at most three bytes


@dataclass(frozen=True)
class Vocabulary:
    """A WordPiece vocabulary: tokens by id, and where its special tokens are (found by name)."""

    tokens: tuple[str, ...]
    sha256: str

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "Vocabulary":
        """Read vocab.txt: UTF-8, one token per line; the line number is the id.

        Raises UserError if the file isn't UTF-8, a token is empty or repeated, or a special token is missing.
        """
        try:
            lines = data.decode("utf-8").removeprefix("\ufeff").split("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 (byte {error.start}): give a vocab.txt with one token per line") from None
        if lines and lines[-1] == "":
            lines.pop()
        tokens = tuple(line.rstrip("\r") for line in lines)
        first_line: dict[str, int] = {}
        for number, token in enumerate(tokens, 1):
            if not token.strip():
                raise UserError(f"{name}, line {number}: the token is empty: write one token per line")
            if first_line.setdefault(token, number) != number:
                raise UserError(f"{name}, line {number}: {token!r} repeats line {first_line[token]}: remove one of them")
        if len(tokens) >= MAX_TOKENS:
            raise UserError(f"{name} has {len(tokens):,} tokens: give fewer than {MAX_TOKENS:,}")
        if missing := [token for token in SPECIAL_TOKENS if token not in first_line]:
            raise UserError(
                f"{name} lacks {', '.join(missing)}: give a vocab.txt with one token per line, including the special tokens"
            )
        return cls(tokens, hashlib.sha256(data).hexdigest())

    @classmethod
    def from_tokens(cls, tokens: list[str]) -> "Vocabulary":
        return cls.from_bytes(("\n".join(tokens) + "\n").encode(), "the vocabulary")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    pad_id = property(lambda self: self.ids[PAD])
    unk_id = property(lambda self: self.ids[UNK])
    cls_id = property(lambda self: self.ids[CLS])
    sep_id = property(lambda self: self.ids[SEP])
    mask_id = property(lambda self: self.ids[MASK])

    @cached_property
    def special_ids(self) -> np.ndarray:
        return np.array(sorted(self.ids[token] for token in SPECIAL_TOKENS))

    @cached_property
    def is_special(self) -> np.ndarray:
        """bool [vocab_size]"""
        table = np.zeros(len(self.tokens), bool)
        table[self.special_ids] = True
        return table

    @cached_property
    def is_continuation(self) -> np.ndarray:
        """bool [vocab_size]: pieces that continue a word (`##…`)"""
        return np.array([token.startswith("##") and len(token) > 2 for token in self.tokens])

    @cached_property
    def random_ids(self) -> np.ndarray:
        """Ids from which a random replacement is drawn: all except the special and the [unused…] tokens."""
        return np.array(
            [i for i, token in enumerate(self.tokens) if token not in SPECIAL_TOKENS and not token.startswith("[unused")]
            or self.special_ids
        )

    @cached_property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer type that holds every id."""
        return np.dtype(np.uint16 if len(self.tokens) <= 1 << 16 else np.uint32)

    def check_wordpiece(self, name: str) -> None:
        """Raise UserError for the vocabulary of another tokenizer, such as that of an imported ModernBERT."""
        if other := other_than_wordpiece(self.tokens):
            raise UserError(
                f"{name} is a vocabulary of {other}, and datasets are tokenized by WordPiece: learn one with clozemill vocab"
            )

    def casing_warning(self, cased: bool) -> str:
        """Return a sentence if the vocabulary doesn't seem to fit the requested casing, otherwise an empty string."""
        capitals = sum(token != token.lower() for token in self.tokens if token[:1] != "[")
        if not cased and capitals * 100 > len(self):
            return f"{capitals:,} entries contain capital letters, which an uncased tokenizer never uses: did you mean --cased?"
        if cased and not capitals:
            return "no entry contains a capital letter, so every capitalised word becomes [UNK]: remove --cased?"
        return ""
