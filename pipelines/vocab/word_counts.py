"""Count the words of a split, and add counts."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator

from clozemill.pipelines.common.tokenizer_rules import MAX_WORD_CHARS
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.document import Document, Rejected
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.pretokenizer import Chunker

BUCKETS = 64  # of words, so that counts are sent in bulk instead of word by word

FED_WORDS = 20_000_000  # the trainer accepts no counts: words are repeated, scaled to about this many in total

MAX_WORDS = 1_000_000  # the trainer gets only the most frequent: a million take 1 GB and half a minute

_MAX_CHUNKS = 2_000_000  # distinct chunks that a worker counts before it emits them

_BATCH_CHARS = 1 << 22

# Counts of records, stored with the words in a bucket of their own, and a malformed one: no word contains a NUL.
READ, BAD, SAMPLE = "\0read", "\0bad", "\0sample "

REMOVED = {name: f"\0{name}" for name in ("characters", "unspaced", "marks")}  # of the text, see left_out.Removed


def pack(counts: dict[str, int]) -> bytes:
    """Pack counts into bytes; sorted, so that equal counts give equal bytes."""
    return zlib.compress(json.dumps(sorted(counts.items()), ensure_ascii=False).encode("utf-8", "surrogatepass"), 1)


def unpack(packed: bytes) -> list[tuple[str, int]]:
    """Return the (word, count) pairs of packed counts, sorted."""
    return [tuple(pair) for pair in json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))]


def add_packed(total: dict[str, int], packed: bytes) -> dict[str, int]:
    """Add packed counts to a dict in place."""
    for word, count in unpack(packed):
        total[word] = total.get(word, 0) + count
    return total


def count_split(split: InputSplit, config: VocabConfig) -> Iterator[tuple[int, bytes]]:
    """Yield (bucket, packed counts) of the words of one split, as the tokenizer will see them."""
    chunker = Chunker(config.cased, config.rules)
    chunks: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    batch: list[str] = []
    sample: dict[str, int] = {}
    size = read = bad = 0
    for record in formats.read(split, config):
        read += not (isinstance(record, Rejected) and record.reason == "empty_file")
        if isinstance(record, Rejected) and record.bad:
            bad += 1
            sample = sample or {f"{SAMPLE}{record.source}: {record.reason} {record.detail}".strip(): 1}
        if isinstance(record, Document):
            batch.append(clean(formats.plain_text(record, config)))
            size += len(batch[-1])
            if size >= _BATCH_CHARS:
                _count(batch, chunker, chunks)
                batch, size = [], 0
            if len(chunks) > _MAX_CHUNKS:
                yield from _bucketed(chunks, chunker, removed)
                chunks.clear()
    _count(batch, chunker, chunks)
    yield from _bucketed(chunks, chunker, removed)
    yield BUCKETS, pack({READ: read, BAD: bad, **sample, **removed})


def _bucketed(chunks: Counter, chunker: Chunker, removed: Counter) -> Iterator[tuple[int, bytes]]:
    """Yield (bucket, packed counts) of the words in chunks. Add the counts of removed text to `removed`."""
    buckets: list[dict[str, int]] = [{} for _ in range(BUCKETS)]
    total = marks = unspaced = 0  # local names for speed: updated for every distinct chunk
    for chunk, count in chunks.items():
        total += count * len(chunk)
        within = 0 if chunk.isascii() else chunker.marks(chunk)
        marks += count * within
        for word in chunker.normalise(chunk):
            if len(word) <= MAX_WORD_CHARS:
                bucket = buckets[zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS]
                bucket[word] = bucket.get(word, 0) + count
            else:
                unspaced += count * (len(word) + within)
                within = 0
    for name, size in (("characters", total), ("unspaced", unspaced), ("marks", marks)):
        removed[REMOVED[name]] += size
    for number, bucket in enumerate(buckets):
        yield number, pack(bucket)


def _count(batch: list[str], chunker: Chunker, chunks: Counter) -> None:
    found = chunker("\n".join(batch)).words.value_counts()
    for chunk, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
        chunks[chunk] += count
