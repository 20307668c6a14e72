"""Estimates the memory of a training step by formula: weights, gradients, moments and activations."""

from dataclasses import replace

from clozemill.model.config import EncoderConfig, generator_config

_FLOAT = 4  # bytes: weights, gradients and moments are float32 whatever the precision
_COPIES = 2  # weights and gradients


def parameters(config: EncoderConfig) -> int:
    """Return the number of weights of an encoder with its masked-LM head and pooler; the next-sentence head adds 2 H + 2."""
    hidden, inner, design = config.hidden_size, config.intermediate_size, config.design
    bias = int(design.biases)
    norm = (1 + bias) * hidden
    tables = config.vocab_size + (0 if design.rotary else config.max_position_embeddings) + config.type_vocab_size
    attention = 4 * (hidden + bias) * hidden
    up = (2 if design.gated else 1) * (hidden + bias) * inner
    layer = attention + up + (inner + bias) * hidden + 2 * norm
    transform = (hidden + bias) * hidden + norm
    pooler = transform if design.transforms_tokens else (hidden + bias) * hidden
    norms = norm  # of the embeddings; pre-norm: the first layer's is missing, and the final one added
    return tables * hidden + norms + config.num_hidden_layers * layer + pooler + transform + config.vocab_size


def layer_matrices(config: EncoderConfig) -> int:
    """Return the number of weights in the matrices of the layers, which some optimizers treat apart."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * hidden * hidden + (3 if config.design.gated else 2) * hidden * inner)


def state_bytes(config: EncoderConfig, matrix_moments: float = 2, other_moments: float = 2, generator_size: float = 0.0) -> int:
    """Return the bytes of weights, gradients and moments, which don't depend on the batch.

    Args:
        matrix_moments: moments that the optimizer has for each weight in a matrix of the layers; a part of one, if devices
            divide them.
        other_moments: those that it has for each other weight.
        generator_size: for replaced-token detection, width of the generator as a fraction of the encoder's; 0 for others.
    """
    every, matrices = parameters(config), layer_matrices(config)
    if generator_size:
        every = detection_parameters(config, generator_size)
        matrices += layer_matrices(generator_config(config, generator_size))
    return int(_FLOAT * (_COPIES * every + matrix_moments * matrices + other_moments * (every - matrices)))


def activation_bytes(
    config: EncoderConfig,
    length: int,
    predictions: int,
    half: bool = False,
    causal: bool = False,
    examples: int = 1,
    kernel: bool = False,
) -> int:
    """Return the bytes per row that the forward pass keeps for the backward pass, plus what is temporary at the peak.

    The last layer counts only each [CLS] and the masked positions, as in `PretrainingModel`, unless the objective is causal.

    Args:
        config: sizes of the encoder.
        length: tokens per row, including padding.
        predictions: masked positions per row.
        half: bfloat16 activations. Logits and softmaxes stay float32.
        causal: whether every position is predicted.
        examples: examples per row, at most; more than 1 if they are packed.
        kernel: whether attention of all positions, without dropout, is computed by a kernel, which stores no scores.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    kept = length if causal else predictions + examples
    dropout = bool(config.hidden_dropout_prob), bool(config.attention_probs_dropout_prob)
    total, largest = 0, 0
    for layer in range(config.num_hidden_layers):
        queries = kept if layer == config.num_hidden_layers - 1 else length
        # Keys, values, and their inputs; queries, context, two sums, two norms and their inputs; dropout keeps a mask.
        wide = 3 * length * hidden + queries * hidden * (8 + 2 * dropout[0])
        wide += queries * inner * (_GELU + 2 * config.design.gated)
        keys = config.keys_per_query(layer, length, queries == length)
        wide += 4 * length * hidden * config.design.rotary  # turned queries and keys, and their halves
        stored = not kernel or dropout[1] or queries < length
        scores = queries * keys * config.num_attention_heads * (2 + 2 * dropout[1]) * stored
        total += length * hidden if config.remat else wide + scores
        largest = max(largest, wide + scores)
    total += largest  # the gradients of a layer, or its recomputed activations
    total += (3 + dropout[0]) * length * hidden  # the embeddings
    asked = kept if causal else predictions
    logits = asked * (_LOGITS * config.vocab_size * _FLOAT + 6 * hidden * _FLOAT)
    return round(total * (2 if half else _FLOAT)) + logits


def detection_parameters(config: EncoderConfig, generator_size: float) -> int:
    """Return `parameters` with the heads of replaced-token detection and its generator, instead of the masked-LM head."""
    generator, hidden = generator_config(config, generator_size), config.hidden_size
    narrow, one, two = generator.hidden_size, *(parameters(replace(generator, num_hidden_layers=n)) for n in (1, 2))
    layers = config.num_hidden_layers * (two - one)
    # A projection, and the first product of the generator's head, which is as wide as the encoder after it; two logits' worth
    # of weights make the other head.
    bias = int(config.design.biases)
    return parameters(config) + layers + (hidden + bias) * narrow + narrow * hidden + 2 * hidden + 1


def detection_bytes(
    config: EncoderConfig, length: int, predictions: int, generator_size: float, half: bool = False, kernel: bool = False
) -> int:
    """Return `activation_bytes` of replaced-token detection: of the generator, of its samples, and of the encoder."""
    generator = generator_config(config, generator_size)
    own = activation_bytes(generator, length, predictions, half, examples=0, kernel=kernel)
    samples = 2 * _FLOAT * predictions * config.vocab_size  # probabilities and their sums
    return own + samples + activation_bytes(replace(config, vocab_size=1), length, 0, half, causal=True, kernel=kernel)


_GELU = 4  # arrays of an inner layer: before and after the activation, and two terms of its tanh form
_LOGITS = 3  # logits, their softmax, and a temporary
