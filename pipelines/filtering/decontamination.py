"""Evaluation sets kept out of the corpus: documents that share an n-gram of words with one are dropped, and told why.

As in GPT-3's report (Brown et al. 2020, arXiv:2005.14165), 13 words in a row by default. Words are what the tokenizer makes of
both texts, so that case, accents and punctuation don't matter. Shorter texts can't be told from chance; they are counted.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.filtering.word_ngrams import Words, ngrams
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.wordpiece import WordPiece

NAME = "evaluation-ngrams.bin"  # where the workers find them
_SIEVE_BITS = 24


def _json_texts(value: object) -> Iterator[str]:
    """Every string in a JSON value but the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _json_texts(part)


def _json_lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {getattr(error, 'msg', 'too deep')}") from None
            yield from ((number, each) for each in _json_texts(value))


def _cells(text: str, **dialect: object) -> Iterator[tuple[int, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    for row in reader:
        yield from ((reader.line_num, cell) for cell in row)


# ending -> the texts of a file, each with the line it ends in
FORMATS = {
    ".csv": _cells,
    ".tsv": lambda text: _cells(text, delimiter="\t", quoting=csv.QUOTE_NONE),  # as GLUE's files are
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": lambda text: ((1, each) for each in _json_texts(json.loads(text))),
    ".txt": lambda text: enumerate(text.split("\n"), 1),
    ".text": lambda text: enumerate(text.split("\n"), 1),
}


def texts(path: str, size: int) -> Iterator[tuple[int, str]]:
    """(line, text) of every text of an evaluation file. Raises UserError when it can't be read as what its name says."""
    compression, stem = readers_compression.compression_of(path)
    ending = next((known for known in FORMATS if stem.lower().endswith(known)), "")
    if not ending:
        raise UserError(f"{path}: --decontaminate knows {', '.join(FORMATS)}: give the file one of these endings")
    data = b"".join(piece for piece, _ in readers_compression.pieces(InputSplit(path, "", compression, 0, size, size)))
    limit = csv.field_size_limit(1 << 30)
    try:
        yield from FORMATS[ending](data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv -t utf-8") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise UserError(
            f"{path} can't be read as {ending[1:]} ({error}): mend the file, or give it the ending it should have"
        ) from None
    finally:
        csv.field_size_limit(limit)


@dataclass(frozen=True)
class BlockedNgrams:
    """What must not be in the corpus: hashes of n-grams, uint64 [n] sorted, and for each the place it is from, int64 [n].

    places: file and line, of as many texts as gave n-grams. size: words per n-gram. short: lines with no text long enough.
    """

    hashes: np.ndarray
    origin: np.ndarray
    places: list[str]
    size: int
    short: int

    @cached_property
    def _sieve(self) -> np.ndarray:
        """bool [2**24]: whether any hash begins with these bits; passes by what is nowhere, in one look-up."""
        table = np.zeros(1 << _SIEVE_BITS, bool)
        table[self.hashes >> np.uint64(64 - _SIEVE_BITS)] = True
        return table

    def find(self, ids: np.ndarray, words_in: Words) -> tuple[str, str] | None:
        """(the first shared n-gram in words, the place of its evaluation text) of a document of wordpiece ids, or None."""
        words, begins = words_in(ids)
        grams = ngrams(words, self.size)
        for at in np.flatnonzero(self._sieve[grams >> np.uint64(64 - _SIEVE_BITS)]).tolist():
            row = int(np.searchsorted(self.hashes, grams[at]))
            if row < len(self.hashes) and self.hashes[row] == grams[at]:
                end = begins[at + self.size] if at + self.size < len(begins) else len(ids)
                return words_in.text(ids[begins[at] : end]), self.places[self.origin[row]]
        return None

    @property
    def digest(self) -> str:
        """SHA-256 of what is kept out, wherever it was read from."""
        return hashlib.sha256(self.hashes.astype("<u8").tobytes() + self.size.to_bytes(8, "little")).hexdigest()

    def dump(self) -> bytes:
        """The bytes that `load` reads; the same for the same evaluation texts."""
        file = io.BytesIO()
        about = json.dumps({"places": self.places, "size": self.size, "short": self.short}).encode()
        for part in (np.frombuffer(about, np.uint8), self.hashes, self.origin):
            np.save(file, part, allow_pickle=False)
        return file.getvalue()


def load(data: bytes) -> BlockedNgrams:
    """What `dump` wrote."""
    file = io.BytesIO(data)
    about, hashes, origin = (np.load(file, allow_pickle=False) for _ in range(3))
    return BlockedNgrams(hashes, origin, **json.loads(about.tobytes()))


def gather(patterns: Iterable[str], tokenizer: WordPiece, size: int) -> BlockedNgrams:
    """The n-grams of evaluation files. Raises UserError for one that can't be read."""
    words, parts, origin, places, short = Words(tokenizer.vocabulary), [np.zeros(0, np.uint64)], [], [], 0
    for info in filesystem.match(patterns):
        lines: dict[int, bool] = {}  # whether a line gave an n-gram
        for line, text in texts(info.path, info.size):
            if not text.strip():
                continue
            found, _ = words(tokenizer.encode([" ".join(text.split())]).ids)
            grams = np.unique(words.ngrams(found, size))
            lines[line] = lines.get(line, False) or len(grams) > 0
            if len(grams):
                parts.append(grams)
                origin.append(np.full(len(grams), len(places)))
                places.append(f"{info.path}, line {line}")
        short += len(lines) - sum(lines.values())
    hashes, first = np.unique(np.concatenate(parts), return_index=True)
    return BlockedNgrams(hashes, np.concatenate(origin or [first])[first].astype(np.int64), places, size, short)
