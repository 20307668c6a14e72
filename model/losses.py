"""Sums of losses and of right answers, as pure functions on arrays.

They are sums, not means, since a mean over replicas or micro-batches that hold different numbers of masked tokens is none
over the batch: whoever adds them up divides by the weights' total. B batch, P predictions, V vocabulary, C classes.
"""

from keras import ops

SUMS = (
    "masked_lm_loss",
    "masked_lm_weight",
    "masked_lm_correct",
    "next_sentence_loss",
    "next_sentence_weight",
    "next_sentence_correct",
)


def _weighted(logits, labels, weights):
    """Sums of cross entropy (nats), weights and hits: logits [..., C], labels int [...], weights float [...]."""
    labels = ops.cast(labels, "int32")
    weights = ops.cast(weights, "float32")
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    hits = ops.cast(ops.cast(ops.argmax(logits, axis=-1), "int32") == labels, "float32")
    return ops.sum(losses * weights), ops.sum(weights), ops.sum(hits * weights)


def sums(outputs: dict, targets: dict) -> dict:
    """The losses' sums of a batch.

    Args:
        outputs: `masked_lm_logits` [B, P, V] and, if the objective has it, `next_sentence_logits` [B, 2].
        targets: `masked_lm_ids` [B, P], `masked_lm_weights` [B, P], `next_sentence_labels` [B], `example_weights` [B].

    Returns a float32 scalar for every name of SUMS; those of an absent head are 0.
    """
    found = [*_weighted(outputs["masked_lm_logits"], targets["masked_lm_ids"], targets["masked_lm_weights"])]
    if "next_sentence_logits" in outputs:
        labels, weights = targets["next_sentence_labels"], targets["example_weights"]
        found += _weighted(outputs["next_sentence_logits"], labels, weights)
    else:
        found += [ops.zeros((), "float32")] * 3
    return dict(zip(SUMS, found, strict=True))
