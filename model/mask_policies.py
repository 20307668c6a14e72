"""The policies that choose which words of a row are masked, with static shapes; an entry of POLICIES is a policy.

They are those of the dataset's pipeline; tests/model/mask_reference.py has them as plain loops.

B batch, S sequence length, E examples per row, P masked positions per row, K words of a row (as many as S; unused ones have
length 0), V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from clozemill.model.random_bits import BITS, draw

_ORDER, _PICK, _SIZE = range(3)  # purposes of random numbers; masking.py has others


@dataclass(frozen=True, eq=False)
class MaskRules:
    """How the masks of a dataset were drawn, as numbers and tables.

    Attributes:
        policy: a key of POLICIES.
        quotas: positions to mask in an example, int32 [R, S + 1], by number of the mask rate and by its tokens.
        max_predictions: the most masked positions of an example.
        slots: P, the most masked positions of a row; a draw with more keeps the first of them.
        fresh: draw new masks; otherwise keep a subset of those in the shards.
        mask_id: id of [MASK].
        is_special: bool [V], tokens that are never masked.
        is_continuation: bool [V], pieces that continue a word.
        random_ids: ids of which random replacements are drawn, int32.
        mask_share, random_share: fractions of masked positions that become [MASK], or a random token.
        span_shares: cumulative shares of spans of 1, 2, … words, float64.
    """

    policy: str
    quotas: np.ndarray
    max_predictions: int
    slots: int
    fresh: bool
    mask_id: int
    is_special: np.ndarray
    is_continuation: np.ndarray
    random_ids: np.ndarray
    mask_share: float
    random_share: float
    span_shares: np.ndarray


def threshold(share: float) -> int:
    """Return the integer that a random one is below with a probability of `share`."""
    return min(round(share * (1 << BITS)), (1 << BITS) - 1)


def at(values_BX, index_BY):
    """Return the values at some indices of each row, [B, Y]."""
    return ops.take_along_axis(values_BX, index_BY, axis=1)


def _before(counts_BX):
    """Return the sum of the values before each one: [3, 2, 4] -> [0, 3, 5]."""
    return ops.cumsum(counts_BX, axis=1) - counts_BX


@dataclass(frozen=True, eq=False)
class Words:
    """The words of the rows, left to right; what is chosen together under `subword` is a "word" of one piece.

    first_BK, length_BK: position of a word's first piece (S: no word) and number of its pieces. owner_BK: its example, from 0
    (0: no word). begin_BE, count_BE: number of an example's first word, and of its words. wanted_BE: its quota.
    """

    keys_B2: Any
    first_BK: Any
    length_BK: Any
    owner_BK: Any
    begin_BE: Any
    count_BE: Any
    wanted_BE: Any

    def of_owner(self, values_BE):
        """Return the value of each word's example, [B, K]."""
        return at(values_BE, self.owner_BK)

    def total(self, values_BK):
        """Return the sum over the words of each example, int32 [B, E]."""
        padded = ops.pad(ops.cumsum(ops.cast(values_BK, "int32"), axis=1), ((0, 0), (1, 0)))
        return at(padded, self.begin_BE + self.count_BE) - at(padded, self.begin_BE)

    def random_order(self):
        """Return the words of each row in the order of their examples, and within an example in random order, int32 [B, K].

        Absent ones come last. Sorted are integers with the example in the highest bits and a random number in the others.
        """
        most = self.begin_BE.shape[1]
        high = most.bit_length()
        owner_BK = ops.where(self.length_BK > 0, self.owner_BK, most)
        lots_BK = ops.right_shift(draw(self.keys_B2, self.first_BK, _ORDER), high)
        return ops.cast(ops.argsort(owner_BK * (1 << (BITS - high)) + lots_BK, axis=1), "int32")


def find_words(rules: MaskRules, keys_B2, ids_BS, candidates_BS, examples_BS, begins_BE, quota) -> Words:
    """Return the words that consist of candidates. examples_BS: number of the example from 1, 0 for padding."""
    size, most = candidates_BS.shape[1], begins_BE.shape[1]
    starts_BS, owned_BES = word_starts(rules, ids_BS, candidates_BS), _owned(examples_BS, most)
    wanted_BE = ops.take(quota, ops.sum(ops.cast(owned_BES, "int32"), axis=2))
    count_BE = ops.sum(ops.cast(ops.logical_and(owned_BES, starts_BS[:, None]), "int32"), axis=2)
    first_BK = ops.sort(ops.where(starts_BS, ops.arange(size, dtype="int32"), size), axis=1)
    there_BK, safe_BK = first_BK < size, ops.minimum(first_BK, size - 1)
    pieces_BS = ops.cast(candidates_BS, "int32")
    total_B1 = ops.sum(pieces_BS, axis=1, keepdims=True)
    offset_BK = ops.where(there_BK, at(_before(pieces_BS), safe_BK), total_B1)
    length_BK = ops.concatenate([offset_BK[:, 1:], total_B1], axis=1) - offset_BK
    owner_BK = ops.where(there_BK, ops.maximum(at(examples_BS, safe_BK) - 1, 0), 0)
    return Words(keys_B2, first_BK, length_BK, owner_BK, _before(count_BE), count_BE, wanted_BE)


