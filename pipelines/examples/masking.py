"""Mask positions in many examples at once; a policy that chooses positions is an entry of MASKERS.

Shapes: E examples, S sequence length, P max_predictions, K candidates (words) of the longest example. As in
google-research/bert, min(max_predictions, max(1, round(masked_lm_prob * length))) positions are masked, where the length
includes [CLS] and [SEP]. Of these, 80 % become [MASK], 10 % a random token, and 10 % are kept.

There are two deliberate differences from the reference. Special tokens, including [UNK], are never masked, and neither they
nor [unused…] tokens are drawn as random tokens. In `whole_word`, a piece that starts a segment starts a word (the reference
joins it to the previous word).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.config import ExampleConfig

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # the rest keeps its token
_SPAN_P, _SPAN_MAX = 0.2, 10  # SpanBERT (Joshi et al. 2019, arXiv:1907.10529): geometric, at most ten words


@dataclass(frozen=True)
class Chosen:
    """The masked positions. positions: int32 [E, P], sorted, 0 if unused; count: int64 [E].

    unit: int32 [E, P], equal for positions that share one of the 80/10/10 actions.
    """

    positions: np.ndarray
    count: np.ndarray
    unit: np.ndarray


def quota(lengths: np.ndarray, config: ExampleConfig) -> np.ndarray:
    """Return the number of positions to mask, int64 [E], from the lengths with special tokens; rounds like Python."""
    wanted = np.maximum(1, np.rint(lengths * config.masked_lm_prob)).astype(np.int64)
    return np.minimum(wanted, config.max_predictions)


def _from_selection(selected: np.ndarray, max_predictions: int, unit_of: np.ndarray | None = None) -> Chosen:
    """Return positions (sorted, packed to the left) from a boolean matrix [E, S] with at most P true values per row."""
    row, column = np.nonzero(selected)
    count = np.bincount(row, minlength=len(selected))
    slot = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    positions = np.zeros((len(selected), max_predictions), np.int32)
    positions[row, slot] = column
    unit = np.tile(np.arange(max_predictions, dtype=np.int32), (len(selected), 1))
    if unit_of is not None:
        unit[row, slot] = unit_of[row, column]
    return Chosen(positions, count, unit)


def _random_keys(rng: np.random.Generator, present: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (keys [E, K], mask): a random order of the columns of each row, with those not `present` last.

    The low bits of a key, under the mask, are its column; the top bit is set if not `present`; the others are random. 32 bits
    are enough for K up to 512: two random parts are equal at most once in 4 million times, and then the first column wins.
    """
    columns = present.shape[1]
    kind: type[np.unsignedinteger] = np.uint64 if columns > 512 else np.uint32
    bits = np.iinfo(kind).bits
    mask = (1 << max(columns - 1, 1).bit_length()) - 1
    keys: np.ndarray = (
        rng.bit_generator.random_raw(-(-present.size * bits // 64)).view(kind)[: present.size].reshape(present.shape)
    )
    keys >>= kind(1)
    keys |= np.where(present, kind(mask), kind(mask | 1 << bits - 1))
    keys &= ~kind(mask) | np.arange(columns, dtype=kind)
    return keys, mask


def subword(
    candidates: np.ndarray, starts: np.ndarray, wanted: np.ndarray, config: ExampleConfig, rng: np.random.Generator
) -> Chosen:
    """Choose wordpieces uniformly, ignoring words."""
    keys, mask = _random_keys(rng, candidates)
    most = min(config.max_predictions, keys.shape[1])
    if most < keys.shape[1]:
        keys = np.partition(keys, most - 1, axis=1)[:, :most]  # many times faster than sorting all
    keys = np.sort(keys, axis=1)
    count = np.minimum(wanted, candidates.sum(axis=1))
    unused = np.arange(most) >= count[:, None]
    positions = np.where(unused, mask + 1, keys & keys.dtype.type(mask)).astype(np.int32)
    positions.sort(axis=1)
    positions[unused] = 0
    unit = np.broadcast_to(np.arange(most, dtype=np.int32), positions.shape)
    if most < config.max_predictions:
        pad = ((0, 0), (0, config.max_predictions - most))
        return Chosen(np.pad(positions, pad), count, np.pad(unit, pad))
    return Chosen(positions, count, unit)


@dataclass(frozen=True)
class _Words:
    """The words of each example: first position and length, int32 [E, K]; length 0: no word."""

    first: np.ndarray
    length: np.ndarray
    count: np.ndarray


def _words(candidates: np.ndarray, starts: np.ndarray) -> _Words:
    row, column = np.nonzero(candidates & starts)
    count = np.bincount(row, minlength=len(candidates))
    word = np.cumsum(candidates & starts, axis=1) - 1  # for each candidate position
    width = max(int(count.max(initial=0)), 1)
    in_row, at = np.nonzero(candidates)
    length = np.bincount(in_row * width + word[in_row, at], minlength=len(candidates) * width)
    first = np.zeros((len(candidates), width), np.int32)
    first[row, word[row, column]] = column
    return _Words(first, length.reshape(-1, width).astype(np.int32), count)


def _fill(rows: np.ndarray, first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, column) of every position in the runs [first, first + length) of `rows`."""
    run = np.repeat(np.arange(len(rows)), length)
    within = np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)
    return rows[run], first[run] + within


def _select(candidates: np.ndarray, words: _Words, masked: np.ndarray) -> np.ndarray:
    """Return the positions, bool [E, S], of the masked words, bool [E, K]."""
    selected = np.zeros(candidates.shape, bool)
    row, at = np.nonzero(masked)
    selected[_fill(row, words.first[row, at], words.length[row, at])] = True
    return selected


def whole_word(
    candidates: np.ndarray, starts: np.ndarray, wanted: np.ndarray, config: ExampleConfig, rng: np.random.Generator
) -> Chosen:
    """Choose words in random order, with all their pieces, skipping those that exceed the quota (the reference's rule).

    If no word fits the quota, the shortest word of the example is masked if max_predictions allows it.
    """
    words = _words(candidates, starts)
    keys, mask = _random_keys(rng, words.length > 0)
    keys.sort(axis=1)
    order = np.minimum(keys & keys.dtype.type(mask), words.length.shape[1] - 1).astype(np.int64)
    length = np.take_along_axis(words.length, order, axis=1)
    left, taken = wanted.copy(), np.zeros(length.shape, bool)
    for rank in range(length.shape[1]):
        taken[:, rank] = fits = (length[:, rank] > 0) & (length[:, rank] <= left)
        left -= np.where(fits, length[:, rank], 0)
        if not left.any():
            break
    shortest = np.where(length > 0, length, config.max_predictions + 1).argmin(axis=1)
    smallest = np.take_along_axis(length, shortest[:, None], axis=1)[:, 0]
    none = ~taken.any(axis=1) & (smallest > 0) & (smallest <= config.max_predictions)
    taken[none, shortest[none]] = True
    masked = np.zeros(taken.shape, bool)
    np.put_along_axis(masked, order, taken, axis=1)
    return _from_selection(_select(candidates, words, masked), config.max_predictions)


def span_shares() -> np.ndarray:
    """Return the shares of spans of up to 1, 2, … 10 words: geometric with p = 0.2, renormalised; the mean is 3.8."""
    shares = _SPAN_P * (1 - _SPAN_P) ** np.arange(_SPAN_MAX)
    return np.cumsum(shares) / shares.sum()


def _span_lengths(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw the number of words per span."""
    return 1 + np.searchsorted(span_shares(), rng.random(count), side="right")


def span(
    candidates: np.ndarray, starts: np.ndarray, wanted: np.ndarray, config: ExampleConfig, rng: np.random.Generator
) -> Chosen:
    """Choose spans of words of geometric length; the tokens of a span share one of the 80/10/10 actions, as in SpanBERT.

    A span starts at a uniformly chosen unmasked word that fits. It ends before the end of the segment, a masked word, or the
    word that would exceed the quota.
    """
    words = _words(candidates, starts)
    total = words.length.shape[1]
    ends = words.first + words.length
    gap = np.ones((len(ends), total), bool)  # no span continues from word k to word k + 1 across a [SEP] or another token
    gap[:, :-1] = ends[:, :-1] != words.first[:, 1:]
    masked = np.zeros(words.length.shape, bool)
    unit_of = np.zeros(candidates.shape, np.int32)
    left, going, unit = wanted.copy(), np.flatnonzero(words.count > 0), 0
    while len(going):
        fits = _startable(words.length[going], masked[going], left[going], config.max_predictions)
        going, fits = going[fits.any(axis=1)], fits[fits.any(axis=1)]
        pick = (rng.random(len(going)) * fits.sum(axis=1)).astype(np.int64)
        at = (np.cumsum(fits, axis=1) > pick[:, None]).argmax(axis=1) if len(going) else pick
        size, open_ = _span_lengths(rng, len(going)), np.ones(len(going), bool)
        for step in range(_SPAN_MAX):
            here = np.minimum(at + step, total - 1)
            length = words.length[going, here]
            open_ &= (step < size) & (at + step < total) & ~masked[going, here] & (length > 0)
            open_ &= (length <= left[going]) | (step == 0)
            rows = going[open_]
            masked[rows, here[open_]] = True
            spots = _fill(rows, words.first[rows, here[open_]], length[open_])
            unit_of[spots] = unit
            left[rows] -= length[open_]
            open_ &= ~gap[going, here]
        unit += 1
        going = going[left[going] > 0]
    return _from_selection(_select(candidates, words, masked), config.max_predictions, unit_of)


def _startable(length: np.ndarray, masked: np.ndarray, left: np.ndarray, most: int) -> np.ndarray:
    """Return words at which a span may start: unmasked and within the quota, or within `most` if no other word fits."""
    free = (length > 0) & ~masked
    fits = free & (length <= left[:, None])
    stuck = ~fits.any(axis=1) & ~masked.any(axis=1)
    return fits | stuck[:, None] & free & (length <= most)


@dataclass(frozen=True)
class Masker:
    """A policy. choose(candidates bool [E, S], starts bool [E, S], wanted int64 [E], config, rng) -> Chosen.

    `starts` marks the positions that start a word, if the policy needs words; otherwise it is ignored.
    """

    choose: Callable[..., Chosen]
    needs_words: bool


MASKERS: dict[str, Masker] = {
    "subword": Masker(subword, needs_words=False),
    "whole_word": Masker(whole_word, needs_words=True),
    "span": Masker(span, needs_words=True),
}


def replace(
    ids: np.ndarray,
    chosen: Chosen,
    mask_id: int,
    random_ids: np.ndarray,
    actions: np.random.Generator,
    tokens: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the 80/10/10 rule. Return (ids with replacements [E, S], the original ids at the positions [E, P]).

    The original ids are 0 for unused positions. Positions of the same unit share the action; a random token is drawn for each
    position separately.
    """
    most = chosen.positions.shape[1]
    used = np.arange(most) < chosen.count[:, None]
    before = np.take_along_axis(ids, chosen.positions, axis=1)  # unused positions: the first token, restored below
    draw = actions.random((len(ids), max(int(chosen.unit.max(initial=0)) + 1, most)))
    action = np.take_along_axis(draw, chosen.unit, axis=1)
    drawn = random_ids.astype(ids.dtype)[tokens.integers(0, len(random_ids), chosen.positions.shape, np.int32)]
    after = np.where(action < MASK_SHARE + RANDOM_SHARE, drawn, before)
    after[action < MASK_SHARE] = mask_id
    replaced = ids.copy()
    np.put_along_axis(replaced, chosen.positions, np.where(used, after, before), axis=1)
    return replaced, np.where(used, before, 0)
