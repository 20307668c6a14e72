"""WordPiece, identical to google-research/bert's tokenizer, on batches, at the speed of array operations.

Text repeats its words. So a batch is cut into *chunks* (maximal runs of word characters, and each punctuation mark or CJK
character by itself) with array operations, and pyarrow finds the distinct chunks. Each new chunk is tokenized once in plain
Python, and the ids of the batch are gathered from that cache.

The result equals that of google-research/bert's FullTokenizer for all text. One deliberate difference is in cleaning.py: line
breaks of any kind and control characters are removed before sentences are split.

    >>> WordPiece(Vocabulary.from_tokens([...])).encode(["A sentence.", "Another one."])
"""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from clozemill.pipelines.text.pretokenizer import Chunker, Chunks
from clozemill.pipelines.text.vocabulary import Vocabulary

CACHE_CHUNKS = 1_000_000  # when exceeded, the cache is cleared, so that memory stays bounded for any corpus


def _no_numbers() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class UnknownChunks:
    """Chunks of which a part became [UNK], and where they occur.

    chunks: the distinct ones, cut at 100 characters. unspaced: int64 [chunks], the number of characters that each has in words
    above the maximum length. which, first: int64 [occurrences], a place in `chunks`, and the first piece of the occurrence.
    """

    chunks: list[str] = field(default_factory=list)
    unspaced: np.ndarray = field(default_factory=_no_numbers)
    which: np.ndarray = field(default_factory=_no_numbers)
    first: np.ndarray = field(default_factory=_no_numbers)

    def count(self, kept: np.ndarray) -> tuple[dict[str, int], int]:
        """Return how often each chunk occurs among the kept pieces, and the characters of these in words that are too long.

        kept: bool [pieces].
        """
        times = np.bincount(self.which[kept[self.first]], minlength=len(self.chunks))
        found: dict[str, int] = {}
        for chunk, count in zip(self.chunks, times.tolist(), strict=True):
            if count:  # long chunks may begin alike
                found[chunk] = found.get(chunk, 0) + count
        return found, int(times @ self.unspaced)


