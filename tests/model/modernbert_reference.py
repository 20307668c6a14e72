"""ModernBERT in plain numpy, one sequence and one head at a time: what transformers' ModernBertForMaskedLM computes."""

import math

import numpy as np

from clozemill.model.config import EncoderConfig


def norm(x: np.ndarray, gamma: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * gamma


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def turned(x_SD: np.ndarray, theta: float) -> np.ndarray:
    """Each pair (d, d + D / 2) is a complex number, multiplied by e^(i position theta^(-2 d / D))."""
    half = x_SD.shape[1] // 2
    angle = np.arange(len(x_SD))[:, None] * theta ** (-np.arange(half) / half)
    pairs = (x_SD[:, :half] + 1j * x_SD[:, half:]) * np.exp(1j * angle)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def encoder(config: EncoderConfig, weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Return the final hidden states [S, H] of one sequence without padding, float64."""
    own = {name: value.astype(np.float64) for name, value in weights.items()}
    eps, size = config.layer_norm_eps, config.head_size
    x = norm(own["encoder/embeddings/word_embeddings"][ids], own["encoder/embeddings/layer_norm/gamma"], eps)
    away = abs(np.arange(len(ids))[:, None] - np.arange(len(ids)))
    for layer in range(config.num_hidden_layers):
        path, everywhere = f"encoder/layer_{layer}", layer % config.global_attn_every_n_layers == 0
        theta = config.global_rope_theta if everywhere else config.local_rope_theta
        seen = norm(x, own[f"{path}/attention_layer_norm/gamma"], eps) if layer else x
        query, key, value = (seen @ own[f"{path}/attention/{name}/kernel"] for name in ("query", "key", "value"))
        mixed = []
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = turned(query[:, part], theta) @ turned(key[:, part], theta).T / math.sqrt(size)
            scores[(away > config.local_attention // 2) & (not everywhere)] = -np.inf
            weight = np.exp(scores - scores.max(1, keepdims=True))
            mixed.append(weight / weight.sum(1, keepdims=True) @ value[:, part])
        x = x + np.concatenate(mixed, axis=1) @ own[f"{path}/attention/output_dense/kernel"]
        seen = norm(x, own[f"{path}/output_layer_norm/gamma"], eps)
        inner = gelu(seen @ own[f"{path}/intermediate/kernel"]) * (seen @ own[f"{path}/gate/kernel"])
        x = x + inner @ own[f"{path}/output/kernel"]
    return norm(x, own["encoder/final_layer_norm/gamma"], eps)


def masked_lm(config: EncoderConfig, weights: dict[str, np.ndarray], hidden: np.ndarray) -> np.ndarray:
    """Return the logits [S, V] of hidden states."""
    transformed = gelu(hidden @ weights["masked_lm/transform/kernel"])
    transformed = norm(transformed, weights["masked_lm/layer_norm/gamma"], config.layer_norm_eps)
    return transformed @ weights["encoder/embeddings/word_embeddings"].T + weights["masked_lm/output_bias"]
