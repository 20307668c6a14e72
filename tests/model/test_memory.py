"""The number of weights against the model itself, and how the estimate of activations scales."""

import math
from dataclasses import replace

import pytest

from clozemill.model import memory
from clozemill.model.config import preset
from clozemill.model.pretraining_model import PretrainingModel


def test_the_number_of_weights_is_the_model_s() -> None:
    """But for the next-sentence head."""
    encoder = preset("tiny", vocab_size=50, max_position_embeddings=12)
    model = PretrainingModel(encoder, "mlm+nsp")
    model.build()
    count = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert memory.parameters(encoder) == count - 2 * 128 - 2


@pytest.mark.parametrize(("name", "pooler"), [("mini", 256 * 256 + 256), ("modern-mini", 256 * 256 + 256)])
def test_the_number_of_weights_of_replaced_token_detection(name: str, pooler: int) -> None:
    """But for the pooler, which isn't trained; activations are those of both encoders, and logits at masked positions alone."""
    encoder = preset(name, vocab_size=50, max_position_embeddings=12)
    model = PretrainingModel(encoder, "rtd", generator_size=0.5)
    model.build()
    count = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert memory.detection_parameters(encoder, 0.5) == count + pooler
    assert memory.state_bytes(encoder, generator_size=0.5) == 16 * memory.detection_parameters(encoder, 0.5)
    base = preset("base")
    alone, both = memory.activation_bytes(base, 128, 20), memory.detection_bytes(base, 128, 20, 0.25)
    assert alone < both < memory.activation_bytes(base, 128, 20, causal=True) + alone


def test_the_size_of_bert_base() -> None:
    """110 M weights (Devlin et al. 2018), with moments and gradients 16 bytes each."""
    assert memory.parameters(preset("base")) == pytest.approx(110e6, rel=0.01)
    assert memory.state_bytes(preset("base")) == 16 * memory.parameters(preset("base"))


def test_optimizers_with_fewer_moments() -> None:
    """Muon has one moment instead of two for the weights in the layers' matrices: 12 x (4 x 768^2 + 2 x 768 x 3072)."""
    assert memory.layer_matrices(preset("base")) == 84_934_656
    both, muon = memory.state_bytes(preset("base")), memory.state_bytes(preset("base"), matrix_moments=1)
    assert both - muon == 4 * 84_934_656
    model = PretrainingModel(preset("tiny", vocab_size=50, max_position_embeddings=12), "mlm+nsp")
    model.build()
    found = [math.prod(v.shape) for v in model.trainable_variables if "/layer_" in v.path and v.path.endswith("/kernel")]
    assert memory.layer_matrices(model.config) == sum(found)


def test_activations_scale() -> None:
    """Half precision halves all but the logits; remat keeps a layer's input alone; causal prediction has logits everywhere."""
    encoder = preset("base")
    full = memory.activation_bytes(encoder, 128, 20)
    assert memory.activation_bytes(encoder, 128, 20, half=True) < 0.6 * full
    assert memory.activation_bytes(replace(encoder, remat=True), 128, 20) < 0.25 * full
    assert memory.activation_bytes(encoder, 128, 20, causal=True) > full + 100 * 30522 * 4
    assert memory.activation_bytes(encoder, 512, 77) > 4 * full  # attention is quadratic


def test_a_kernel_stores_no_scores() -> None:
    """Scores and their softmax, [S, S] per head, aren't kept in the first of two layers; nor are their gradients.

    The last layer, of a few positions, and dropout need the plain form.
    """
    encoder = preset("base", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_hidden_layers=2)
    plain, fused = (memory.activation_bytes(encoder, 512, 77, half=True, kernel=kernel) for kernel in (False, True))
    assert plain - fused == 2 * 2 * (2 * 12 * 512 * 512)
    dropout = replace(encoder, attention_probs_dropout_prob=0.1)
    plain, fused = (memory.activation_bytes(dropout, 512, 77, half=True, kernel=kernel) for kernel in (False, True))
    assert plain == fused


def test_activations_of_packed_rows() -> None:
    """Each [CLS] is one more query of the last layer, like a masked position, but without logits."""
    encoder = preset("base")
    one, nine = (memory.activation_bytes(encoder, 512, 80, examples=examples) for examples in (1, 9))
    logits = memory.activation_bytes(encoder, 512, 88) - one
    assert 0 < nine - one < logits - 8 * 30522 * 4
    assert memory.activation_bytes(encoder, 512, 80, causal=True, examples=9) == memory.activation_bytes(
        encoder, 512, 80, causal=True
    )
