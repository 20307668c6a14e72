"""Both heads against numpy."""

from dataclasses import replace
from math import erf

import keras
import numpy as np
import pytest

from clozemill.model.heads import MaskedLMHead, NextSentenceHead
from tests.model.small import SMALL, apart, scatter

ACTIVATIONS = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: 0.5 * x * (1 + np.vectorize(erf)(x / 2**0.5)),
    "relu": lambda x: np.maximum(x, 0),
}
RNG = np.random.default_rng(5)
HIDDEN, WORDS = RNG.normal(size=(3, 4, 16)).astype("float32"), RNG.normal(0, 0.25, (50, 16)).astype("float32")


def weights(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {weight.path.split("/", 1)[1]: weight.numpy().astype("float64") for weight in layer.weights}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_masked_tokens(act: str) -> None:
    head = scatter(MaskedLMHead(replace(SMALL, hidden_act=act)))
    found = weights(head)
    assert {name: values.shape for name, values in found.items()} == {
        "transform/kernel": (16, 16),
        "transform/bias": (16,),
        "layer_norm/gamma": (16,),
        "layer_norm/beta": (16,),
        "output_bias": (50,),
    }
    inner = ACTIVATIONS[act](HIDDEN @ found["transform/kernel"] + found["transform/bias"])
    centred = inner - inner.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    expected = (normed * found["layer_norm/gamma"] + found["layer_norm/beta"]) @ WORDS.T + found["output_bias"]
    assert abs(expected).max() > 1
    assert apart(head(HIDDEN, WORDS), expected) < 1e-5


def test_next_sentence() -> None:
    head = scatter(NextSentenceHead(SMALL))
    found = weights(head)
    assert {name: values.shape for name, values in found.items()} == {"dense/kernel": (16, 2), "dense/bias": (2,)}
    assert apart(head(HIDDEN[:, 0]), HIDDEN[:, 0] @ found["dense/kernel"] + found["dense/bias"]) < 1e-5


def test_logits_are_float32_in_any_precision() -> None:
    words, sentences = MaskedLMHead(SMALL, dtype="mixed_bfloat16"), NextSentenceHead(SMALL, dtype="mixed_bfloat16")
    masked_lm, next_sentence = scatter(words)(HIDDEN, WORDS), scatter(sentences)(HIDDEN[:, 0])
    assert {keras.backend.standardize_dtype(logits.dtype) for logits in (masked_lm, next_sentence)} == {"float32"}
    assert 0 < apart(masked_lm, scatter(MaskedLMHead(SMALL))(HIDDEN, WORDS)) < 0.1
    assert 0 < apart(next_sentence, scatter(NextSentenceHead(SMALL))(HIDDEN[:, 0])) < 0.1


def test_biases_start_at_0() -> None:
    head = MaskedLMHead(SMALL)
    head.build()
    assert (head.output_bias.numpy() == 0).all() and (head.transform.bias.numpy() == 0).all()
