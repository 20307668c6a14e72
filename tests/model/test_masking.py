"""Masks drawn on the device: equal to plain loops, on every backend; their shares; and what must never change."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from clozemill.model.mask_policies import MaskRules
from clozemill.model.masking import draw_masks, original_ids
from clozemill.model.random_bits import draw
from tests.model import mask_reference, small
from tests.model.small import run
from tests.slow import mostly_slow

VOCAB, LENGTH, MOST = 60, 32, 8
SPECIAL = np.arange(VOCAB) < 5
PIECES = np.arange(VOCAB) >= 40  # every third token continues a word
LENGTHS = np.arange(LENGTH + 1)
POLICIES = ("subword", "whole_word", "span")
CHANGED = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")


def quotas(*rates: float, most: int = MOST, longest: int = LENGTH) -> np.ndarray:
    lengths = np.arange(longest + 1)
    found = [np.minimum(np.maximum(1, np.rint(lengths * rate)), most) * (lengths > 0) for rate in rates]
    return np.array(found, np.int32)


def rules(policy: str, fresh: bool = True, **changes) -> MaskRules:
    shares = np.cumsum(0.2 * 0.8 ** np.arange(10))
    shares /= shares[-1]
    made = MaskRules(policy, quotas(0.25), MOST, MOST, fresh, 4, SPECIAL, PIECES, np.arange(5, VOCAB), 0.8, 0.1, shares)
    return replace(made, **changes)


def rows(count: int, seed: int = 0, length: int = LENGTH, masked: int = MOST) -> dict[str, np.ndarray]:
    """Return examples [CLS] … [SEP] … [SEP] of many lengths, of which some words (or pieces) are masked, and their keys."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(6, length + 1, count)
    sizes[0] = length
    place = np.arange(length)
    middle = sizes // 2
    ids = rng.integers(5, VOCAB, (count, length)) * (place < sizes[:, None])
    ids[:, 0] = 2
    ids[np.arange(count), middle] = ids[np.arange(count), sizes - 1] = 3
    ids[rng.random((count, length)) < 0.05] = 1  # [UNK]
    ids *= place < sizes[:, None]
    inside = place < sizes[:, None]
    features = {
        "input_ids": ids, "input_mask": inside, "segment_ids": (place > middle[:, None]) & inside,
        "masked_lm_positions": np.zeros((count, masked)), "masked_lm_ids": np.zeros((count, masked)),
        "masked_lm_weights": np.zeros((count, masked)), "next_sentence_labels": rng.integers(0, 2, (count, 1)),
        "random_keys": rng.integers(-(2**31), 2**31, (count, 2)),
    }  # fmt: skip
    return {name: values.astype("float32" if "weights" in name else "int32") for name, values in features.items()}


def stored(policy: str, **options) -> dict[str, np.ndarray]:
    """Return `rows` with masks of a policy, as a dataset has them; then new keys."""
    features = rows(40, **options)
    found = features | drawn(features, rules(policy))
    return found | {"random_keys": rows(40, seed=9)["random_keys"]}


def drawn(features: dict, given: MaskRules, rate: int = 0) -> dict[str, np.ndarray]:
    tensors = {name: ops.convert_to_tensor(values) for name, values in features.items()}

    def draw(batch: dict) -> dict:
        return draw_masks(batch, given, rate)

    if keras.backend.backend() == "tensorflow":  # a loop takes many times longer op by op
        import tensorflow as tf

        draw = tf.function(draw, autograph=False)
    found = draw(tensors)
    assert found.keys() == features.keys() - {"random_keys"}
    return {name: ops.convert_to_numpy(found[name]) for name in CHANGED}


def expected(features: dict, given: MaskRules, rate: int = 0) -> dict[str, np.ndarray]:
    count = len(features["input_ids"])
    made = [mask_reference.redraw({name: v[row] for name, v in features.items()}, given, rate) for row in range(count)]
    return {name: np.stack([row[name] for row in made]) for name in CHANGED}


def assert_equal(found: dict, wanted: dict) -> None:
    for name in CHANGED:
        np.testing.assert_array_equal(found[name], wanted[name], name)


