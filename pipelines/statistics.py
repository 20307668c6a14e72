"""What a dataset's examples are like, as sums: gathered chunk by chunk, added up over shards, told in statistics.json.

Everything comes from the columns alone, so `verify` gathers the same from the shards. Sums are integers, so the order in which
chunks and shards are added doesn't matter. Shapes: E examples, S sequence length, V vocabulary, B buckets of it.
"""

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import checks, masking, probe
from pipelines.examples import word_starts
from pipelines.features import Columns
from pipelines.groups import Group
from pipelines.schema import UserError
from pipelines.wordpiece import Vocabulary

Sums = dict[str, np.ndarray]
STATISTICS = "statistics.json"
FORMAT_VERSION = 1
BUCKETS = 256
_FIXED = 1 << 30  # expectations are summed in this part of a position: exact, also as float64 within a chunk
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: odd, and its multiples are spread evenly


@dataclass(frozen=True)
class Settings:
    """The part of a dataset's configuration that decides what is expected of its examples."""

    pairs: str
    masking: str
    masked_lm_prob: float
    max_predictions: int
    max_seq_length: int
    num_groups: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Settings":
        """From the configuration in dataset.json."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})


def buckets(ids: np.ndarray, size: int) -> np.ndarray:
    """int64 [B]: how many of `ids` stand in each of the B = min(size, 256) contiguous parts of a vocabulary."""
    count = min(size, BUCKETS)
    return np.bincount(ids.astype(np.int64) * count // size, minlength=count)


def fingerprints(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """uint64 [E]: a hash of each row of tokens and its label, the same whatever the width of the integers given."""
    words = np.zeros((len(ids), -(-ids.shape[1] // 2) * 2), np.uint32)
    words[:, : ids.shape[1]] = ids
    wide = words.view(np.uint64)
    wide ^= wide >> np.uint64(29)
    wide *= np.uint64(_GOLDEN)
    wide ^= wide >> np.uint64(32)
    places = np.arange(1, 2 * wide.shape[1], 2, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (wide * places).sum(axis=1) * np.uint64(2) + labels.astype(np.uint64)


def repeated_sentences(group: Group, limit: int) -> int:
    """How many of a group's sentences stand in it before: only these, and cut ones' windows, explain equal examples.

    limit: tokens of an example; a longer sentence counts once more for each window of so many that it fills.
    """
    lengths = np.diff(group.sentences)
    if not len(lengths):
        return 0
    within = np.arange(len(group.tokens)) - np.repeat(group.sentences[:-1], lengths)
    mixed = (group.tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    mixed ^= mixed >> np.uint64(32)
    mixed *= (2 * within + 1).astype(np.uint64) * np.uint64(_GOLDEN)
    hashes = np.add.reduceat(mixed, group.sentences[:-1])
    return int(len(hashes) - len(np.unique(hashes)) + ((lengths - 1) // limit).sum())


def clusters(columns: Columns) -> int:
    """Sum of squared lengths of runs of adjacent masked positions: what shares one action at most under `span`."""
    used = columns.masked_lm_weights > 0
    joined = np.zeros(used.shape, bool)
    joined[:, 1:] = (np.diff(columns.masked_lm_positions, axis=1) == 1) & used[:, 1:]
    run = np.cumsum((used & ~joined).ravel())[used.ravel()]
    return int((np.bincount(run).astype(np.int64) ** 2).sum())


class Gatherer:
    """The sums of one shard. Sound columns go in, chunk by chunk; `sums` gives what came together."""

    def __init__(self, settings: Settings, vocabulary: Vocabulary, split: str, copy: int) -> None:
        self._settings, self._vocabulary = settings, vocabulary
        first = copy == 0  # the text is the same in all copies
        self._probed = -(-probe.ROWS // settings.num_groups) if first and split == "train" and settings.pairs != "single" else 0
        size, length = len(vocabulary), settings.max_seq_length
        sizes = {"lengths": length + 1, "a_lengths": (2, length + 1), "b_lengths": (2, length + 1)}
        sizes |= dict.fromkeys(("masked_positions", "expected", "variance"), length)
        sizes |= dict.fromkeys(("random_tokens", "masked_tokens"), min(size, BUCKETS))
        sizes |= {"tokens": size if first else 0, "quota": 1, "clusters": 1}
        self._sums = {name: np.zeros(shape, np.int64) for name, shape in sizes.items()}
        self._hashes: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, columns: Columns) -> None:
        """Takes in some examples, in the order of the shard."""
        vocabulary, used = self._vocabulary, columns.masked_lm_weights > 0
        row = np.nonzero(used)[0]
        at, before = columns.masked_lm_positions[used], columns.masked_lm_ids[used]
        now = columns.input_ids[row, at]
        ids = columns.input_ids.astype(vocabulary.dtype)
        ids[row, at] = before
        lengths = np.count_nonzero(columns.input_mask, axis=1)
        self._hashes.append(fingerprints(ids, columns.next_sentence_labels))
        self._lengths(columns, ids, lengths)
        self._positions(columns, ids, lengths, row, at)
        self._add("random_tokens", buckets(now[(now != vocabulary.mask_id) & (now != before)], len(vocabulary)))
        self._add("masked_tokens", buckets(before, len(vocabulary)))
        if len(self._sums["tokens"]):
            self._add("tokens", np.bincount(ids.ravel(), minlength=len(vocabulary)))
            self._sums["tokens"][vocabulary.pad_id] = 0

    def _add(self, name: str, values: np.ndarray | int) -> None:
        self._sums[name] += values

    def _lengths(self, columns: Columns, ids: np.ndarray, lengths: np.ndarray) -> None:
        width, labels = self._settings.max_seq_length + 1, columns.next_sentence_labels.astype(np.int64)
        b_len = np.maximum(np.count_nonzero(columns.segment_ids, axis=1) - 1, 0)
        a_len = lengths - (2 if self._settings.pairs == "single" else b_len + 3)
        self._add("lengths", np.bincount(lengths, minlength=width))
        for name, side in (("a_lengths", a_len), ("b_lengths", b_len)):
            self._add(name, np.bincount(labels * width + side, minlength=2 * width).reshape(2, width))
        if wanted := min(self._probed, len(ids)):
            rows = probe.features(ids[:wanted], a_len[:wanted], b_len[:wanted], labels[:wanted], self._vocabulary)
            self._rows.append(rows)
            self._probed -= wanted

    def _positions(self, columns: Columns, ids: np.ndarray, lengths: np.ndarray, row: np.ndarray, at: np.ndarray) -> None:
        """Masked positions, and where they were as likely: at all tokens, or at all words of one piece (whole_word)."""
        settings, vocabulary = self._settings, self._vocabulary
        alike = candidates = ~vocabulary.is_special[ids]
        wanted = masking.quota(lengths, masking.MaskSettings(settings.masked_lm_prob, settings.max_predictions))
        wanted = np.minimum(wanted, np.count_nonzero(candidates, axis=1))
        if settings.masking != "subword":
            count = np.bincount(row, minlength=len(ids))
            wanted = np.where(checks.one_word(columns, vocabulary) & (count > wanted), count, wanted)
        if settings.masking == "whole_word":
            starts = word_starts(ids, vocabulary)
            alike = candidates & starts
            alike[:, :-1] &= ~candidates[:, 1:] | starts[:, 1:]
        if settings.masking == "span":
            self._add("clusters", clusters(columns))
        self._add("quota", wanted.sum())
        counted = alike[row, at]
        maskable, masked = np.count_nonzero(alike, axis=1), np.bincount(row[counted], minlength=len(ids))
        rate = masked / np.maximum(maskable, 1)
        variance = rate * (1 - rate) * maskable / np.maximum(maskable - 1, 1)
        self._add("masked_positions", np.bincount(at[counted], minlength=ids.shape[1]))
        sums = np.rint(np.stack([rate, variance]) * _FIXED) @ alike.astype(np.float64)
        self._add("expected", sums[0].astype(np.int64))
        self._add("variance", sums[1].astype(np.int64))

    def sums(self) -> Sums:
        """All sums, and under "probe" the rows for the probe, int32 [rows, features]."""
        hashes = np.concatenate(self._hashes or [np.zeros(0, np.uint64)])
        rows = np.concatenate(self._rows or [np.zeros((0, len(probe.COLUMNS) + 1), np.int32)])
        return self._sums | {"duplicates": np.array([len(hashes) - len(np.unique(hashes))]), "probe": rows}


def pack(sums: Sums) -> dict[str, Any]:
    """Sums as they travel, in a tenth of the room that JSON's numbers take."""
    shapes = {name: values.shape for name, values in sums.items()}
    data = b"".join(values.astype("<i8").T.tobytes() for values in sums.values())
    return {"shapes": shapes, "data": base64.b85encode(zlib.compress(data, 1)).decode()}


