"""Sums against numpy, and sums of sums."""

import numpy as np
import pytest
from keras import ops

from clozemill.model.losses import SUMS, sums

RNG = np.random.default_rng(3)
OUTPUTS = {
    "masked_lm_logits": RNG.normal(0, 3, (6, 4, 9)).astype("float32"),
    "next_sentence_logits": RNG.normal(0, 3, (6, 2)).astype("float32"),
}
TARGETS = {
    "masked_lm_ids": RNG.integers(0, 9, (6, 4)),
    "masked_lm_weights": RNG.integers(0, 2, (6, 4)).astype("float32"),
    "next_sentence_labels": RNG.integers(0, 2, 6),
    "example_weights": np.array([1, 1, 0, 1, 0, 1], "float32"),
}


def plain(outputs: dict, targets: dict) -> dict[str, float]:
    return {name: float(value) for name, value in sums(outputs, targets).items()}


def test_literal_values() -> None:
    """Odds of 3 to 1 and 1 to 3 for the correct word, then a word of weight 0; even odds for the sentence."""
    logits = np.log(np.array([[[3.0, 1.0], [1.0, 3.0], [9.0, 1.0]]], "float32"))
    targets = {
        "masked_lm_ids": np.array([[0, 0, 1]]),
        "masked_lm_weights": np.array([[1.0, 1.0, 0.0]]),
        "next_sentence_labels": np.array([1]),
        "example_weights": np.array([1.0]),
    }
    found = plain({"masked_lm_logits": logits, "next_sentence_logits": np.zeros((1, 2), "float32")}, targets)
    expected = [np.log(4 / 3) + np.log(4), 2, 1, np.log(2), 1, 0, *[0] * 6]  # the last six: neither a task nor replaced tokens
    assert tuple(found) == SUMS
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)


def test_matches_numpy() -> None:
    expected = []
    for name, labels, weights in (
        ("masked_lm_logits", TARGETS["masked_lm_ids"], TARGETS["masked_lm_weights"]),
        ("next_sentence_logits", TARGETS["next_sentence_labels"], TARGETS["example_weights"]),
    ):
        logits = OUTPUTS[name].astype("float64")
        chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        losses = np.log(np.exp(logits).sum(axis=-1)) - chosen
        expected += [(losses * weights).sum(), weights.sum(), ((logits.argmax(axis=-1) == labels) * weights).sum()]
    assert 0 < expected[2] < expected[1] and 0 < expected[5] < expected[4]
    assert list(plain(OUTPUTS, TARGETS).values()) == pytest.approx([*expected, *[0] * 6], rel=1e-6)


def test_sums_of_parts_add_up_to_the_batch() -> None:
    parts = [
        plain(
            {name: values[part] for name, values in OUTPUTS.items()}, {name: values[part] for name, values in TARGETS.items()}
        )
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    whole = plain(OUTPUTS, TARGETS)
    assert {name: sum(part[name] for part in parts) for name in SUMS} == pytest.approx(whole, rel=1e-6)


def test_without_the_next_sentence_head() -> None:
    found = plain({"masked_lm_logits": OUTPUTS["masked_lm_logits"]}, TARGETS)
    assert list(found.values())[:3] == list(plain(OUTPUTS, TARGETS).values())[:3]
    assert list(found.values())[3:] == [0] * 9


def test_elements_of_weight_0_do_not_count() -> None:
    """Not even with extreme logits."""
    outputs = {name: values.copy() for name, values in OUTPUTS.items()}
    outputs["masked_lm_logits"][TARGETS["masked_lm_weights"] == 0] *= -1e4
    outputs["next_sentence_logits"][TARGETS["example_weights"] == 0] *= -1e4
    assert plain(outputs, TARGETS) == plain(OUTPUTS, TARGETS)


def test_large_logits_stay_finite() -> None:
    outputs = {name: values * 1e6 for name, values in OUTPUTS.items()}
    assert all(np.isfinite(value) for value in plain(outputs, TARGETS).values())


def test_results_are_float32_scalars() -> None:
    found = sums(OUTPUTS, {name: ops.cast(values, "int64") for name, values in TARGETS.items()})
    assert {(ops.convert_to_numpy(value).dtype, value.shape) for value in found.values()} == {(np.dtype("float32"), ())}
