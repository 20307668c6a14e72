"""Features truncated like google-research/bert, and differences between outputs."""

import numpy as np
import pytest

from clozemill.model.export.base import FORMATS, answers, bounds, furthest
from clozemill.model.inputs import assemble
from tests.model import sources


def test_features_values() -> None:
    found = assemble([np.array([7, 8]), np.array([], int), np.array([7])], [np.array([9]), [], []], (0, 2, 3), 7)
    assert {name: value.tolist() for name, value in found.items()} == {
        "input_ids": [[2, 7, 8, 3, 9, 3, 0], [2, 3, 0, 0, 0, 0, 0], [2, 7, 3, 0, 0, 0, 0]],
        "input_mask": [[1, 1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]],
        "segment_ids": [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]],
    }
    assert {value.dtype for value in found.values()} == {np.dtype("int32")}


@pytest.mark.parametrize(
    ("first", "second", "length", "kept"),
    [(9, 0, 6, (4, 0)), (4, 4, 9, (3, 3)), (4, 4, 10, (4, 3)), (9, 2, 8, (3, 2)), (1, 9, 8, (1, 4)), (2, 3, 8, (2, 3))],
)
def test_truncation_shortens_the_longer_text_or_the_second(first: int, second: int, length: int, kept: tuple) -> None:
    found = assemble([np.arange(10, 10 + first)], [np.arange(30, 30 + second)], (0, 2, 3), length)["input_ids"][0]
    tail = [*range(30, 30 + kept[1]), 3] if second else []
    assert found[found > 0].tolist() == [2, *range(10, 10 + kept[0]), 3, *tail]


def test_answers_match_the_model() -> None:
    for name, more in sources.OUTPUTS.items():
        source, features = sources.source(name), sources.features()
        found = answers(source, features)
        assert found.keys() == {"sequence_output", "pooled_output", *more}, name
        assert found["sequence_output"].shape == (len(sources.TEXTS), sources.LENGTH, 16)
        if "masked_lm_logits" in more:
            assert found["masked_lm_logits"].shape == (len(sources.TEXTS), sources.LENGTH, len(sources.TOKENS))


MASK = np.array([[1, 1, 0], [1, 0, 0]])


def test_differences() -> None:
    one = {"sequence_output": np.zeros((2, 3, 2)), "pooled_output": np.zeros((2, 2))}
    other = {name: value.copy() for name, value in one.items()}
    other["sequence_output"][0, 2] = 9  # padding
    assert furthest(one, other, MASK) == {"sequence_output": 0, "pooled_output": 0}
    other["sequence_output"][1, 0, 1] = -0.5
    other["pooled_output"][1, 1] = 0.25
    assert furthest(one, other, MASK) == {"sequence_output": 0.5, "pooled_output": 0.25}
    assert furthest(one, {"sequence_output": other["sequence_output"][:, :2]}, MASK) == {"sequence_output": 0.5}
    for bad in (np.zeros((2, 1, 2)), np.zeros((1, 3, 2)), np.zeros((2, 3, 1)), np.zeros((2, 3)), np.full((2, 3, 2), np.nan)):
        assert furthest(one, {"sequence_output": bad}, MASK) == {"sequence_output": np.inf}
    assert furthest(one, {"pooled_output": np.zeros((2, 3))}, MASK) == {"pooled_output": np.inf}


@pytest.mark.parametrize(("found", "sentence"), [({}, "output nothing"), ({"logits": np.zeros(2)}, "output logits")])
def test_unexpected_answers_are_rejected(found: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        furthest({"pooled_output": np.zeros((2, 2))}, found, MASK)


@pytest.mark.parametrize("name", ["hf", "keras"])
def test_a_format_delegates_to_its_module(name: str) -> None:
    module = FORMATS[name].module()
    assert callable(module.write) and callable(module.outputs) and isinstance(FORMATS[name].checked_with(), str)


def test_bounds_grow_with_the_values_beyond_1() -> None:
    assert bounds({"small": np.array([0.5, -0.2]), "large": np.array([[3.0, -20.0]])}) == {
        "small": 1e-5,
        "large": pytest.approx(2e-4),
    }
