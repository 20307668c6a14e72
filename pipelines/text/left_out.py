"""Characters that a vocabulary lacks or its tokenizer drops: counts, and warnings with what to do."""

import json
from collections import Counter
from dataclasses import asdict, dataclass

from clozemill.pipelines.common.tokenizer_rules import MAX_WORD_CHARS
from clozemill.pipelines.config import VocabConfig

# By default characters that make up less than the rest of this share of all occurrences may be left out (vocab/training.py).
COVERAGE = 0.9995
# Minimum shares of all characters: for a warning, since every corpus loses a few; and for the reason of a failed vocabulary.
LEAST_UNSPACED, _LEAST_MARKS, _MUCH_UNSPACED = 0.001, 0.01, 0.1


def occurrences(counts: list[tuple[str, int]]) -> tuple[Counter, Counter]:
    """Return (character -> total occurrences, character -> occurrences that continue a word)."""
    starts: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for word, count in counts:
        starts[word[0]] += count
        for char in word[1:]:
            inside[char] += count
    return starts + inside, inside


@dataclass(frozen=True)
class LeftOut:
    """Characters of a corpus that a vocabulary has no entry for.

    Attributes:
        characters, of: how many, and of how many different ones.
        share: of all occurrences, white space not counted.
        rare: how many of them occur only in words rarer than --min-count.
    """

    characters: int
    of: int
    share: float
    rare: int

    @property
    def sentence(self) -> str:
        """'2,001 of 3,001 characters (19.53 % of all occurrences) are left out'."""
        verb = "is" if self.characters == 1 else "are"
        share = f"{100 * self.share:.2f}" if self.share >= 0.0001 else "less than 0.01"
        return f"{self.characters:,} of {self.of:,} characters ({share} % of all occurrences) {verb} left out"

    def options(self, max_alphabet: int) -> list[str]:
        """Return the options that include more characters."""
        now = f"{max_alphabet:,}" if max_alphabet else f"as many as cover {100 * COVERAGE:g} % and fit"
        more = [f"a higher --max-alphabet (now {now})"] if self.characters > self.rare else []
        return more + (["a lower --min-count"] if self.rare else [])


def left_out(counts: list[tuple[str, int]], rare: dict[str, int], tokens: list[str]) -> LeftOut:
    """Return which characters of the words in `counts`, and of `rare` (character -> occurrences), `tokens` leave out."""
    frequent, _ = occurrences(counts)
    total = frequent + Counter(rare)
    lost = total.keys() - {token.removeprefix("##") for token in tokens}
    share = sum(total[char] for char in lost) / max(sum(total.values()), 1)
    return LeftOut(len(lost), len(total), share, len(lost - frequent.keys()))


def share(part: int, whole: int) -> str:
    """'12 %', '0.31 %'."""
    return f"{100 * part / whole:.2g} %" if part < whole else "100 %"


@dataclass(frozen=True)
class Removed:
    """Counts of characters (without white space) that are lost with any vocabulary.

    Attributes:
        characters: all of them. unspaced: those in words longer than MAX_WORD_CHARS. marks: vowel signs and similar marks
            that are removed as accents.
    """

    characters: int = 0
    unspaced: int = 0
    marks: int = 0

    @property
    def unspaced_sentence(self) -> str:
        """Return '12 % of the characters are in words of more than ...', or "" if hardly any are."""
        return unspaced_sentence(self.unspaced, self.characters) if self.unspaced > LEAST_UNSPACED * self.characters else ""

    @property
    def why_few(self) -> str:
        """Return the same sentence if the loss explains why a vocabulary is too small, otherwise ""."""
        return self.unspaced_sentence if self.unspaced > _MUCH_UNSPACED * self.characters else ""

    @property
    def marks_sentence(self) -> str:
        """Return '5 % of the characters ...', or "" if there are hardly any."""
        if self.marks <= _LEAST_MARKS * self.characters:
            return ""
        return (
            f"{share(self.marks, self.characters)} of the characters are vowel signs and other marks, which are removed as "
            "accents: to keep them, give --no-strip-accents, to prepare as well"
        )


def unspaced_sentence(part: int, characters: int) -> str:
    """Return the sentence that this many characters are in words that are too long."""
    return (
        f"{share(part, characters)} of the characters are in words of more than {MAX_WORD_CHARS} characters, which become "
        "[UNK]: if the text is written without spaces, as Thai, Khmer, Lao and Burmese are, put spaces between its words "
        "first, with a word segmenter such as ICU's break iterator or PyThaiNLP"
    )


def left_out_warning(lost: LeftOut, config: VocabConfig) -> str:
    """Return a line about characters without an entry, or ""; a warning if more are lost than by default."""
    if not lost.characters:
        return ""
    remedies = lost.options(config.max_alphabet)
    if not config.max_alphabet and lost.characters > lost.rare:
        remedies.insert(1, "a higher --vocab-size")
    begin = "warning: " if lost.share > 1 - COVERAGE else ""
    return f"{begin}{lost.sentence}, and words with them become [UNK]: to keep more, give {', or '.join(remedies)}"


def report_bytes(lost: LeftOut, removed: Removed) -> bytes:
    """Return the report of a worker, for the process that prints the warnings."""
    return json.dumps([asdict(lost), asdict(removed)]).encode()


def read_report(data: bytes) -> tuple[LeftOut, Removed]:
    """Return what `report_bytes` was given."""
    lost, removed = json.loads(data)
    return LeftOut(**lost), Removed(**removed)


def warnings(lost: LeftOut, removed: Removed, config: VocabConfig) -> list[str]:
    """Return a line for each kind of loss."""
    sentences = (f"warning: {line}" for line in (removed.unspaced_sentence, removed.marks_sentence) if line)
    return [*filter(None, [left_out_warning(lost, config)]), *sentences]
