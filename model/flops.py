"""How many floating-point operations a training step needs, by formula: what model-FLOPs utilisation is counted against."""

from clozemill.model.config import EncoderConfig

_FORWARD_AND_BACKWARD = 3  # a product's gradient is two products of the same size


def flops_per_example(config: EncoderConfig, length: int, predictions: int, causal: bool = False) -> int:
    """FLOPs of the matrix products for one example, forward and backward, recomputation not counted.

    Only what the model needs is counted: the last layer works on [CLS] and the masked positions alone, as it does in
    `PretrainingModel`, unless the objective is causal, which predicts every position.

    Args:
        config: sizes. length: tokens per example, padding included. predictions: masked positions per example.
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