@dataclass(frozen=True)
class Encoded:
    """The pieces of a batch of sentences: `ids` (int32 [pieces]), `lengths` (int64 [sentences]) in pieces.

    `starts`, `ends` (int64 [pieces], on request): the span, in characters of the sentence, of the piece's word or of the piece.
    `unknown`: chunks of which a part became [UNK].
    """

    ids: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray | None = None
    ends: np.ndarray | None = None
    unknown: UnknownChunks = field(default_factory=UnknownChunks)

    def split(self, column: np.ndarray | None) -> list[np.ndarray]:
        """Return `ids`, `starts` or `ends` divided by sentence. Raises ValueError for offsets that weren't requested."""
        if column is None:
            raise ValueError("offsets weren't requested")
        return np.split(column, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


def joined(arrays: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    """Return the arrays of a batch's texts, of which there may be none, one after another: the inverse of Encoded.split."""
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


class _Cache(dict):
    """Maps chunks to rows; the pieces of a row are contiguous in a pool. A new chunk is tokenized once."""

    def __init__(self, tokenize: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._tokenize = tokenize
        self._pool, self._first, self._count = array("i"), array("q"), array("i")

    def __missing__(self, chunk: str) -> int:
        row = self[chunk] = len(self._first)
        pieces = self._tokenize(chunk)
        self._first.append(len(self._pool))
        self._count.append(len(pieces))
        self._pool.extend(pieces)
        return row

    def rows(self, chunks: list[str]) -> np.ndarray:
        """int64 [chunks]"""
        return np.fromiter(map(self.__getitem__, chunks), np.int64, len(chunks))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return (first piece of each row, number of its pieces, all pieces), as copies, because the cache keeps growing."""
        return np.array(self._first), np.array(self._count), np.array(self._pool, np.int32)


def _gathered(pool: np.ndarray, first: np.ndarray, count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Concatenate the values of chunks: for chunk n, count[n] values of `pool`, starting at first[n].

    total: int64 [chunks + 1], the cumulative sums of `count`. Example: counts 2 and 1, first 5 and 9: the values at 5, 6 and 9.
    """
    return pool[np.repeat(first - total[:-1], count) + np.arange(total[-1])]


def _encodable(sentence: str) -> str:
    """Return a sentence without lone surrogates, which UTF-8 can't encode."""
    return sentence if sentence.isascii() else sentence.encode("utf-8", "ignore").decode()


class WordPiece:
    """The tokenizer: sentences in, ids out. Not thread-safe (it fills a cache); one per worker thread."""

    def __init__(self, vocabulary: Vocabulary, cased: bool = False, rules: TextRules = REFERENCE) -> None:
        self.vocabulary, self._max_word = vocabulary, rules.max_word_chars
        self._chunker = Chunker(cased, rules)
        self._max_piece = max(len(token) for token in vocabulary.tokens)
        self._continuations = {token[2:]: index for token, index in vocabulary.ids.items() if token.startswith("##")}
        self._cache, self._places_cache = _Cache(self._tokenize), _Cache(self._places)

    def encode(self, sentences: list[str], offsets: bool = False, by_piece: bool = False) -> Encoded:
        """Tokenize sentences (without line breaks). See Encoded for the result, `encode_text` for the arguments."""
        sentences = [_encodable(sentence) for sentence in sentences]
        text = "\n".join(sentences)
        if text.count("\n") > max(len(sentences) - 1, 0):
            raise ValueError("a sentence holds a line break")
        starts = np.cumsum([0] + [len(sentence) + 1 for sentence in sentences])[:-1]
        found = self.encode_text(text, starts, offsets, by_piece)
        if not offsets:
            return found
        base = np.repeat(starts, found.lengths)
        return Encoded(found.ids, found.lengths, found.starts - base, found.ends - base)

    def encode_text(self, text: str, starts: np.ndarray, offsets: bool = False, by_piece: bool = False) -> Encoded:
        """Tokenize a text without lone surrogates in one pass, and assign the pieces to its sentences.

        Args:
            starts: int64 [sentences], ascending: the start of each sentence, in characters. Only white space may precede the
                first sentence or separate two.
            offsets: also return `starts` and `ends`, in characters of the text.
            by_piece: return the offsets of each piece instead of those of its word. [UNK] always covers the complete word.
        """
        chunks = self._chunker(text)
        distinct = chunks.words.dictionary_encode()
        rows = self._cache.rows(distinct.dictionary.to_pylist())[distinct.indices.to_numpy()]
        first, count, pool = self._cache.arrays()
        count = count[rows]
        total = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(count, out=total[1:])
        ids = _gathered(pool, first[rows], count, total)
        edges = np.append(chunks.bytes(starts), len(chunks.data) + 1)
        lengths = np.diff(total[np.searchsorted(chunks.starts, edges)])
        begin = end = None
        if offsets and by_piece:
            begin, end = self._piece_offsets(chunks, distinct, count, total)
        elif offsets:
            begin = np.repeat(chunks.characters(chunks.starts), count)
            end = np.repeat(chunks.characters(chunks.ends), count)
        unknown = self._unknown(distinct, ids, total)
        if len(self._cache) > CACHE_CHUNKS:
            self._cache, self._places_cache = _Cache(self._tokenize), _Cache(self._places)
        return Encoded(ids, lengths, begin, end, unknown)

    def _piece_offsets(self, chunks: Chunks, distinct: pa.DictionaryArray, count: np.ndarray, total: np.ndarray) -> tuple:
        """Return the start and end of each piece, int64 [pieces] each; chunk n has the pieces total[n] to total[n + 1]."""
        rows = self._places_cache.rows(distinct.dictionary.to_pylist())[distinct.indices.to_numpy()]
        first, _, pool = self._places_cache.arrays()
        within = _gathered(pool.reshape(-1, 2), first[rows] // 2, count, total)
        begins = np.repeat(chunks.characters(chunks.starts), count)
        return begins + within[:, 0], begins + within[:, 1]

    def _unknown(self, chunks: pa.DictionaryArray, ids: np.ndarray, total: np.ndarray) -> UnknownChunks:
        """Return `unknown` of Encoded; chunk n has the pieces total[n] to total[n + 1]."""
        if not len(at := np.flatnonzero(ids == self.vocabulary.unk_id)):
            return UnknownChunks()
        lost = np.unique(np.searchsorted(total, at, side="right") - 1)
        rows, which = np.unique(chunks.indices.to_numpy()[lost], return_inverse=True)
        found = chunks.dictionary.take(pa.array(rows)).to_pylist()
        unspaced = np.fromiter(map(self._unspaced, found), np.int64, len(found))
        return UnknownChunks([chunk[:100] for chunk in found], unspaced, which, total[lost])

    def _unspaced(self, chunk: str) -> int:
        """Return the number of characters of a chunk in words above the maximum length."""
        if len(chunk) <= self._max_word:
            return 0
        return sum(len(word) for word in self._chunker.normalise(chunk) if len(word) > self._max_word)

    def _tokenize(self, chunk: str) -> list[int]:
        return [piece for word in self._chunker.normalise(chunk) for piece in self.pieces(word)]

    def _places(self, chunk: str) -> list[int]:
        """Return where each piece of a chunk starts and ends in it: start, end, start, end, ..."""
        found: list[int] = []
        for word, begins, ends in self._chunker.normalise_with_places(chunk):
            pieces = self.pieces(word)
            sizes = [len(self.vocabulary.tokens[piece]) - 2 * (number > 0) for number, piece in enumerate(pieces)]
            if pieces == [self.vocabulary.unk_id]:
                sizes = [len(word)]
            at = 0
            for size in sizes:
                found += [min(begins[at : at + size]), max(ends[at : at + size])]
                at += size
        return found

    def pieces(self, word: str, inside: bool = False) -> list[int]:
        """Match one basic token greedily, as the reference does: [UNK] if a part of it matches no piece.

        inside: whether it is the end of a word, of which a part comes before.
        """
        ids, unknown = self._continuations if inside else self.vocabulary.ids, [self.vocabulary.unk_id]
        if (whole := ids.get(word)) is not None and len(word) <= self._max_word:
            return [whole]
        if len(word) > self._max_word:
            return unknown
        found, start, table = [], 0, ids
        while start < len(word):
            for end in range(min(len(word), start + self._max_piece), start, -1):
                if (piece := table.get(word[start:end])) is not None:
                    break
            else:
                return unknown
            found.append(piece)
            start, table = end, self._continuations
        return found
