"""Remove documents that share a word n-gram with an evaluation set.

As in GPT-3's report (Brown et al. 2020, arXiv:2005.14165), n-grams have 13 words by default. Words come from the tokenizer, so
that case, accents and punctuation don't matter. Shorter texts may match by chance; they are counted and ignored.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.filtering.word_ngrams import Words, ngrams
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.wordpiece import WordPiece

NAME = "evaluation-ngrams.bin"  # file from which the workers load them
_SIEVE_BITS = 24


def _json_texts(value: object) -> Iterator[str]:
    """Yield every string in a JSON value of `_json_value`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _json_texts(part)


def _json_value(text: str) -> Any:
    """Return a JSON value with a list of values for each object: also those of a field that occurs twice. Raises ValueError."""
    return json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])


def _json_lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = _json_value(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {getattr(error, 'msg', 'too deep')}") from None
            yield from ((number, each) for each in _json_texts(value))


def _cells(text: str, **dialect: Any) -> Iterator[tuple[int, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    for row in reader:
        yield from ((reader.line_num, cell) for cell in row)


# suffix -> function that yields the texts of a file, each with the number of its last line (.json: its own number)
FORMATS = {
    ".csv": _cells,
    ".tsv": lambda text: _cells(text, delimiter="\t", quoting=csv.QUOTE_NONE),  # as in GLUE
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": lambda text: enumerate(_json_texts(_json_value(text)), 1),
    ".txt": lambda text: enumerate(text.split("\n"), 1),
    ".text": lambda text: enumerate(text.split("\n"), 1),
}


def texts(path: str, size: int) -> Iterator[tuple[str, str]]:
    """Yield (place, text) for every text of an evaluation file; a place is "line 3", or "text 3" of a JSON document.

    Raise UserError if it doesn't have the format of its name.
    """
    compression, stem = decompression.compression_of(path)
    ending = next((known for known in FORMATS if stem.lower().endswith(known)), "")
    if not ending:
        raise UserError(f"{path}: unknown suffix for --decontaminate: rename the file to one of {', '.join(FORMATS)}")
    data = b"".join(piece for piece, _ in readers_compression.pieces(InputSplit(path, "", compression, 0, size, size)))
    limit = csv.field_size_limit(1 << 30)
    try:
        unit = "text" if ending == ".json" else "line"
        yield from ((f"{unit} {number}", text) for number, text in FORMATS[ending](data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv -t utf-8") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"{path} can't be read as {ending[1:]} ({error}): correct the file, or its suffix") from None
    finally:
        csv.field_size_limit(limit)


@dataclass(frozen=True)
class BlockedNgrams:
    """N-grams to remove from the corpus: hashes, uint64 [n] sorted, and the index of each one's source, int64 [n].

    places: where the texts with n-grams are. size: words per n-gram. short: number of places without a long enough text.
    """

    hashes: np.ndarray
    origin: np.ndarray
    places: list[str]
    size: int
    short: int

    @cached_property
    def _sieve(self) -> np.ndarray:
        """bool [2**24]: whether any hash starts with these bits; rejects most n-grams with one look-up."""
        table = np.zeros(1 << _SIEVE_BITS, bool)
        table[self.hashes >> np.uint64(64 - _SIEVE_BITS)] = True
        return table

    def find(self, ids: np.ndarray, words_in: Words) -> tuple[str, str] | None:
        """Return (the first shared n-gram in words, the location of its evaluation text) for wordpiece ids, or None."""
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
        """SHA-256 of the n-grams, independent of their files."""
        return hashlib.sha256(self.hashes.astype("<u8").tobytes() + self.size.to_bytes(8, "little")).hexdigest()

    def dump(self) -> bytes:
        """Return bytes for `load`; identical for identical evaluation texts."""
        file = io.BytesIO()
        about = json.dumps({"places": self.places, "size": self.size, "short": self.short}).encode()
        for part in (np.frombuffer(about, np.uint8), self.hashes, self.origin):
            np.save(file, part, allow_pickle=False)
        return file.getvalue()


def load(data: bytes) -> BlockedNgrams:
    """Return what `dump` wrote."""
    file = io.BytesIO(data)
    about, hashes, origin = (np.load(file, allow_pickle=False) for _ in range(3))
    return BlockedNgrams(hashes, origin, **json.loads(about.tobytes()))


def gather(patterns: Iterable[str], tokenizer: WordPiece, size: int) -> BlockedNgrams:
    """Collect the n-grams of evaluation files. Raise UserError if one can't be read."""
    words, parts, short = Words(tokenizer.vocabulary), [np.zeros(0, np.uint64)], 0
    origin: list[np.ndarray] = []
    places: list[str] = []
    for info in filesystem.match(patterns):
        found_in: dict[str, bool] = {}  # whether a place has an n-gram
        for place, text in texts(info.path, info.size):
            if not text.strip():
                continue
            found, _ = words(tokenizer.encode([" ".join(clean(text).split())]).ids)
            grams = np.unique(words.ngrams(found, size))
            found_in[place] = found_in.get(place, False) or len(grams) > 0
            if len(grams):
                parts.append(grams)
                origin.append(np.full(len(grams), len(places)))
                places.append(f"{info.path}, {place}")
        short += len(found_in) - sum(found_in.values())
    hashes, first = np.unique(np.concatenate(parts), return_index=True)
    return BlockedNgrams(hashes, np.concatenate(origin or [first])[first].astype(np.int64), places, size, short)
