"""Draw masks on the device: fresh ones over the original tokens, or a subset of those that the shards have.

A draw is a function of a row's key alone, so it doesn't depend on batches, devices or backends.

B batch, S sequence length, E examples per row, P masked positions per row, V vocabulary.
"""

import numpy as np
from keras import ops

from clozemill.model.mask_policies import POLICIES, MaskRules, at, find_words, table, threshold, word_starts
from clozemill.model.random_bits import draw

KEYS = "random_keys"  # the feature int32 [B, 2] that masks are drawn from
_ACTION, _TOKEN = 3, 4  # purposes of random numbers; mask_policies.py has others


def stored_masks(features: dict) -> tuple:
    """Return (tokens before masking, int32 [B, S]; whether a position is masked, bool [B, S]) of records from the shards."""
    names = ("input_ids", "masked_lm_positions", "masked_lm_weights", "masked_lm_ids")
    return put_back(*(features[name] for name in names))


def put_back(ids_BS, positions_BP, weights_BP, words_BP) -> tuple:
    """Return (tokens with words at some positions, int32 [B, S]; where these are, bool [B, S]). weights: 1, 0 for no word."""
    ids_BS = ops.cast(ids_BS, "int32")
    there_BPS = ops.one_hot(positions_BP, ids_BS.shape[1], dtype="int32") * ops.cast(weights_BP, "int32")[:, :, None]
    words_BS = ops.sum(there_BPS * ops.cast(words_BP, "int32")[:, :, None], axis=1)
    placed_BS = ops.sum(there_BPS, axis=1) > 0
    return ops.where(placed_BS, words_BS, ids_BS), placed_BS


def original_ids(features: dict):
    """Return the tokens before masking, int32 [B, S]: `masked_lm_ids` put back at `masked_lm_positions`."""
    return stored_masks(features)[0]


def draw_masks(features: dict, rules: MaskRules, rate=0) -> dict:
    """Return a batch with other masks: fresh ones, or some of those that it has, as many as the quota of each example.

    It is without KEYS.

    Args:
        features: a batch of records from the shards, with KEYS. S, P and E are static.
        rules: how to draw.
        rate: number of the mask rate, a row of `rules.quotas`; an integer or int32 scalar.
    """
    size = features["input_ids"].shape[1]
    places_S = ops.arange(size, dtype="int32")
    before_BS, masked_BS = stored_masks(features)
    packed = "example_ids" in features
    examples_BS = ops.cast(features["example_ids" if packed else "input_mask"], "int32")
    begins_BE = features["cls_positions"] if packed else examples_BS[:, :1]
    candidates_BS = masked_BS
    if rules.fresh:
        candidates_BS = ops.logical_and(examples_BS > 0, ops.logical_not(ops.take(table(rules.is_special), before_BS)))
    quota = ops.take(table(rules.quotas.astype(np.int32)), rate, axis=0)
    words = find_words(rules, features[KEYS], before_BS, candidates_BS, examples_BS, begins_BE, quota)
    taken_BK, unit_BK = POLICIES[rules.policy](words, rules)
    word_BS = ops.cumsum(ops.cast(word_starts(rules, before_BS, candidates_BS), "int32"), axis=1) - 1
    word_BS = ops.maximum(word_BS, 0)
    chosen_BS = ops.logical_and(candidates_BS, at(taken_BK, word_BS))
    chosen_BS = ops.logical_and(chosen_BS, ops.cumsum(ops.cast(chosen_BS, "int32"), axis=1) <= rules.slots)
    after_BS = ops.cast(features["input_ids"], "int32")
    if rules.fresh:
        unit_BS = places_S[None] if unit_BK is None else at(unit_BK, word_BS)
        after_BS = replacements(features[KEYS], before_BS, unit_BS, rules)
    positions_BP = ops.sort(ops.where(chosen_BS, places_S, size), axis=1)[:, : rules.slots]
    used_BP = positions_BP < size
    positions_BP = ops.where(used_BP, positions_BP, 0)
    kept = {name: value for name, value in features.items() if name != KEYS}
    return kept | {
        "input_ids": ops.where(chosen_BS, after_BS, before_BS),
        "masked_lm_positions": positions_BP,
        "masked_lm_ids": ops.where(used_BP, at(before_BS, positions_BP), 0),
        "masked_lm_weights": ops.cast(used_BP, "float32"),
    }


def replacements(keys_B2, ids_BS, unit_BS, rules: MaskRules):
    """Return what each token becomes if it is masked, int32 [B, S]: [MASK], a random token, or itself.

    unit_BS: int32 [B or 1, S], equal for positions that share one of these actions.
    """
    action_BS = draw(keys_B2, unit_BS, _ACTION)
    places_1S = ops.arange(ids_BS.shape[1], dtype="int32")[None]
    token_BS = draw(keys_B2, places_1S, _TOKEN) % len(rules.random_ids)
    random_BS = ops.take(table(rules.random_ids.astype(np.int32)), token_BS)
    kept_BS = ops.where(action_BS < threshold(rules.mask_share + rules.random_share), random_BS, ids_BS)
    return ops.where(action_BS < threshold(rules.mask_share), rules.mask_id, kept_BS)
