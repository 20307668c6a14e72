"""The function that computes attention can be replaced; it gets what the queries see, in numbers besides the mask."""

import numpy as np
import pytest
from keras import ops

from clozemill.model.attention import Reach, attention_kernel, plain_attention
from clozemill.model.config import EncoderConfig
from clozemill.model.encoder import Encoder
from tests.model.small import MODERN, SMALL, apart, features, scatter

EXAMPLES = features(length=12)
GIVEN = tuple(EXAMPLES[name] for name in ("input_ids", "input_mask", "segment_ids"))
IDS = np.array([[1] * 5 + [2] * 6 + [0]] * 4, "int32")
BEGINS = np.array([[0, 5]] * 4, "int32")


def reaches(config: EncoderConfig, **options) -> list[Reach]:
    """Return what the layers of an encoder ask a kernel for, and check that outputs are those without one."""
    encoder, found = scatter(Encoder(config)), []

    def kernel(query, key, value, view, scale):
        assert scale == config.head_size**-0.5 and key.shape[1] == 12
        found.append(view.reach)
        return plain_attention(query, key, value, view, scale)

    with attention_kernel(kernel):
        outputs = encoder(*GIVEN, **options)["sequence_output"]
    count = len(found)
    assert apart(outputs, encoder(*GIVEN, **options)["sequence_output"]) == 0 and len(found) == count
    return found


def test_a_kernel_gets_the_input_mask() -> None:
    found = reaches(SMALL)
    assert len(found) == SMALL.num_hidden_layers == 2
    for reach in found:
        assert (ops.convert_to_numpy(reach.groups) == EXAMPLES["input_mask"]).all()
        assert (reach.packed, reach.causal, reach.window, reach.complete) == (False, False, 0, True)


def test_a_kernel_gets_the_numbers_of_packed_examples() -> None:
    found = reaches(MODERN, example_ids=IDS, cls_positions=BEGINS, causal=True, positions=np.array([[0, 5, 3]] * 4, "int32"))
    assert all((ops.convert_to_numpy(reach.groups) == IDS).all() and reach.packed and reach.causal for reach in found)
    assert [reach.window for reach in found] == [0, 2, 0, 2, 0]
    assert [reach.complete for reach in found] == [True] * 4 + [False]  # the last layer computes the positions alone


@pytest.mark.parametrize(("rate", "count"), [(0.1, 0), (0.0, 2)])
def test_dropout_is_left_to_the_plain_form(rate: float, count: int) -> None:
    config = EncoderConfig(**SMALL.to_dict() | {"attention_probs_dropout_prob": rate})
    assert len(reaches(config, seed=np.array([3, 5], "int32"))) == count