def unpack(packed: dict[str, Any]) -> Sums:
    """What `pack` was given."""
    flat, sums, start = np.frombuffer(zlib.decompress(base64.b85decode(packed["data"])), "<i8"), {}, 0
    for name, shape in packed["shapes"].items():
        sums[name] = flat[start : (start := start + int(np.prod(shape)))].reshape(shape[::-1]).T
    return sums


class Totals:
    """The sums of many shards, in any order."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Sums] = {}
        self._rows: dict[int, np.ndarray] = {}

    def add(self, shard: dict[str, Any], sums: Sums) -> None:
        """Adds a shard's; `shard` tells its split, group and copy."""
        if len(sums["probe"]):
            self._rows[shard["group"]] = sums["probe"].astype(np.int32)
        copy = self._copies.setdefault((shard["split"], f"{shard['copy']:02d}"), {})
        for name, values in sums.items():
            if name != "probe":
                copy[name] = copy[name] + values if name in copy else values

    def splits(self) -> dict[str, dict[str, dict[str, Any]]]:
        """ "splits" of statistics.json: split -> copy -> figures."""
        found: dict[str, dict[str, Any]] = {}
        for (split, copy), sums in sorted(self._copies.items(), reverse=True):
            found.setdefault(split, {})[copy] = _figures(sums)
        return {split: dict(sorted(copies.items())) for split, copies in found.items()}

    def probe_rows(self) -> np.ndarray:
        """int32 [rows, features], by group."""
        rows = [self._rows[group] for group in sorted(self._rows)]
        return np.concatenate(rows or [np.zeros((0, len(probe.COLUMNS) + 1), np.int32)])


def _figures(sums: Sums) -> dict[str, Any]:
    """A copy's sums by the names of statistics.json."""
    names = ("lengths", "a_lengths", "b_lengths", "masked_positions", "random_tokens", "masked_tokens", "tokens")
    figures: dict[str, Any] = {name: sums[name].tolist() for name in names}
    for name in ("expected", "variance"):
        figures[f"masked_positions_{name}"] = [round(value / _FIXED, 6) for value in sums[name].tolist()]
    figures |= {"masked_quota": int(sums["quota"][0]), "masked_clusters": int(sums["clusters"][0])}
    return figures | {"duplicate_examples": int(sums["duplicates"][0])}


def dumps(statistics: dict[str, Any]) -> bytes:
    """The file's bytes."""
    return (json.dumps(statistics, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def loads(data: bytes, name: str) -> dict[str, Any]:
    """Reads statistics.json's bytes. Raises UserError when it isn't one, or of a format this version doesn't know."""
    try:
        found = json.loads(data)
        if found["format_version"] == FORMAT_VERSION and isinstance(found["splits"], dict) and isinstance(found["probe"], dict):
            return found
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{name} holds no statistics that this clozemill knows: it was changed by hand; make the dataset anew")
