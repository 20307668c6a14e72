"""Extend a vocabulary: append the pieces that save the most tokens in a corpus, and compare the tokens per word.

The counts of words are those of `vocab`. Rare words don't decide pieces, but are among the words of the comparison.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.text.left_out import Removed
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.vocab import word_counts
from clozemill.pipelines.vocab.piece_selection import PieceSelection
from clozemill.pipelines.vocab.training import VocabStage

_INPUT, _GENERAL = b"i", b"g"  # the first byte of packed counts: their corpus


@dataclass(frozen=True)
class TokenRate:
    """How many tokens the words of a corpus become with two vocabularies.

    Attributes:
        corpus: the option that names it. words: the number of words in it.
        before, after: tokens, with the old and with the extended vocabulary.
        unknown_before, unknown_after: those of them that are [UNK].
    """

    corpus: str
    words: int
    before: int
    after: int
    unknown_before: int
    unknown_after: int

    @property
    def line(self) -> str:
        """Return '--input: 1.201 tokens per word before, 1.153 after (4.0 % fewer)'; with the share of [UNK], if any."""
        rates = [tokens / self.words for tokens in (self.before, self.after)]
        shares = [f"{100 * unknown / self.words:.2f} %" for unknown in (self.unknown_before, self.unknown_after)]
        unknown = f"; unknown words {shares[0]} before, {shares[1]} after" if self.unknown_before else ""
        change = self.after / self.before - 1
        sign = "fewer" if change <= 0 else "more"
        return (
            f"{self.corpus}: {rates[0]:.3f} tokens per word before, {rates[1]:.3f} after ({100 * abs(change):.1f} % {sign})"
            + unknown
        )


def extended(old: Sequence[str], counts: list[tuple[str, int]], config: VocabConfig) -> list[str]:
    """Return the old tokens and `config.add` more.

    Args:
        old: the tokens of the vocabulary.
        counts: (word, count), each word once, in any order.

    Raises UserError if fewer pieces save a token.
    """
    add = config.add or 0
    pieces = list(islice(PieceSelection(old, counts), add))
    rarer = " a lower --min-count," if config.min_count > 1 else ""
    if not pieces:
        frequent = f"every word that occurs {config.min_count} times in --input" if rarer else "every word of --input"
        raise UserError(
            f"{config.extend} has {frequent} as a single token already: give{rarer or ' another --input,'} or more text"
        )
    if len(pieces) < add:
        raise UserError(
            f"--add {add:,} is more than the {len(pieces):,} pieces that save a token in --input: give --add {len(pieces)} or "
            f"less,{rarer} or more text"
        )
    return [*old, *pieces]


def token_rate(corpus: str, packed: Iterable[bytes], before: WordPiece, after: WordPiece) -> TokenRate:
    """Return the tokens of the words in packed counts. corpus: the option that names it. Raises UserError without words."""
    words, tokens, unknown = 0, [0, 0], [0, 0]
    for piece in packed:
        for word, count in word_counts.unpack(piece):
            if word.startswith("\0"):
                continue
            words += count
            for number, tokenizer in enumerate((before, after)):
                ids = tokenizer.pieces(word)
                tokens[number] += count * len(ids)
                unknown[number] += count * (ids == [tokenizer.vocabulary.unk_id])
    if not words:
        raise UserError(f"{corpus} has no words: check it")
    return TokenRate(corpus, words, *tokens, *unknown)


def extension_report(removed: Removed, rates: list[TokenRate]) -> bytes:
    """Return the report of a worker, for the process that prints it."""
    return json.dumps([asdict(removed), [asdict(rate) for rate in rates]]).encode()


def read_extension_report(data: bytes) -> tuple[Removed, list[TokenRate]]:
    """Return what `extension_report` was given."""
    removed, rates = json.loads(data)
    return Removed(**removed), [TokenRate(**rate) for rate in rates]


def removed_warnings(removed: Removed) -> list[str]:
    """Return a warning for each kind of lost text."""
    return [f"warning: {line}" for line in (removed.unspaced_sentence, removed.marks_sentence) if line]


@dataclass
class ExtensionStage(VocabStage):
    """Turns bucketed counts into an extended vocabulary. old: the contents of the vocabulary file to extend."""

    old: bytes = b""

    def prepare_counts(self, bucket: int, packed: bytes) -> tuple[int, bytes]:
        """Return the counts of one bucket of the input under the one key: rare words too, for the comparison."""
        return 0, _INPUT + packed

    def prepare_general(self, bucket: int, packed: bytes) -> tuple[int, bytes]:
        """Return the counts of one bucket of the general corpus."""
        return 0, _GENERAL + packed

    def run(self, key: int, packed: Iterable[bytes]) -> bytes:
        """Extend and write the vocabulary. Packed counts stay compressed: they contain every word of the corpus."""
        corpora: dict[bytes, list[bytes]] = {_INPUT: [], _GENERAL: []}
        for piece in packed:
            corpora[piece[:1]].append(piece[1:])
        counts, _, removed = self._unpacked(corpora[_INPUT])
        old = Vocabulary.from_bytes(self.old, self.config.extend)
        tokens = extended(old.tokens, counts, self.config)
        new = Vocabulary.from_tokens(tokens)
        before, after = (WordPiece(each, self.config.cased, self.config.rules) for each in (old, new))
        rates = [token_rate("--input", corpora[_INPUT], before, after)]
        if self.config.general:
            self._check_general(corpora[_GENERAL])
            rates.append(token_rate("--general", corpora[_GENERAL], before, after))
        self._tell(extension_report(removed, rates), [*removed_warnings(removed), *(rate.line for rate in rates)])
        self._write(tokens)
        return b"done"

    def report_lines(self, report: bytes) -> tuple[list[str], list[str]]:
        """Return the warnings and the tokens per word in the report of a worker, as lines."""
        removed, rates = read_extension_report(report)
        return removed_warnings(removed), [rate.line for rate in rates]

    def _check_general(self, packed: list[bytes]) -> None:
        """Raise UserError if too many records of the general corpus are malformed."""
        records: dict[str, int] = {}
        for piece in packed:
            for name, count in word_counts.unpack(piece):
                if name.startswith("\0"):
                    records[name] = records.get(name, 0) + count
        self._check(records)
