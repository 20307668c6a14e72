"""Compute the floating-point operations of a training step by formula, for model-FLOPs utilisation."""

from clozemill.model.config import EncoderConfig, generator_config

_FORWARD_AND_BACKWARD = 3  # the gradient of a product is two products of the same size


def step_flops_per_row(
    config: EncoderConfig, length: int, predictions: int, causal: bool, examples: int, generator_size: float
) -> int:
    """Return the FLOPs per row of an objective: of replaced-token detection with a `generator_size`, without one of others."""
    if generator_size:
        return detection_flops_per_row(config, length, predictions, generator_size)
    return flops_per_row(config, length, predictions, causal, examples)


def flops_per_row(config: EncoderConfig, length: int, predictions: int, causal: bool = False, examples: int = 1) -> int:
    """Return the FLOPs of the matrix products for one row of a batch, forward and backward, without recomputation.

    The last layer counts only each [CLS] and the masked positions, as in `PretrainingModel`, unless the objective is causal,
    which predicts every position. Attention counts as it is computed: in full, also between packed examples, or, in local
    layers, with the keys of three chunks.

    Args:
        config: sizes of the encoder.
        length: tokens per row, including padding.
        predictions: masked positions per row.
        examples: examples per row, at most; more than 1 if they are packed.
    """
    hidden, last = config.hidden_size, config.num_hidden_layers - 1
    kept = length if causal else predictions + examples
    products = sum(_layer_products(config, layer, length, length) for layer in range(last))
    products += _layer_products(config, last, length, kept)
    if not causal:
        products += examples * hidden * hidden  # the pooler
        kept = predictions
    products += kept * hidden * (hidden + config.vocab_size)  # transform and logits
    return 2 * _FORWARD_AND_BACKWARD * products  # a multiplication and an addition each


def _layer_products(config: EncoderConfig, layer: int, length: int, queries: int) -> int:
    """Return the multiplications in the matrix products of a layer that computes `queries` of `length` positions."""
    hidden, inner = config.hidden_size, config.intermediate_size
    products = 2 * length * hidden * hidden  # keys and values
    products += 2 * queries * hidden * hidden  # queries and output
    keys = config.keys_per_query(layer, length, queries == length)
    products += 2 * queries * keys * hidden  # scores, and their product with the values
    return products + (3 if config.design.gated else 2) * queries * hidden * inner  # the dense layers


def task_flops_per_row(config: EncoderConfig, length: int, layers: int, frozen: bool = False) -> int:
    """Return the FLOPs per row of fine-tuning, forward and backward, without recomputation and without the task's head.

    All positions count in the last layer too, as `TaskModel` computes them.

    Args:
        config: sizes of the encoder.
        length: tokens per row.
        layers: number of layers up to the last one that the head sees.
        frozen: whether the encoder isn't trained: it has no backward pass then.
    """
    products = sum(_layer_products(config, layer, length, length) for layer in range(layers))
    products += config.hidden_size * config.hidden_size  # the pooler
    return 2 * (1 if frozen else _FORWARD_AND_BACKWARD) * products


def detection_flops_per_row(config: EncoderConfig, length: int, predictions: int, generator_size: float) -> int:
    """Return `flops_per_row` of replaced-token detection: of the generator, and of the encoder over all positions.

    generator_size: width of the generator, as a fraction of the encoder's.
    """
    generator, hidden, words = generator_config(config, generator_size), config.hidden_size, config.vocab_size
    narrow = generator.hidden_size
    own = flops_per_row(generator, length, predictions, examples=0)
    # Its embeddings, and the head's product with them, are as wide as the encoder.
    wider = length * hidden * narrow + predictions * ((hidden - narrow) * (narrow + words))
    encoder = flops_per_row(config, length, 0, causal=True)
    head = length * hidden * (1 - words)  # one logit per token instead of one per entry of the vocabulary
    return own + encoder + 2 * _FORWARD_AND_BACKWARD * (wider + head)