def in_rows(features: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """Return the same examples in packed rows, two to a row, and two rows with one and with none."""
    plan = [[at, at + 1] for at in range(0, len(features["input_ids"]) - 2, 2)]
    plan += [[len(features["input_ids"]) - 1], []]
    return small.packed(features, plan, length, 3, 3 * MOST) | {"random_keys": features["random_keys"][: len(plan)]}


@pytest.mark.parametrize("policy", POLICIES)
def test_fresh_masks_match_plain_loops(policy: str) -> None:
    features = rows(40)
    found = drawn(features, rules(policy))
    assert_equal(found, expected(features, rules(policy)))
    assert (found["masked_lm_weights"].sum(axis=1) > 0).all()
    assert all(value.dtype == (np.float32 if "weights" in name else np.int32) for name, value in found.items())


@pytest.mark.parametrize("policy", mostly_slow(POLICIES, "whole_word", "span"))
def test_packed_rows_are_masked_example_by_example(policy: str) -> None:
    features = in_rows(stored(policy), 2 * LENGTH)
    for fresh in (True, False):
        given = rules(policy, fresh, quotas=quotas(0.25, longest=2 * LENGTH), slots=2 * MOST + 1)
        assert_equal(drawn(features, given), expected(features, given))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_lower_rate_keeps_some_of_the_masks(policy: str) -> None:
    """At the dataset's rate, all of them; at half of it, half, with the tokens that they have in the shards."""
    features = stored(policy)
    given = rules(policy, fresh=False, quotas=quotas(0.25, 0.125))
    assert_equal(drawn(features, given), {name: features[name] for name in CHANGED})
    found = drawn(features, given, 1)
    assert_equal(found, expected(features, given, 1))
    kept, had = (batch["masked_lm_weights"].sum(axis=1) for batch in (found, features))
    assert (kept <= had).all() and kept.sum() < 0.6 * had.sum()
    if policy == "subword":
        assert kept.tolist() == np.minimum(quotas(0.125)[0][features["input_mask"].sum(axis=1)], had).tolist()
    at = np.take_along_axis(features["input_ids"], found["masked_lm_positions"], axis=1)
    now = np.take_along_axis(found["input_ids"], found["masked_lm_positions"], axis=1)
    assert ((now == at) | (found["masked_lm_weights"] == 0)).all()
    assert (ops.convert_to_numpy(original_ids(features | found)) == ops.convert_to_numpy(original_ids(features))).all()


def test_long_words() -> None:
    """A word longer than the quota is masked if it is the shortest of its example; one longer than max_predictions, never."""
    features = {name: values[:2] for name, values in rows(2).items()}
    features["input_mask"][:] = np.arange(LENGTH) < 12
    features["input_ids"][:, 1:12] = 50  # [CLS] and a word of eleven pieces
    features["input_ids"][0, 6] = 3  # of two words, of five pieces each
    for policy in ("whole_word", "span"):
        found = drawn(features, rules(policy))
        assert found["masked_lm_weights"].sum(axis=1).tolist() == [5, 0]
        assert_equal(found, expected(features, rules(policy)))


@pytest.mark.parametrize("policy", ["whole_word", "span"])
def test_words_are_masked_whole(policy: str) -> None:
    features = rows(200, seed=3)
    found = drawn(features, rules(policy))
    masked = np.zeros((200, LENGTH), bool)
    np.put_along_axis(masked, found["masked_lm_positions"], found["masked_lm_weights"] > 0, axis=1)
    masked[:, 0] = False  # unused slots
    for row in range(200):
        for word in mask_reference.words_of(features["input_ids"][row], ~SPECIAL[features["input_ids"][row]], rules(policy)):
            assert masked[row, word].all() or not masked[row, word].any()
    assert not SPECIAL[features["input_ids"][masked]].any()


@pytest.mark.parametrize("policy", POLICIES)
def test_shares(policy: str) -> None:
    """Of 4,000 rows: 80/10/10 within 4.5 standard deviations, and every position of a full row alike under `subword`."""
    features = {name: np.repeat(values[:1], 4000, axis=0) for name, values in rows(1).items()}
    features["random_keys"] = rows(4000, seed=1)["random_keys"]
    found = drawn(features, rules(policy, random_ids=np.array([7])))
    used = found["masked_lm_weights"] > 0
    before = found["masked_lm_ids"][used]
    now = np.take_along_axis(found["input_ids"], found["masked_lm_positions"], axis=1)[used]
    units = used.sum() / (1 if policy != "span" else 3.8 * 1.5)  # tokens of a span share an action
    other = before != 7
    for share, hits in ((0.8, now[other] == 4), (0.1, now[other] == 7), (0.1, now[other] == before[other])):
        assert abs(hits.mean() - share) < 4.5 * (share * (1 - share) / units) ** 0.5
    if policy == "subword":
        candidates = ~SPECIAL[features["input_ids"][0]]
        counts = np.bincount(found["masked_lm_positions"][used], minlength=LENGTH)[candidates]
        share = 8 / candidates.sum()
        assert abs(counts / 4000 - share).max() < 4.5 * (share * (1 - share) / 4000) ** 0.5


def test_shares_of_what_a_lower_rate_keeps() -> None:
    """Of 4,000 rows with the same masks: any of them alike, and of those that stay still 80/10/10."""
    given = rules("subword", fresh=False, random_ids=np.array([7]), quotas=quotas(0.25, 0.125))
    features = {name: np.repeat(values[:1], 4000, axis=0) for name, values in rows(1).items()}
    features["random_keys"] = rows(4000, seed=1)["random_keys"]
    before = features | drawn(features, replace(given, fresh=True))  # different masks in every row
    features |= before | {"random_keys": rows(4000, seed=2)["random_keys"]}
    found = drawn(features, given, 1)
    kept = found["masked_lm_weights"] > 0
    assert (kept.sum(axis=1) == 4).all() and (before["masked_lm_weights"].sum(axis=1) == 8).all()
    ids = found["masked_lm_ids"][kept]
    now = np.take_along_axis(found["input_ids"], found["masked_lm_positions"], axis=1)[kept]
    other = ids != 7
    for share, hits in ((0.8, now[other] == 4), (0.1, now[other] == 7), (0.1, now[other] == ids[other])):
        assert abs(hits.mean() - share) < 4.5 * (share * (1 - share) / other.sum()) ** 0.5
    slots = (before["masked_lm_positions"][:, :, None] == np.where(kept, found["masked_lm_positions"], -1)[:, None, :]).any(
        axis=2
    )
    assert abs(slots.mean(axis=0) - 0.5).max() < 4.5 * (0.25 / 4000) ** 0.5


def test_draws_are_those_of_the_formula() -> None:
    """Also across the wrap-around of int32; and 0, 1, … 7 in the highest bits are equally frequent."""
    keys = np.array([[0, 0], [2**31 - 1, -(2**31)], [-5, 77]], np.int32)
    counters = np.array([[0, 1, 2**31 - 1, -1]], np.int32)
    found = ops.convert_to_numpy(draw(ops.convert_to_tensor(keys), ops.convert_to_tensor(counters), 3))
    assert found.tolist() == [[mask_reference.lot(key, int(counter), 3) for counter in counters[0]] for key in keys]
    many = ops.convert_to_numpy(draw(ops.convert_to_tensor(keys[1:2]), ops.arange(80_000, dtype="int32")[None], 0))
    counts = np.bincount(many[0] >> 28, minlength=8)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 24.3  # chi-square, 7 degrees of freedom, one in a thousand


RECORD = """
import sys, numpy as np
from tests.model import test_masking
jit = __import__("jax").jit
test_masking.draw_masks, draw = lambda batch, *given: jit(lambda batch: draw(batch, *given))(batch), test_masking.draw_masks
for fresh, rate in ((True, 0), (False, 1)):
    given = test_masking.rules(sys.argv[2], fresh, quotas=test_masking.quotas(0.25, 0.125))
    np.savez(f"{sys.argv[1]}-{fresh}.npz", **test_masking.drawn(dict(np.load(sys.argv[1] + ".npz")), given, rate))
"""


@pytest.mark.parametrize("policy", mostly_slow(POLICIES, "whole_word"))
def test_equal_on_jax(policy: str, tmp_path: Path) -> None:
    """New masks, and a part of those in the shards."""
    features = stored(policy)
    np.savez(tmp_path / "found.npz", **features)
    run("jax", RECORD, str(tmp_path / "found"), policy)
    for fresh, rate in ((True, 0), (False, 1)):
        given = rules(policy, fresh, quotas=quotas(0.25, 0.125))
        assert_equal(dict(np.load(tmp_path / f"found-{fresh}.npz")), drawn(features, given, rate))
