"""The mask policies as plain loops over the words of one example; the random numbers come from the formula in uint32."""

import numpy as np

ORDER, PICK, SIZE, ACTION, TOKEN = range(5)


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def lot(key: np.ndarray, counter: int, purpose: int) -> int:
    """Return random number `counter` of a purpose, 0 to 2**31 - 1; key: int32 [2]."""
    first, second = np.asarray(key, np.int32).view(np.uint32).astype(np.uint64)
    second = (second + 0x85EBCA6B * (purpose + 1)) % (1 << 32)
    inner = mix(np.array([(counter * 0x9E3779B9 + int(first)) % (1 << 32)], np.uint32))
    return int(mix(inner ^ np.uint32(second))[0]) >> 1


def words_of(ids: np.ndarray, candidates: np.ndarray, rules) -> list[list[int]]:
    """Return the positions of each word, or of each piece under `subword`."""
    found: list[list[int]] = []
    for at in np.flatnonzero(candidates).tolist():
        joined = rules.policy != "subword" and rules.is_continuation[ids[at]] and at and candidates[at - 1]
        found = [*found[:-1], [*found[-1], at]] if joined else [*found, [at]]
    return found


def in_random_order(words: list[list[int]], key: np.ndarray, high: int) -> list[list[int]]:
    return sorted(words, key=lambda word: (lot(key, word[0], ORDER) >> high, word[0]))


def choose(words: list[list[int]], wanted: int, key: np.ndarray, example: int, examples: int, rules) -> list[tuple[int, int]]:
    """Return (position, unit of its action) of what is masked in one example."""
    high = examples.bit_length()
    if rules.policy == "subword":
        return [(word[0], word[0]) for word in in_random_order(words, key, high)[:wanted]]
    if rules.policy == "whole_word":
        taken, left = [], wanted
        for word in in_random_order(words, key, high):
            if len(word) <= left:
                taken.append(word)
                left -= len(word)
        if not taken and words:
            shortest = min(in_random_order(words, key, high), key=len)
            taken = [shortest] if len(shortest) <= rules.max_predictions else []
        return [(at, at) for word in taken for at in word]
    return spans(words, wanted, key, example, examples, rules)


def spans(words: list[list[int]], wanted: int, key: np.ndarray, example: int, examples: int, rules) -> list[tuple[int, int]]:
    unit_of: dict[int, int] = {}  # number of the word -> first position of its span
    left, number = wanted, 0
    while left > 0:
        free = [k for k in range(len(words)) if k not in unit_of]
        fits = [k for k in free if len(words[k]) <= left]
        if not fits and not unit_of:
            fits = [k for k in free if len(words[k]) <= rules.max_predictions]
        if not fits:
            break
        counter = number * examples + example
        at = fits[lot(key, counter, PICK) % len(fits)]
        u = lot(key, counter, SIZE)
        size = 1 + sum(u >= min(round(share * 2**31), 2**31 - 1) for share in rules.span_shares[:-1])
        for k in range(at, min(at + size, len(words))):
            gap = k > at and words[k][0] != words[k - 1][-1] + 1
            if k in unit_of or gap or (k > at and len(words[k]) > left):
                break
            unit_of[k] = words[at][0]
            left -= len(words[k])
        number += 1
    return [(at, unit) for k, unit in unit_of.items() for at in words[k]]


def redraw(row: dict[str, np.ndarray], rules, rate: int = 0) -> dict[str, np.ndarray]:
    """Return a row, features [S], [P] or [E], with the masks that `draw_masks` has to draw."""
    used = row["masked_lm_weights"] > 0
    before, stored = row["input_ids"].copy(), np.zeros(len(row["input_ids"]), bool)
    before[row["masked_lm_positions"][used]] = row["masked_lm_ids"][used]
    stored[row["masked_lm_positions"][used]] = True
    numbers = row.get("example_ids", row["input_mask"])
    examples = len(row["cls_positions"]) if "example_ids" in row else 1
    key, chosen = row["random_keys"], []
    for example in range(examples):
        inside = numbers == example + 1
        candidates = inside & (~rules.is_special[before] if rules.fresh else stored)
        wanted = int(rules.quotas[rate, inside.sum()])
        chosen += choose(words_of(before, candidates, rules), wanted, key, example, examples, rules)
    chosen = sorted(chosen)[: rules.slots]
    ids, positions = before.copy(), np.zeros(rules.slots, np.int32)
    for slot, (at, unit) in enumerate(chosen):
        positions[slot] = at
        ids[at] = replaced(row, before[at], at, unit, rules) if rules.fresh else row["input_ids"][at]
    weights = (np.arange(rules.slots) < len(chosen)).astype(np.float32)
    targets = np.where(weights > 0, before[positions], 0)
    return {"input_ids": ids, "masked_lm_positions": positions, "masked_lm_ids": targets, "masked_lm_weights": weights}


def replaced(row: dict[str, np.ndarray], token: int, at: int, unit: int, rules) -> int:
    action = lot(row["random_keys"], unit, ACTION) / 2**31
    if action < rules.mask_share:
        return rules.mask_id
    if action < rules.mask_share + rules.random_share:
        return int(rules.random_ids[lot(row["random_keys"], at, TOKEN) % len(rules.random_ids)])
    return int(token)
