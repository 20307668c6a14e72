"""What a tokenizer does otherwise than google-research/bert's: the one record of it, from import to export.

Shared by pipelines, model and trainers, and depends on nothing.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_WORD_CHARS = 200  # longer words are [UNK]; google-research/bert's. The tokenizers library has 100
MAX_LIMIT = 1000  # what a regular expression of an exported graph can count to


@dataclass(frozen=True)
class TextRules:
    """Deviations from google-research/bert's tokenizer. The defaults are none.

    Args:
        strip_accents: whether accents are removed; None: unless cased.
        tokenize_chinese_chars: every Chinese character is a word of its own.
        library: clean text as Hugging Face's tokenizers library does: characters of a private use and vertical tabs, form
            feeds and other separators are dropped, composed and decomposed accents stay as they are, and the small letter of
            Σ is σ everywhere. Otherwise as the shards: NFC, separators are spaces, ς ends a word.
        max_word_chars: words of more characters are [UNK].
    """

    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    library: bool = False
    max_word_chars: int = MAX_WORD_CHARS

    def strips(self, cased: bool) -> bool:
        """Whether accents are removed."""
        return not cased if self.strip_accents is None else self.strip_accents

    def changes_words(self, cased: bool) -> dict[str, bool]:
        """What a dataset and a model must agree on besides the casing; the other rules concern rare characters alone."""
        return {"strip_accents": self.strips(cased), "tokenize_chinese_chars": self.tokenize_chinese_chars}

    def to_dict(self, cased: bool) -> dict[str, Any]:
        """The rules that deviate, for the JSON that describes a vocabulary; {} for google-research/bert's."""
        own = asdict(self) | {"strip_accents": None if self.strips(cased) != cased else self.strip_accents}
        return {field.name: own[field.name] for field in fields(self) if own[field.name] != field.default}

    @classmethod
    def from_dict(cls, vocabulary: dict[str, Any]) -> "TextRules":
        """The reverse of `to_dict`, from what describes a vocabulary. Raises ValueError for values that can't be."""
        rules = cls(**{field.name: vocabulary[field.name] for field in fields(cls) if field.name in vocabulary})
        limit = rules.max_word_chars
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"max_word_chars is {limit!r:.50}, not a number from 1 to {MAX_LIMIT:,}")
        flags = (rules.tokenize_chinese_chars, rules.library, bool(rules.strip_accents))
        if not all(isinstance(flag, bool) for flag in flags) or rules.strip_accents not in (None, True, False):
            raise ValueError("a rule of the tokenizer is neither true nor false")
        return rules


REFERENCE = TextRules()


def described(cased: bool, rules: TextRules) -> str:
    """The casing for people: "uncased", "uncased, accents kept"."""
    parts = ["cased" if cased else "uncased"]
    if rules.strips(cased) == cased:
        parts.append("accents removed" if cased else "accents kept")
    if not rules.tokenize_chinese_chars:
        parts.append("Chinese characters not set apart")
    return ", ".join(parts)