def _owned(examples_BS, most: int):
    """Return which positions belong to each example, bool [B, E, S]."""
    return examples_BS[:, None] == ops.arange(1, most + 1, dtype="int32")[None, :, None]


def word_starts(rules: MaskRules, ids_BS, candidates_BS):
    """Return which candidates start a word, bool [B, S]: also a `##` piece after a token that is no candidate."""
    if rules.policy == "subword":
        return candidates_BS
    inside_BS = ops.logical_and(
        ops.take(table(rules.is_continuation), ids_BS), ops.pad(candidates_BS[:, :-1], ((0, 0), (1, 0)))
    )
    return ops.logical_and(candidates_BS, ops.logical_not(inside_BS))


def table(values: np.ndarray):
    return ops.convert_to_tensor(values)


def _in_order(taken_BK, order_BK):
    """Return values of words in random order as those of words from left to right."""
    return at(taken_BK, ops.cast(ops.argsort(order_BK, axis=1), "int32"))


def subword(words: Words, rules: MaskRules) -> tuple:
    """Take wordpieces in random order. Returns (taken, bool [B, K]; None: each has its own action)."""
    places_K = ops.arange(words.first_BK.shape[1], dtype="int32")
    taken_BK = places_K - words.of_owner(words.begin_BE) < words.of_owner(words.wanted_BE)
    # Words in random order are grouped by example as those from left to right: `of_owner` suits both.
    return ops.logical_and(_in_order(taken_BK, words.random_order()), words.length_BK > 0), None


def whole_word(words: Words, rules: MaskRules) -> tuple:
    """Take words in random order, skipping those that exceed the quota; if none fits, the shortest. Returns as `subword`."""
    order_BK = words.random_order()
    length_BK = at(words.length_BK, order_BK)
    size = length_BK.shape[1]
    rank_BK = ops.arange(size, dtype="int32") - words.of_owner(words.begin_BE)

    def waiting(rank, left_BE, taken_BK):
        return ops.any(ops.logical_and(left_BE > 0, rank < words.count_BE))

    def next_rank(rank, left_BE, taken_BK):
        now_BE = at(length_BK, ops.minimum(words.begin_BE + rank, size - 1))
        fits_BE = ops.logical_and(rank < words.count_BE, now_BE <= left_BE)
        chosen_BK = ops.logical_and(rank_BK == rank, words.of_owner(fits_BE))
        return rank + 1, left_BE - ops.where(fits_BE, now_BE, 0), ops.logical_or(taken_BK, chosen_BK)

    # `left` differs from the quota as soon as a word was taken.
    start = ops.zeros((), "int32"), words.wanted_BE, ops.zeros_like(length_BK) > 0
    _, left_BE, taken_BK = ops.while_loop(waiting, next_rank, start, maximum_iterations=size)
    taken_BK = ops.logical_or(taken_BK, _shortest(words, length_BK, left_BE == words.wanted_BE, rules.max_predictions))
    return ops.logical_and(_in_order(taken_BK, order_BK), words.length_BK > 0), None


def _shortest(words: Words, length_BK, none_BE, most: int):
    """Return the first of the shortest words of the examples in which none fits the quota, if it has `most` pieces at most."""
    size = length_BK.shape[1]
    places_K = ops.arange(size, dtype="int32")
    after_BE1 = places_K >= words.begin_BE[:, :, None]
    mine_BEK = ops.logical_and(after_BE1, places_K < (words.begin_BE + words.count_BE)[:, :, None])
    mine_BEK = ops.logical_and(mine_BEK, (length_BK > 0)[:, None])
    least_BE = ops.min(ops.where(mine_BEK, length_BK[:, None], size + 1), axis=2)
    equal_BEK = ops.logical_and(mine_BEK, length_BK[:, None] == least_BE[:, :, None])
    at_BE = ops.min(ops.where(equal_BEK, places_K, size), axis=2)
    wanted_BE = ops.logical_and(none_BE, least_BE <= most)
    return ops.any(ops.logical_and(wanted_BE[:, :, None], places_K == at_BE[:, :, None]), axis=1)


