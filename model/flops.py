"""Compute the floating-point operations of a training step by formula, for model-FLOPs utilisation."""

from clozemill.model.config import EncoderConfig

_FORWARD_AND_BACKWARD = 3  # the gradient of a product is two products of the same size


def flops_per_example(config: EncoderConfig, length: int, predictions: int, causal: bool = False) -> int:
    """Return the FLOPs of the matrix products for one example, forward and backward, without recomputation.

    The last layer counts only [CLS] and the masked positions, as in `PretrainingModel`, unless the objective is causal, which
    predicts every position.

    Args:
        config: sizes of the encoder.
        length: tokens per example, including padding.
        predictions: masked positions per example.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    kept = length if causal else predictions + 1
    products = 0
    for layer in range(config.num_hidden_layers):
        queries = kept if layer == config.num_hidden_layers - 1 else length
        products += 2 * length * hidden * hidden  # keys and values
        products += 2 * queries * hidden * hidden  # queries and output
        products += 2 * queries * length * hidden  # scores, and their product with the values
        products += 2 * queries * hidden * inner  # the two dense layers
    if not causal:
        products += hidden * hidden  # the pooler
        kept = predictions
    products += kept * hidden * (hidden + config.vocab_size)  # transform and logits
    return 2 * _FORWARD_AND_BACKWARD * products  # a multiplication and an addition each
