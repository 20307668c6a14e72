"""Learn a WordPiece vocabulary: Beam counts the words of the complete corpus, Hugging Face tokenizers learns the pieces.

The result of the trainer depends on the order of its symbols. So the alphabet, including `##` forms, is given as fixed first
entries, and the words in one order (count, then code points). Identical counts give an identical file, whatever the order of
the input and the number of workers.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from clozemill.pipelines.command_line.options import to_yaml
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import MAX_WORD_CHARS
from clozemill.pipelines.common.unicode_rules import category, is_cjk
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.left_out import COVERAGE, Removed, left_out, occurrences, read_report, report_bytes, warnings
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS
from clozemill.pipelines.vocab import word_counts

_RARE = "\0rare "  # and a character: its occurrences in words rarer than --min-count
# By default the alphabet has LEAST_ALPHABET characters, and more until they cover COVERAGE of all occurrences (the default
# of SentencePiece's trainer), as long as _PIECES_SHARE of the vocabulary is left for pieces of several characters, if there
# are any. An unknown character turns its word into [UNK]; a missing piece only makes a text longer.
LEAST_ALPHABET, _PIECES_SHARE = 1000, 1 / 8


def alphabet(counts: list[tuple[str, int]], limit: int, room: int = 0, coverage: float = COVERAGE) -> list[str]:
    """Return entries for the most frequent single characters, with `##` forms for those that continue a word.

    ASCII letters and digits in the corpus are always included, first.

    Args:
        limit: number of characters; 0: LEAST_ALPHABET, and more until they cover `coverage` of all occurrences or have
            `room` entries.
    """
    total, inside = occurrences(counts)

    def continues(char: str) -> bool:
        return char in inside or (char.isalnum() and category(char) != "Cn" and not is_cjk(ord(char)))

    by_count = sorted(total, key=lambda char: (not (char.isascii() and char.isalnum()), -total[char], char))
    if not limit:
        limit, missing = LEAST_ALPHABET, (1 - coverage) * sum(total.values())
        entries = sum(1 + continues(char) for char in by_count[:limit])
        left = sum(total[char] for char in by_count[limit:])
        for char in by_count[limit:]:
            entries += 1 + continues(char)
            if left <= missing or entries > room:
                break
            limit, left = limit + 1, left - total[char]
    kept = sorted(by_count[:limit])
    return kept + ["##" + char for char in kept if continues(char)]


def learn(
    counts: list[tuple[str, int]],
    vocab_size: int,
    max_alphabet: int,
    rare: dict[str, int] | None = None,
    unspaced: str = "",
    fewer: bool = False,
) -> list[str]:
    """Return exactly `vocab_size` tokens: the special tokens, the alphabet, then the pieces that the trainer learned.

    Args:
        counts: (word, count), each word once, in any order.
        max_alphabet: number of characters with their own entries; 0: see `alphabet`.
        rare: character -> occurrences in words that are too rare for `counts`, for the message only.
        unspaced: the sentence about words that are too long, for the message only.
        fewer: allow fewer pieces.

    Raises:
        UserError: the size is too small for the alphabet, or the words don't yield that many pieces.
    """
    counts = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    room = vocab_size - len(SPECIAL_TOKENS)
    singles = alphabet(counts, max_alphabet, int((1 - _PIECES_SHARE) * room))
    if len(singles) > room:
        raise UserError(
            f"--vocab-size {vocab_size} is too small for the {len(singles) + len(SPECIAL_TOKENS)} special tokens and single "
            "characters of this corpus: raise it, or lower --max-alphabet"
        )
    tokens = _train(counts, vocab_size, singles)
    if len(tokens) < vocab_size and not max_alphabet:
        # Entries without a piece go to more characters. One more than fits: the last one may need two.
        more = alphabet(counts, 0, min(room, len(singles) + vocab_size - len(tokens) + 1), 1.0)
        tokens = _train(counts, vocab_size, more) if len(more) > len(singles) else tokens
    if len(tokens) < vocab_size and not fewer:
        if unspaced:
            raise UserError(
                f"this corpus yields {len(tokens):,} tokens, fewer than --vocab-size {vocab_size:,}, because {unspaced}"
            )
        lost = left_out(counts, rare or {}, tokens)
        remedies = [f"--vocab-size {len(tokens)} or less", *lost.options(max_alphabet)]
        remedies += ["a lower --min-count"] if rare and not lost.rare else []
        why = f", and {lost.sentence}" if lost.characters else ""
        raise UserError(
            f"this corpus yields {len(tokens):,} tokens, fewer than --vocab-size {vocab_size:,}{why}: give "
            f"{', '.join(remedies)}, or more text"
        )
    return tokens[:vocab_size]


def _train(counts: list[tuple[str, int]], vocab_size: int, singles: list[str]) -> list[str]:
    """Return the special tokens, the single characters, and the pieces that the trainer learns from sorted counts."""
    fixed = [*SPECIAL_TOKENS, *singles]
    known = {token.removeprefix("##") for token in singles}
    total = sum(count for _, count in counts)
    scale = max(1.0, total / word_counts.FED_WORDS)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=1, special_tokens=fixed, limit_alphabet=len(known), show_progress=False
    )
    counts = counts[: word_counts.MAX_WORDS]
    words = (((word + " ") * max(1, round(count / scale))) for word, count in counts if known.issuperset(word))
    tokenizer.train_from_iterator(words, trainer)
    ids = tokenizer.get_vocab()
    return fixed + sorted(ids.keys() - set(fixed), key=lambda token: ids[token])


def learn_here(splits: list[InputSplit], config: VocabConfig) -> bytes:
    """Learn a vocabulary from a few splits in this process, and return its bytes; smaller if they yield fewer tokens.

    Raises UserError if there is no word, or if the size is too small for the alphabet.
    """
    counts: dict[str, int] = {}
    for split in splits:
        for bucket, packed in word_counts.count_split(split, config):
            if bucket != word_counts.BUCKETS:
                word_counts.add_packed(counts, packed)
    kept = [pair for pair in counts.items() if pair[1] >= config.min_count]
    if not kept:
        raise UserError(f"no word occurs {config.min_count} times in the input: check --input")
    return ("\n".join(learn(kept, config.size, config.max_alphabet, fewer=True)) + "\n").encode()


@dataclass
class VocabStage:
    """Turns bucketed counts into vocab.txt. `report`: a JSON file for the warnings; "": print them here."""

    config: VocabConfig
    report: str = ""

    def prepare_counts(self, bucket: int, packed: bytes) -> tuple[int, bytes]:
        """Return the counts of one bucket without rare words, but with their characters; all under one key."""
        if bucket == word_counts.BUCKETS:
            return 0, packed
        kept: dict[str, int] = {}
        for word, count in word_counts.unpack(packed):
            if count >= self.config.min_count:
                kept[word] = count
                continue
            for char in word:
                kept[_RARE + char] = kept.get(_RARE + char, 0) + count
        return 0, word_counts.pack(kept)

    def run(self, key: int, packed: Iterable[bytes]) -> bytes:
        """Learn and write the vocabulary."""
        counts, records, removed = self._unpacked(packed)
        rare = {name.removeprefix(_RARE): count for name, count in records.items() if name.startswith(_RARE)}
        tokens = learn(counts, self.config.size, self.config.max_alphabet, rare, removed.why_few)
        lost = left_out(counts, rare, tokens)
        self._tell(report_bytes(lost, removed), warnings(lost, removed, self.config))
        self._write(tokens)
        return b"done"

    def _unpacked(self, packed: Iterable[bytes]) -> tuple[list[tuple[str, int]], dict[str, int], Removed]:
        """Return the counts of words that aren't rare, what else was counted, by name, and the counts of removed text.

        Raises UserError if too many records are malformed, or if there is no word.
        """
        counts: list[tuple[str, int]] = []
        records: dict[str, int] = {}
        for piece in packed:
            for name, count in word_counts.unpack(piece):
                if name.startswith("\0"):
                    records[name] = records.get(name, 0) + count
                elif count >= self.config.min_count:
                    counts.append((name, count))
        self._check(records)
        removed = Removed(**{field: records.get(name, 0) for field, name in word_counts.REMOVED.items()})
        if not counts:
            why = f", because {removed.why_few}" if removed.why_few else ": check --input, or lower --min-count"
            raise UserError(f"no word occurs {self.config.min_count} times in the input{why}")
        return counts, records, removed

    def report_lines(self, report: bytes) -> tuple[list[str], list[str]]:
        """Return the warnings and the results in the report of a worker, as lines."""
        return warnings(*read_report(report), self.config), []

    def _tell(self, report: bytes, lines: list[str]) -> None:
        """Write the report for the process that prints it; without one, print its lines here."""
        if self.report:
            filesystem.write_bytes(self.report, report)
            return
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def _write(self, tokens: list[str]) -> None:
        """Write the vocabulary, which refuses the next run, last; in place of another one, its configuration afterwards."""
        output, described = self.config.output, self.config.output + ".yaml"
        if filesystem.exists(output):
            filesystem.remove(described)  # a kill must not leave a vocabulary with the configuration of another one
        else:
            filesystem.write_bytes(described, to_yaml(self.config).encode())
        filesystem.write_bytes(output, ("\n".join(tokens) + "\n").encode())

    def _check(self, records: dict[str, int]) -> None:
        """Raise UserError if too many records are malformed."""
        sample = min((name for name in records if name.startswith(word_counts.SAMPLE)), default="").removeprefix(
            word_counts.SAMPLE
        )
        if records.get(word_counts.BAD, 0) > self.config.max_reject_rate * records.get(word_counts.READ, 0):
            raise UserError(
                f"{records[word_counts.BAD]:,} of {records[word_counts.READ]:,} records are malformed, more than "
                f"--max-reject-rate {self.config.max_reject_rate:g} allows, e.g. {sample}: correct them, or raise it"
            )