def span(words: Words, rules: MaskRules) -> tuple:
    """Take spans of words until the quota is filled.

    Returns (taken, bool [B, K]; the first position of each word's span, int32 [B, K], for tokens of a span share an action).
    """
    first_BK, length_BK = words.first_BK, words.length_BK
    places_K = ops.arange(first_BK.shape[1], dtype="int32")
    most, examples = len(rules.span_shares), words.begin_BE.shape[1]
    adjacent_BK = ops.concatenate([first_BK[:, 1:] == (first_BK + length_BK)[:, :-1], first_BK[:, :1] < 0], axis=1)
    longest = [threshold(share) for share in rules.span_shares[:-1]]

    def spans(number, left_BE, taken_BK):
        """Return (first word, number of words) of the next span of each example, int32 [B, E]; 0 words if none is left."""
        starts_BK = _startable(words, taken_BK, left_BE, rules.max_predictions)
        count_BE, lots_1E = words.total(starts_BK), number * examples + ops.arange(examples, dtype="int32")[None]
        pick_BE = draw(words.keys_B2, lots_1E, _PICK) % ops.maximum(count_BE, 1)
        rank_BK = _before(ops.cast(starts_BK, "int32"))
        rank_BK = rank_BK - words.of_owner(at(rank_BK, ops.minimum(words.begin_BE, first_BK.shape[1] - 1)))
        at_BE = words.total(ops.where(ops.logical_and(starts_BK, rank_BK == words.of_owner(pick_BE)), places_K, 0))
        size_BE = 1 + ops.sum(ops.cast(draw(words.keys_B2, lots_1E, _SIZE)[:, :, None] >= table(np.int32(longest)), "int32"), 2)
        count_BE = ops.where(left_BE > 0, count_BE, 0)
        return at_BE, ops.where(count_BE > 0, _extent(words, at_BE, size_BE, left_BE, taken_BK, adjacent_BK, most), 0)

    def going(number, active, left_BE, taken_BK, unit_BK):
        return active

    def next_span(number, active, left_BE, taken_BK, unit_BK):
        at_BE, size_BE = spans(number, left_BE, taken_BK)
        from_BK = places_K - words.of_owner(at_BE)
        new_BK = ops.logical_and(from_BK >= 0, from_BK < words.of_owner(size_BE))
        new_BK = ops.logical_and(new_BK, length_BK > 0)
        unit_BK = ops.where(new_BK, words.of_owner(at(first_BK, at_BE)), unit_BK)
        left_BE = left_BE - words.total(ops.where(new_BK, length_BK, 0))
        return number + 1, ops.any(size_BE > 0), left_BE, ops.logical_or(taken_BK, new_BK), unit_BK

    start = ops.zeros((), "int32"), ops.ones((), "bool"), words.wanted_BE, ops.zeros_like(length_BK) > 0, first_BK * 0
    *_, taken_BK, unit_BK = ops.while_loop(going, next_span, start, maximum_iterations=first_BK.shape[1] + 1)
    return taken_BK, unit_BK


def _startable(words: Words, taken_BK, left_BE, most: int):
    """Return words at which a span may start: free and within the quota, or within `most` if no word of the example fits."""
    free_BK = ops.logical_and(words.length_BK > 0, ops.logical_not(taken_BK))
    fits_BK = ops.logical_and(free_BK, words.length_BK <= words.of_owner(left_BE))
    stuck_BE = words.total(ops.logical_or(fits_BK, taken_BK)) == 0
    return ops.logical_or(fits_BK, ops.logical_and(ops.logical_and(words.of_owner(stuck_BE), free_BK), words.length_BK <= most))


def _extent(words: Words, at_BE, size_BE, left_BE, taken_BK, adjacent_BK, most: int):
    """Return how many words of a span are taken, int32 [B, E].

    It ends before a masked word, a gap such as [SEP], and the word that would exceed the quota, but for the first.
    """
    (_, examples), last = at_BE.shape, taken_BK.shape[1] - 1
    here_BEW = at_BE[:, :, None] + ops.arange(most, dtype="int32")
    flat_BX = ops.reshape(ops.minimum(here_BEW, last), (-1, examples * most))
    taken, adjacent, length = (
        ops.reshape(at(ops.cast(values, "int32"), flat_BX), (-1, examples, most))
        for values in (taken_BK, adjacent_BK, words.length_BK)
    )
    open_BEW = ops.logical_and(ops.arange(most, dtype="int32") < size_BE[:, :, None], taken == 0)
    open_BEW = ops.logical_and(open_BEW, ops.logical_and(length > 0, here_BEW <= last))
    within = ops.cumsum(length, axis=2)[:, :, 1:] <= left_BE[:, :, None]
    joined = ops.logical_and(within, adjacent[:, :, :-1] > 0)
    open_BEW = ops.logical_and(open_BEW, ops.concatenate([open_BEW[:, :, :1], joined], axis=2))
    return ops.sum(ops.cumprod(ops.cast(open_BEW, "int32"), axis=2), axis=2)


POLICIES: dict[str, Callable[[Words, MaskRules], tuple]] = {"subword": subword, "whole_word": whole_word, "span": span}
