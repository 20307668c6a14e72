"""A WordPiece vocabulary from a corpus: words counted by Beam over everything, pieces learnt by Hugging Face tokenizers.

The trainer's result depends on the order in which it meets symbols. So it is given the alphabet, `##` forms included,
as fixed first entries, and the words in one order (count, then code points): the same counts give the same file,
whatever the order of the input and the number of workers.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pipelines import filesystem, readers
from pipelines.chunks import Chunker, is_cjk
from pipelines.cleaning import clean
from pipelines.config import VocabConfig
from pipelines.schema import SPECIAL_TOKENS, Document, Dropped, Split, UserError
from pipelines.wordpiece import MAX_WORD_CHARS

BUCKETS = 64  # of words, so that counts travel in bulk instead of word by word
FED_WORDS = 20_000_000  # the trainer takes no counts: words are repeated, scaled down to about this many in all
MAX_WORDS = 1_000_000  # the trainer sees the most frequent alone: a million take 1 GB and half a minute
_MAX_CHUNKS = 2_000_000  # distinct chunks that a worker counts before it hands them on
_BATCH_CHARS = 1 << 22
# Records, counted beside the words in a bucket of their own, and one that is defective: no word holds a NUL.
_READ, _BAD, _SAMPLE = "\0read", "\0bad", "\0sample "


def pack(counts: dict[str, int]) -> bytes:
    """Counts as bytes; sorted, so that equal counts give equal bytes."""
    return zlib.compress(json.dumps(sorted(counts.items()), ensure_ascii=False).encode("utf-8", "surrogatepass"), 1)


def unpack(packed: bytes) -> list[tuple[str, int]]:
    """The (word, count) pairs of packed counts, sorted."""
    return [tuple(pair) for pair in json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))]


def add_packed(total: dict[str, int], packed: bytes) -> dict[str, int]:
    """Adds packed counts to a dict in place."""
    for word, count in unpack(packed):
        total[word] = total.get(word, 0) + count
    return total


def count_split(split: Split, config: VocabConfig) -> Iterator[tuple[int, bytes]]:
    """(bucket, packed counts) of the words of one split; words as the tokenizer will see them."""
    chunker, chunks = Chunker(config.cased), Counter()
    batch, size, read, bad, sample = [], 0, 0, 0, {}
    for record in readers.read(split, config):
        read += not (isinstance(record, Dropped) and record.reason == "empty_file")
        if isinstance(record, Dropped) and record.bad:
            bad += 1
            sample = sample or {f"{_SAMPLE}{record.source}: {record.reason} {record.detail}".strip(): 1}
        if isinstance(record, Document):
            batch.append(clean(readers.plain_text(record, config)))
            size += len(batch[-1])
            if size >= _BATCH_CHARS:
                _count(batch, chunker, chunks)
                batch, size = [], 0
            if len(chunks) > _MAX_CHUNKS:
                yield from _bucketed(chunks, chunker)
                chunks.clear()
    _count(batch, chunker, chunks)
    yield from _bucketed(chunks, chunker)
    yield BUCKETS, pack({_READ: read, _BAD: bad, **sample})


def _bucketed(chunks: Counter, chunker: Chunker) -> Iterator[tuple[int, bytes]]:
    """(bucket, packed counts) of the words that chunks become."""
    buckets: list[dict[str, int]] = [{} for _ in range(BUCKETS)]
    for chunk, count in chunks.items():
        for word in chunker.normalise(chunk):
            if len(word) <= MAX_WORD_CHARS:
                bucket = buckets[zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS]
                bucket[word] = bucket.get(word, 0) + count
    for number, bucket in enumerate(buckets):
        yield number, pack(bucket)


def _count(batch: list[str], chunker: Chunker, chunks: Counter) -> None:
    found = chunker("\n".join(batch)).words.value_counts()
    for chunk, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
        chunks[chunk] += count


def alphabet(counts: list[tuple[str, int]], limit: int) -> list[str]:
    """Entries for single characters: each of the `limit` most frequent, and its `##` form where it continues a word.

    ASCII letters and digits in use are always among them, first.
    """
    starts, inside = Counter(), Counter()
    for word, count in counts:
        starts[word[0]] += count
        for char in word[1:]:
            inside[char] += count
    total = starts + inside
    by_count = sorted(total, key=lambda char: (not (char.isascii() and char.isalnum()), -total[char], char))
    kept = sorted(by_count[:limit])
    return kept + ["##" + char for char in kept if not is_cjk(ord(char)) and (char.isalnum() or char in inside)]


def learn(counts: list[tuple[str, int]], vocab_size: int, max_alphabet: int, fewer: bool = False) -> list[str]:
    """Exactly `vocab_size` tokens: the special ones, the alphabet, then pieces as the trainer learnt them.

    Args:
        counts: (word, count), each word once, in any order. fewer: that many pieces need not be found.
    Raises UserError when the size is too small for the alphabet, or the words don't yield that many pieces.
    """
    counts = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    fixed = [*SPECIAL_TOKENS, *alphabet(counts, max_alphabet)]
    if len(fixed) > vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size} has no room for the {len(fixed)} special tokens and single characters of "
            "this corpus: raise it or lower --max-alphabet"
        )
    known = {token.removeprefix("##") for token in fixed[len(SPECIAL_TOKENS) :]}
    total = sum(count for _, count in counts)
    scale = max(1.0, total / FED_WORDS)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=1, special_tokens=fixed, limit_alphabet=len(known), show_progress=False
    )
    counts = counts[:MAX_WORDS]
    words = (((word + " ") * max(1, round(count / scale))) for word, count in counts if known.issuperset(word))
    tokenizer.train_from_iterator(words, trainer)
    ids = tokenizer.get_vocab()
    tokens = fixed + sorted(ids.keys() - set(fixed), key=lambda token: ids[token])
    if len(tokens) < vocab_size and not fewer:
        raise UserError(
            f"this corpus yields {len(tokens):,} tokens, fewer than --vocab-size {vocab_size:,}: give "
            f"--vocab-size {len(tokens)} or less, a lower --min-count, or more text"
        )
    return tokens[:vocab_size]


def learn_here(splits: list[Split], config: VocabConfig) -> bytes:
    """A vocabulary's bytes from a few splits, in this process; smaller where they don't yield as many tokens.

    Raises UserError when there is no word, or the size is too small for the alphabet.
    """
    counts: dict[str, int] = {}
    for split in splits:
        for bucket, packed in count_split(split, config):
            if bucket != BUCKETS:
                add_packed(counts, packed)
    kept = [pair for pair in counts.items() if pair[1] >= config.min_count]
    if not kept:
        raise UserError(f"no word occurs {config.min_count} times in the input: check --input")
    return ("\n".join(learn(kept, config.vocab_size, config.max_alphabet, fewer=True)) + "\n").encode()


@dataclass
class VocabStage:
    """Bucketed counts to vocab.txt."""

    config: VocabConfig

    def drop_rare(self, bucket: int, packed: bytes) -> tuple[int, bytes]:
        """The counts of one bucket without words under the floor, all under one key."""
        if bucket == BUCKETS:
            return 0, packed
        return 0, pack({word: count for word, count in unpack(packed) if count >= self.config.min_count})

    def run(self, key: int, packed: Iterable[bytes]) -> bytes:
        """Learns and writes the vocabulary."""
        counts = [pair for piece in packed for pair in unpack(piece)]
        records = dict(pair for pair in counts if pair[0].startswith("\0"))
        sample = min((name for name in records if name.startswith(_SAMPLE)), default="").removeprefix(_SAMPLE)
        if records.get(_BAD, 0) > self.config.max_reject_rate * records.get(_READ, 0):
            raise UserError(
                f"{records[_BAD]:,} of {records[_READ]:,} records are defective, more than --max-reject-rate "
                f"{self.config.max_reject_rate:g} allows, e.g. {sample}: mend them, or raise it"
            )
        counts = [pair for pair in counts if not pair[0].startswith("\0")]
        if not counts:
            raise UserError(f"no word occurs {self.config.min_count} times in the input: check --input, or lower --min-count")
        tokens = learn(counts, self.config.vocab_size, self.config.max_alphabet)
        filesystem.write_bytes(self.config.output, ("\n".join(tokens) + "\n").encode())
        return b"done"
