"""Statistics of a dataset's examples, as sums: collected per chunk, added over shards, written to statistics.json.

They depend only on the columns, so `verify` computes the same from the shards. Sums are integers, so the order in which
chunks and shards are added doesn't matter. Shapes: E examples, S sequence length, V vocabulary, B buckets of it.
"""

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import masking as examples_masking
from clozemill.pipelines.examples.assemble import word_starts
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.quality import invariants, shortcut_probe
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.text.vocabulary import Vocabulary

Sums = dict[str, np.ndarray]
STATISTICS = "statistics.json"
FORMAT_VERSION = 1
BUCKETS = 256
_FIXED = 1 << 30  # expectations are summed as integer multiples of 1 / _FIXED
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: odd, and its multiples are evenly distributed


def buckets(ids: np.ndarray, size: int) -> np.ndarray:
    """Return int64 [B]: the number of `ids` in each of B = min(size, 256) contiguous parts of a vocabulary."""
    count = min(size, BUCKETS)
    return np.bincount(ids.astype(np.int64) * count // size, minlength=count)


def fingerprints(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return uint64 [E]: a hash of each row of tokens, uint16 or uint32 [E, S], and its label."""
    whole = 8 // ids.itemsize
    padded = np.zeros((len(ids), -(-ids.shape[1] // whole) * whole), ids.dtype)
    padded[:, : ids.shape[1]] = ids
    words = padded.view(np.uint64)
    words ^= words >> np.uint64(29)
    words *= np.uint64(_GOLDEN)
    words ^= words >> np.uint64(32)
    places = np.arange(1, 2 * words.shape[1], 2, dtype=np.uint64) * np.uint64(_GOLDEN)
    return np.einsum("ep,p->e", words, places) ^ labels.astype(np.uint64)


def repeated_sentences(group: Group, limit: int) -> int:
    """Return an upper bound of the repeated sentences in a group. Only these, and windows of cut ones, explain equal examples.

    Sentences are compared by their length and their first four and last four tokens. limit: tokens of an example; a longer
    sentence counts once more for each such window that it fills.
    """
    starts, lengths = group.sentences[:-1], np.diff(group.sentences)
    hashes = lengths.astype(np.uint64)
    for place in range(4):
        near = np.minimum(place, lengths - 1)
        for at in (starts + near, starts + lengths - 1 - near):
            hashes = (hashes ^ group.tokens[at]) * np.uint64(_GOLDEN)
            hashes ^= hashes >> np.uint64(32)
    return int(len(hashes) - len(np.unique(hashes)) + ((lengths - 1) // limit).sum())


def clusters(columns: Columns) -> int:
    """Return the sum of squared lengths of adjacent masked positions: the most that can share an action under `span`."""
    used = columns.masked_lm_weights > 0
    joined = np.zeros(used.shape, bool)
    joined[:, 1:] = (np.diff(columns.masked_lm_positions, axis=1) == 1) & used[:, 1:]
    run = np.cumsum((used & ~joined).ravel())[used.ravel()]
    return int((np.bincount(run).astype(np.int64) ** 2).sum())


@dataclass(frozen=True)
class _Masked:
    """The masked positions of some examples: row of the example, and position in it; int64 [masked] both."""

    row: np.ndarray
    at: np.ndarray

    def where(self, chosen: np.ndarray) -> "_Masked":
        return _Masked(self.row[chosen], self.at[chosen])


def _single_words(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return bool [E, S]: words of one piece."""
    candidates, starts = ~vocabulary.is_special[ids], word_starts(ids, vocabulary)
    alone = candidates & starts
    alone[:, :-1] &= ~candidates[:, 1:] | starts[:, 1:]
    return alone


def _over_positions(values: np.ndarray, lengths: np.ndarray, others: np.ndarray, places: int) -> np.ndarray:
    """Return int64 [S]: each example's value added at all its positions except `others` (indices into the flattened examples).

    values: integers as float64 [E], so that sums are exact.
    """
    ending = np.bincount(lengths, values, minlength=places + 1)
    total = ending[::-1].cumsum()[::-1][1:]
    return (total - np.bincount(others % places, values[others // places], minlength=places)).astype(np.int64)


class StatisticsCollector:
    """Collects the sums of one shard from its valid columns, chunk by chunk."""

    def __init__(self, config: ExampleConfig, vocabulary: Vocabulary, split: str, copy: int) -> None:
        self._config, self._vocabulary = config, vocabulary
        first = copy == 0  # the text is the same in all copies
        self._probed = (
            -(-shortcut_probe.ROWS // config.num_groups) if first and split == "train" and config.pairs != "single" else 0
        )
        size, length = len(vocabulary), config.max_seq_length
        sizes = {"lengths": length + 1, "a_lengths": (2, length + 1), "b_lengths": (2, length + 1)}
        sizes |= dict.fromkeys(("masked_positions", "expected", "variance"), length)
        sizes |= dict.fromkeys(("random_tokens", "masked_tokens"), min(size, BUCKETS))
        sizes |= {"tokens": size if first else 0, "quota": 1, "clusters": 1}
        self._sums = {name: np.zeros(shape, np.int64) for name, shape in sizes.items()}
        self._hashes: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, columns: Columns) -> None:
        """Add some examples, in the order of the shard."""
        vocabulary, (width, places) = self._vocabulary, (columns.masked_lm_ids.shape[1], columns.input_ids.shape[1])
        used = np.flatnonzero(columns.masked_lm_weights > 0)
        masked = _Masked(used // width, columns.masked_lm_positions.ravel()[used])
        before = columns.masked_lm_ids.ravel()[used]
        spots = masked.row * places + masked.at
        now = columns.input_ids.ravel()[spots]
        ids = columns.input_ids.astype(vocabulary.dtype)
        ids.ravel()[spots] = before
        self._hashes.append(fingerprints(ids, columns.next_sentence_labels))
        lengths, a_len, b_len = self._lengths(columns, ids)
        self._positions(columns, ids, (lengths, a_len, b_len), masked)
        self._add("random_tokens", buckets(now[(now != vocabulary.mask_id) & (now != before)], len(vocabulary)))
        self._add("masked_tokens", buckets(before, len(vocabulary)))
        if len(self._sums["tokens"]):
            self._add("tokens", np.bincount(ids.ravel(), minlength=len(vocabulary)))
            self._sums["tokens"][vocabulary.pad_id] = 0

    def _add(self, name: str, values: np.ndarray | int) -> None:
        self._sums[name] += values

    def _lengths(self, columns: Columns, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return int64 [E] each: tokens of the examples, of A, and of B."""
        width, labels = self._config.max_seq_length + 1, columns.next_sentence_labels.astype(np.int64)
        inside, behind = columns.input_mask.astype(bool), columns.segment_ids.astype(bool)
        lengths = np.where(inside[:, -1], width - 1, inside.argmin(axis=1))
        single = self._config.pairs == "single"
        a_len = lengths - 2 if single else behind.argmax(axis=1) - 2
        b_len = np.zeros_like(a_len) if single else lengths - a_len - 3
        self._add("lengths", np.bincount(lengths, minlength=width))
        for name, side in (("a_lengths", a_len), ("b_lengths", b_len)):
            self._add(name, np.bincount(labels * width + side, minlength=2 * width).reshape(2, width))
        if wanted := min(self._probed, len(ids)):
            rows = shortcut_probe.features(ids[:wanted], a_len[:wanted], b_len[:wanted], labels[:wanted], self._vocabulary)
            self._rows.append(rows)
            self._probed -= wanted
        return lengths, a_len, b_len

    def _positions(self, columns: Columns, ids: np.ndarray, sizes: tuple[np.ndarray, ...], masked: "_Masked") -> None:
        """Add masked positions, and the expectation: uniform over all tokens, or over all words of one piece (whole_word)."""
        config, vocabulary, (lengths, a_len, b_len) = self._config, self._vocabulary, sizes
        unknown, text = np.flatnonzero(ids == vocabulary.unk_id), a_len + b_len
        maskable = text - np.bincount(unknown // ids.shape[1], minlength=len(ids))
        wanted = np.minimum(examples_masking.quota(lengths, config), maskable)
        if config.masking != "subword":
            count = np.bincount(masked.row, minlength=len(ids))
            wanted = np.where(invariants.one_word(columns, vocabulary) & (count > wanted), count, wanted)
        if config.masking == "span":
            self._add("clusters", clusters(columns))
        self._add("quota", wanted.sum())
        if config.masking == "whole_word":
            alike = _single_words(ids, vocabulary)
            masked = masked.where(alike[masked.row, masked.at])
            maskable = np.count_nonzero(alike, axis=1)
            others = np.flatnonzero(~alike & (np.arange(ids.shape[1]) < lengths[:, None]))
        else:  # [CLS], [SEP] after A, [SEP] after B, and unknown words
            first = np.arange(len(ids)) * ids.shape[1]
            ends = (first + a_len + 1,) if config.pairs != "single" else ()
            others = np.concatenate([first, *ends, first + lengths - 1, unknown])
        self._add("masked_positions", np.bincount(masked.at, minlength=ids.shape[1]))
        rate = np.bincount(masked.row, minlength=len(ids)) / np.maximum(maskable, 1)
        variance = rate * (1 - rate) * maskable / np.maximum(maskable - 1, 1)
        for name, values in (("expected", rate), ("variance", variance)):
            self._add(name, _over_positions(np.rint(values * _FIXED), lengths, others, ids.shape[1]))

    def sums(self) -> Sums:
        """Return all sums, and the rows for the probe as "probe", int32 [rows, features]."""
        hashes = np.concatenate(self._hashes or [np.zeros(0, np.uint64)])
        rows = np.concatenate(self._rows or [np.zeros((0, len(shortcut_probe.COLUMNS) + 1), np.int32)])
        return self._sums | {"duplicates": np.array([len(hashes) - len(np.unique(hashes))]), "probe": rows}


def pack(sums: Sums) -> dict[str, Any]:
    """Pack sums for transfer, in a tenth of the size of JSON numbers."""
    layout = {name: [values.dtype.str, values.shape] for name, values in sums.items()}
    data = b"".join(values.T.tobytes() for values in sums.values())
    return {"layout": layout, "data": base64.b64encode(zlib.compress(data, 1)).decode()}


def unpack(packed: dict[str, Any]) -> Sums:
    """Return the sums that `pack` was given."""
    data, sums, start = zlib.decompress(base64.b64decode(packed["data"])), {}, 0
    for name, (dtype, shape) in packed["layout"].items():
        values = np.frombuffer(data, dtype, int(np.prod(shape)), start)
        sums[name], start = values.reshape(shape[::-1]).T, start + values.nbytes
    return sums


class StatisticsTotals:
    """The sums of many shards, in any order."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Sums] = {}
        self._rows: dict[int, np.ndarray] = {}

    def add(self, shard: dict[str, Any], sums: Sums) -> None:
        """Add the sums of a shard; `shard` has its split, group and copy."""
        if len(sums["probe"]):
            self._rows[shard["group"]] = sums["probe"]
        copy = self._copies.setdefault((shard["split"], f"{shard['copy']:02d}"), {})
        for name, values in sums.items():
            if name != "probe":
                copy[name] = copy[name] + values if name in copy else values

    def splits(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return "splits" of statistics.json: split -> copy -> statistics."""
        found: dict[str, dict[str, Any]] = {}
        for (split, copy), sums in sorted(self._copies.items(), reverse=True):
            found.setdefault(split, {})[copy] = _named_sums(sums)
        return {split: dict(sorted(copies.items())) for split, copies in found.items()}

    def probe_rows(self) -> np.ndarray:
        """Return int32 [rows, features], ordered by group."""
        rows = [self._rows[group] for group in sorted(self._rows)]
        return np.concatenate(rows or [np.zeros((0, len(shortcut_probe.COLUMNS) + 1), np.int32)])


def _named_sums(sums: Sums) -> dict[str, Any]:
    """Return the sums of a copy under the names of statistics.json."""
    names = ("lengths", "a_lengths", "b_lengths", "masked_positions", "random_tokens", "masked_tokens", "tokens")
    named: dict[str, Any] = {name: sums[name].tolist() for name in names}
    for name in ("expected", "variance"):
        named[f"masked_positions_{name}"] = [round(value / _FIXED, 6) for value in sums[name].tolist()]
    named |= {"masked_quota": int(sums["quota"][0]), "masked_clusters": int(sums["clusters"][0])}
    return named | {"duplicate_examples": int(sums["duplicates"][0])}


def dumps(statistics: dict[str, Any]) -> bytes:
    """Return the bytes of the file."""
    return (json.dumps(statistics, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def loads(data: bytes, name: str) -> dict[str, Any]:
    """Read the bytes of statistics.json. Raise UserError if they are invalid, or have an unknown format version."""
    try:
        found = json.loads(data)
        parts = found["splits"], found["probe"], found["gate"], found["documents"], *found["splits"].values()
        parts += tuple(copy for copies in found["splits"].values() for copy in copies.values())
        if found["format_version"] == FORMAT_VERSION and all(isinstance(part, dict) for part in parts):
            return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(f"{name} doesn't contain statistics that this version of clozemill can read: rebuild the dataset")
