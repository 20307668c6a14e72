"""Differences between a tokenizer and google-research/bert's, recorded from import to export.

Shared by pipelines, model and trainers. Imports none of them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_WORD_CHARS = 200  # as in google-research/bert: longer words become [UNK]. The tokenizers library uses 100
_MARKS = {"\u2581": "sentencepiece", "\u0120": "byte-level BPE"}  # beginnings of their pieces
MAX_LIMIT = 1000  # the largest repetition count in a regular expression of an exported graph


@dataclass(frozen=True)
class TextRules:
    """Differences from google-research/bert's tokenizer. The defaults mean no difference.

    Args:
        strip_accents: whether accents are removed; None: removed unless the vocabulary is cased.
        tokenize_chinese_chars: whether every Chinese character is a separate word.
        library: clean text as Hugging Face's tokenizers library does: drop private-use characters, vertical tabs, form feeds
            and other separators, keep composed and decomposed accents as they are, and always lower-case Σ to σ. By default
            text is cleaned as for the shards: NFC, separators become spaces, and ς ends a word.
        max_word_chars: words with more characters become [UNK].
    """

    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    library: bool = False
    max_word_chars: int = MAX_WORD_CHARS

    def strips(self, cased: bool) -> bool:
        """Return whether accents are removed."""
        return not cased if self.strip_accents is None else self.strip_accents

    def changes_words(self, cased: bool) -> dict[str, bool]:
        """Return the rules that a dataset and a model must share besides casing; the others affect only rare characters."""
        return {"strip_accents": self.strips(cased), "tokenize_chinese_chars": self.tokenize_chinese_chars}

    def to_dict(self, cased: bool) -> dict[str, Any]:
        """Return the rules that differ, for the JSON description of a vocabulary; {} if it matches google-research/bert's."""
        own = asdict(self) | {"strip_accents": None if self.strips(cased) != cased else self.strip_accents}
        return {field.name: own[field.name] for field in fields(self) if own[field.name] != field.default}

    @classmethod
    def from_dict(cls, vocabulary: dict[str, Any]) -> "TextRules":
        """Return the rules from the JSON description of a vocabulary. Raise ValueError for invalid values."""
        rules = cls(**{field.name: vocabulary[field.name] for field in fields(cls) if field.name in vocabulary})
        limit = rules.max_word_chars
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"max_word_chars is {limit!r:.50}, not a number from 1 to {MAX_LIMIT:,}")
        flags = (rules.tokenize_chinese_chars, rules.library, bool(rules.strip_accents))
        if not all(isinstance(flag, bool) for flag in flags) or rules.strip_accents not in (None, True, False):
            raise ValueError("a tokenizer rule is neither true nor false")
        return rules


REFERENCE = TextRules()


def other_than_wordpiece(tokens: Sequence[str]) -> str:
    """Return the name of a vocabulary's tokenizer, and how it is known, if it isn't WordPiece; else ""."""
    for mark, name in _MARKS.items():
        if sum(token.startswith(mark) and len(token) > 1 for token in tokens) * 100 > len(tokens):
            return f"{name} (tokens begin with {mark!r})"
    return ""


def described(cased: bool, rules: TextRules) -> str:
    """Describe the casing for people: "uncased", "uncased, accents kept"."""
    parts = ["cased" if cased else "uncased"]
    if rules.strips(cased) == cased:
        parts.append("accents removed" if cased else "accents kept")
    if not rules.tokenize_chinese_chars:
        parts.append("Chinese characters not split")
    return ", ".join(parts)
