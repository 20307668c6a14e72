"""Sums of losses and of correct answers, as pure functions on arrays.

They are sums, not means: replicas and micro-batches have different numbers of masked tokens, so the mean of their means isn't
the mean over the batch. The caller divides the total by the total weight. B batch, P predictions, V vocabulary, C classes.
"""

from keras import ops

LOSSES = ("masked_lm", "next_sentence", "task", "replaced")  # all losses of all models; "task": that of fine-tuning
SCALES = {"replaced": 50.0}  # of losses in their sum; others count once (Clark et al. 2020, for replaced tokens)
SUMS = tuple(f"{name}_{what}" for name in LOSSES for what in ("loss", "weight", "correct"))


def _cross_entropy(logits, labels):
    """Return the cross entropy (nats) of every row of logits, float32 [..., C], for labels, int32 [...].

    On a CPU, TensorFlow's kernel and Keras's argmax, which handles -0.0, would take a tenth of a small model's step.
    """

    @ops.custom_gradient
    def losses(logits):
        probs, highest = ops.softmax(logits), ops.max(logits, axis=-1)
        # The highest probability is exp(highest - logsumexp), which never underflows.
        found = highest - ops.log(ops.max(probs, axis=-1)) - _chosen(logits, labels)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return (probs - ops.one_hot(labels, ops.shape(logits)[-1], dtype=probs.dtype)) * ops.expand_dims(upstream, -1)

        return found, gradient

    return losses(logits)


def _chosen(logits, labels):
    """Return the logit of each row's label."""
    return ops.squeeze(ops.take_along_axis(logits, ops.expand_dims(labels, -1), axis=-1), -1)


def _first_highest(logits):
    """Return the first class with the highest logit, int32 [...]; ties are common in bfloat16."""
    classes = ops.shape(logits)[-1]
    highest = ops.max(logits, axis=-1, keepdims=True)
    return ops.min(ops.where(logits >= highest, ops.arange(classes, dtype="int32"), classes), axis=-1)


def weighted(logits, labels, weights):
    """Return the sums of cross entropy (nats), weights and hits: logits [..., C], labels int [...], weights float [...]."""
    labels = ops.cast(labels, "int32")
    weights = ops.cast(weights, "float32")
    losses = _cross_entropy(logits, labels)
    hits = ops.cast(_first_highest(logits) == labels, "float32")
    return ops.sum(losses * weights), ops.sum(weights), ops.sum(hits * weights)


def weighted_sigmoid(logits, labels, weights):
    """Return the sums of sigmoid cross entropy (nats), weights and hits: logits, labels (0 or 1), weights float [B, L].

    Each label of a row counts as one answer; it is a hit if its probability is on the right side of one half.
    """
    labels, weights = ops.cast(labels, "float32"), ops.cast(weights, "float32")
    losses = ops.maximum(logits, 0.0) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))
    hits = ops.cast(ops.equal(logits > 0, labels > 0.5), "float32")
    return ops.sum(losses * weights), ops.sum(weights), ops.sum(hits * weights)


def sums(outputs: dict, targets: dict) -> dict:
    """Return the sums of the losses of a batch.

    Args:
        outputs: `masked_lm_logits` [B, P, V] and, if the objective has it, `next_sentence_logits` [B, 2].
        targets: `masked_lm_ids` [B, P], `masked_lm_weights` [B, P], `next_sentence_labels` [B], `example_weights` [B]. With
            E packed examples per row, [B, E, 2] and [B, E]. For replaced tokens `replaced_logits` and `replaced_labels` among
            the outputs, since labels depend on what was sampled, and `token_weights`: all [B, S].

    Returns a float32 scalar for every name of SUMS; those of an absent head are 0.
    """
    found = {"masked_lm": weighted(outputs["masked_lm_logits"], targets["masked_lm_ids"], targets["masked_lm_weights"])}
    if "next_sentence_logits" in outputs:
        labels, weights = targets["next_sentence_labels"], targets["example_weights"]
        found["next_sentence"] = weighted(outputs["next_sentence_logits"], labels, weights)
    if "replaced_logits" in outputs:
        found["replaced"] = weighted_sigmoid(outputs["replaced_logits"], outputs["replaced_labels"], targets["token_weights"])
    return named(found)


def total(means: dict):
    """Return the sum of mean losses, by the names of LOSSES, with their SCALES."""
    return sum(value * SCALES[name] if name in SCALES else value for name, value in means.items())


def named(found: dict) -> dict:
    """Return (loss, weight, hits) by loss as a scalar for every name of SUMS; 0 for losses that are absent."""
    nothing = (ops.zeros((), "float32"),) * 3
    return dict(zip(SUMS, (value for name in LOSSES for value in found.get(name, nothing)), strict=True))
