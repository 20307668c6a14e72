"""Compute the floating-point operations of a training step by formula, for model-FLOPs utilisation."""

from clozemill.model.config import EncoderConfig

_FORWARD_AND_BACKWARD = 3  # the gradient of a product is two products of the same size


def flops_per_row(config: EncoderConfig, length: int, predictions: int, causal: bool = False, examples: int = 1) -> int:
    """Return the FLOPs of the matrix products for one row of a batch, forward and backward, without recomputation.

    The last layer counts only each [CLS] and the masked positions, as in `PretrainingModel`, unless the objective is causal,
    which predicts every position. Attention counts in full, as it is computed, also between packed examples.

    Args:
        config: sizes of the encoder.
        length: tokens per row, including padding.
        predictions: masked positions per row.
        examples: examples per row, at most; more than 1 if they are packed.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    kept = length if causal else predictions + examples
    products = 0
    for layer in range(config.num_hidden_layers):
        queries = kept if layer == config.num_hidden_layers - 1 else length
        products += 2 * length * hidden * hidden  # keys and values
        products += 2 * queries * hidden * hidden  # queries and output
        products += 2 * queries * length * hidden  # scores, and their product with the values
        products += 2 * queries * hidden * inner  # the two dense layers
    if not causal:
        products += examples * hidden * hidden  # the pooler
        kept = predictions
    products += kept * hidden * (hidden + config.vocab_size)  # transform and logits
    return 2 * _FORWARD_AND_BACKWARD * products  # a multiplication and an addition each
